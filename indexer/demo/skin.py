"""Dermoscopy-like pictures of skin lesions, RGB."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from indexer.demo.findings import Chances, Finding, Picture
from indexer.demo.shapes import Canvas, Plane, ball, cloud, inside, path, radius_of, texture, tree

FIELD_MM = 20.0
Rgb = npt.NDArray[np.floating[Any]]
_TONES = ((0.93, 0.76, 0.66), (0.87, 0.66, 0.54), (0.76, 0.55, 0.43))


def lesion(chances: Chances, finding: Finding, columns: int) -> Picture:
    """A lesion in the middle of a dermoscope's round field."""
    rng = chances.body
    canvas = Canvas.blank(round(columns * 0.75), columns)
    shape = canvas.image.shape
    skin = np.asarray(_TONES[int(rng.integers(0, 3))], dtype=np.float32)
    picture = skin * (1 + 0.025 * texture(shape, rng, (2, 6, 20)))[:, :, None]
    picture = picture * (1 - 0.012 * _lines(canvas))[:, :, None]
    radius = (finding.size_mm or 7.0) / FIELD_MM
    turn = chances.visit.uniform(-0.4, 0.4)
    if finding.name != "normal":
        picture = _PAINTERS[finding.name](canvas, rng, picture, radius, turn)
    picture = _with_hair(canvas, rng, picture)
    light = 1 - 0.16 * radius_of(canvas, (0.05, -0.05), (1.25, 1.0)) ** 2 + chances.visit.normal(0, 0.015)
    field = inside(1.18 - np.hypot(canvas.x, canvas.y), 0.03)
    noise = 0.012 * chances.visit.standard_normal((*shape, 3), dtype=np.float32)
    out = (ndimage.gaussian_filter(picture, (0.6, 0.6, 0)) * light[:, :, None] + noise) * field[:, :, None]
    return Picture(np.round(np.clip(out, 0, 1) * 255).astype(np.uint8), (FIELD_MM / columns,) * 2, 8)


def _lines(canvas: Canvas) -> Plane:
    """The furrows of skin: two crossing sets of fine lines."""
    return np.asarray(
        np.cos(55 * (canvas.x + 0.5 * canvas.y)) + np.cos(55 * (canvas.x - 0.6 * canvas.y)), dtype=np.float32
    )


def _mix(picture: Rgb, colour: tuple[float, float, float], amount: Plane) -> Rgb:
    share = np.clip(amount, 0, 1)[:, :, None]
    return np.asarray(picture * (1 - share) + np.asarray(colour, np.float32) * share, dtype=np.float32)


def _blob(canvas: Canvas, rng: np.random.Generator, radius: float, ragged: float, turn: float) -> Plane:
    """Distance from the middle of an uneven patch, 1 on its outline."""
    outline = radius_of(canvas, (0.0, 0.0), (radius * 1.12, radius * 0.9), turn + rng.uniform(0, 3))
    return np.asarray(outline + ragged * cloud(canvas.image.shape, canvas.image.shape[1] / 9, rng), dtype=np.float32)


def _nevus(canvas: Canvas, rng: np.random.Generator, picture: Rgb, radius: float, turn: float) -> Rgb:
    edge = _blob(canvas, rng, radius, 0.04, turn)
    body = inside(1 - edge, 0.10)
    net = 0.5 + 0.5 * np.cos(62 * canvas.x + 2) * np.cos(62 * canvas.y)
    picture = _mix(picture, (0.52, 0.33, 0.22), 0.88 * body)
    return _mix(picture, (0.36, 0.21, 0.14), body * (0.28 * net + 0.45 * np.exp(-(edge**2) / 0.35)))


def _melanoma(canvas: Canvas, rng: np.random.Generator, picture: Rgb, radius: float, turn: float) -> Rgb:
    edge = _blob(canvas, rng, radius * 1.15, 0.13, turn)
    body = inside(1 - edge, 0.06)
    shape, wide = canvas.image.shape, canvas.image.shape[1]
    picture = _mix(picture, (0.40, 0.24, 0.17), 0.92 * body)
    picture = _mix(picture, (0.11, 0.08, 0.08), body * np.clip(0.5 + 0.6 * cloud(shape, wide / 10, rng), 0, 0.95))
    picture = _mix(picture, (0.42, 0.46, 0.55), body * np.clip(0.6 * cloud(shape, wide / 7, rng) - 0.4, 0, 0.6))
    return _mix(picture, (0.66, 0.30, 0.25), body * np.clip(0.7 * cloud(shape, wide / 8, rng) - 0.8, 0, 0.5))


def _carcinoma(canvas: Canvas, rng: np.random.Generator, picture: Rgb, radius: float, turn: float) -> Rgb:
    edge = _blob(canvas, rng, radius, 0.07, turn)
    body = inside(1 - edge, 0.15)
    picture = _mix(picture, (0.90, 0.60, 0.58), 0.8 * body)
    picture = _mix(picture, (0.98, 0.86, 0.82), 0.6 * np.exp(-(((edge - 0.88) / 0.13) ** 2)))  # pearly rim
    vessels = canvas.like()
    for heading in rng.uniform(0, 2 * np.pi, 7):
        start = (-0.8 * radius * float(np.cos(heading)), -0.8 * radius * float(np.sin(heading)))
        tree(vessels, rng, start, float(heading), radius * 0.45, 0.014, 1.0)
    picture = _mix(picture, (0.72, 0.16, 0.18), 0.75 * vessels.image * body)
    ulcer = radius_of(canvas, (0.2 * radius, 0.1 * radius), (0.26 * radius, 0.2 * radius), turn)
    return _mix(picture, (0.45, 0.15, 0.12), 0.8 * inside(1 - ulcer, 0.2))


def _keratosis(canvas: Canvas, rng: np.random.Generator, picture: Rgb, radius: float, turn: float) -> Rgb:
    edge = _blob(canvas, rng, radius * 1.1, 0.06, turn)
    body = inside(1 - edge, 0.035)
    crust = 0.5 + 0.28 * texture(canvas.image.shape, rng, (4, 9))
    picture = _mix(picture, (0.66, 0.52, 0.36), 0.9 * body)
    picture = _mix(picture, (0.42, 0.31, 0.20), body * np.clip(crust - 0.2, 0, 0.8))
    for _ in range(26):
        turned, out = rng.uniform(0, 2 * np.pi), radius * np.sqrt(rng.uniform(0, 0.75))
        spot = radius_of(canvas, (float(out * np.cos(turned)), float(out * np.sin(turned))), (0.022, 0.022))
        picture = _mix(
            picture, (0.97, 0.92, 0.78) if rng.random() < 0.6 else (0.2, 0.13, 0.09), 0.9 * ball(spot) * body
        )
    return picture


def _with_hair(canvas: Canvas, rng: np.random.Generator, picture: Rgb) -> Rgb:
    hairs = canvas.like()
    for _ in range(int(rng.integers(0, 6))):
        start, heading = rng.uniform(-1, 1, 2), rng.uniform(0, 2 * np.pi)
        bend = rng.normal(0, 0.5)
        steps = [(float(start[0] + t * np.cos(heading + bend * t)), float(start[1] + t * np.sin(heading + bend * t)))
                 for t in np.linspace(0, 0.9, 7)]  # fmt: skip
        path(hairs, steps, 0.007, 0.8)
    return _mix(picture, (0.18, 0.12, 0.10), hairs.image)


_PAINTERS = {
    "nevus": _nevus,
    "melanoma": _melanoma,
    "basal_cell_carcinoma": _carcinoma,
    "seborrhoeic_keratosis": _keratosis,
}
