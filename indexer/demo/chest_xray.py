"""Chest radiographs: a PA and a lateral view, with and without disease."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from indexer.demo.findings import Chances, Finding, Picture
from indexer.demo.shapes import (
    Canvas,
    Plane,
    ball,
    bone,
    cloud,
    grain,
    inside,
    path,
    radius_of,
    stroke,
    texture,
    to_levels,
    tree,
)

FIELD_MM = 360.0  # width of the detector


@dataclass(frozen=True, slots=True)
class _Build:
    """One patient's chest."""

    width: float
    base: float  # height of the diaphragm
    heart: float
    rib_gap: float
    stout: float

    @classmethod
    def of(cls, rng: np.random.Generator, finding: Finding) -> _Build:
        enlarged = 1.55 if finding.name == "cardiomegaly" else 1.0
        return cls(
            width=rng.uniform(0.74, 0.82),
            base=rng.uniform(0.42, 0.54),
            heart=enlarged * rng.uniform(0.92, 1.08),
            rib_gap=rng.uniform(0.142, 0.162),
            stout=rng.uniform(0.9, 1.15),
        )


def chest_pa(chances: Chances, finding: Finding, columns: int) -> Picture:
    """A PA view: the patient's right is on the left of the image."""
    rng = chances.body
    build = _Build.of(rng, finding)
    canvas = Canvas.blank(round(columns * 1.08), columns)
    lungs = {side: _lung(canvas, build, side) for side in (-1, 1)}
    air = lungs[-1] + lungs[1]
    _soft_tissue(canvas, build)
    canvas.take(0.95 * air)
    _mediastinum(canvas, build)
    _vessels(canvas, rng, air)
    _skeleton(canvas, build, rng)
    canvas.add(air * (0.028 * texture(canvas.image.shape, rng) + 0.05))
    _draw_finding(canvas, chances, finding, lungs)
    film = grain(canvas.image, chances.visit, 0.012)
    film += chances.visit.normal(0, 0.02)
    return Picture(to_levels(1 - np.exp(-np.clip(film, 0, None)), 12, 0.02, 0.9), _spacing(columns))


def _spacing(columns: int) -> tuple[float, float]:
    return (FIELD_MM / columns, FIELD_MM / columns)


def _lung(canvas: Canvas, build: _Build, side: int) -> Plane:
    """How much of each pixel is lung, 0 to 1; ``side`` -1 is the patient's right."""
    u, y = side * canvas.x, canvas.y
    lateral = build.width * np.sqrt(np.clip(1 - ((y - 0.3) / 1.28) ** 2, 0.02, None)) * 0.93
    medial = 0.12 + 0.02 * np.cos(3 * y)
    if side > 0:
        medial = medial + 0.28 * build.heart * np.exp(-(((y - build.base + 0.08) / 0.27) ** 2))
    else:
        medial = medial + 0.10 * build.heart * np.exp(-(((y - build.base + 0.14) / 0.24) ** 2))
    dome = build.base - (0.0 if side > 0 else 0.06) + 1.75 * (u - 0.36) ** 2
    apex = -0.82 + 2.1 * (u - 0.29) ** 2
    soft = 0.014
    return inside(lateral - u, soft) * inside(u - medial, soft) * inside(dome - y, soft) * inside(y - apex, soft)


def _soft_tissue(canvas: Canvas, build: _Build) -> None:
    x, y = np.abs(canvas.x), canvas.y
    flank = (build.width + 0.11 * build.stout) * np.sqrt(np.clip(1 - ((y - 0.35) / 2.4) ** 2, 0, None))
    shoulder = -0.99 + 0.20 * np.clip(x - 0.2, 0, None) + 0.9 * np.clip(x - 0.8, 0, None) ** 1.2
    arms = inside(-0.35 - y - 0.3 * (1 - x), 0.25) * inside(x - 0.6, 0.1)
    trunk = np.maximum(inside(flank - x, 0.03), arms) * inside(y - shoulder, 0.02)
    canvas.add(trunk * (1.12 + 0.22 * inside(y - 0.45, 0.2) * build.stout))


def _mediastinum(canvas: Canvas, build: _Build) -> None:
    x, y = canvas.x, canvas.y
    column = inside(0.15 - np.abs(x - 0.01), 0.03) * inside(y + 0.95, 0.1)
    canvas.add(0.42 * column)
    canvas.take(0.22 * inside(0.035 - np.abs(x), 0.015) * inside(-0.18 - y, 0.05))  # trachea
    heart = ball(radius_of(canvas, (0.11, build.base - 0.1), (0.33 * build.heart, 0.27), 0.5))
    canvas.add(0.55 * heart)
    canvas.add(0.30 * ball(radius_of(canvas, (0.13, -0.28), (0.09, 0.10))))  # aortic knob
    canvas.take(0.30 * ball(radius_of(canvas, (0.36, build.base + 0.2), (0.13, 0.07))))  # stomach bubble
    for k in range(13):  # vertebrae, faint through the heart
        centre = -0.95 + 0.155 * k
        canvas.add(0.08 * inside(0.055 - np.abs(y - centre), 0.02) * inside(0.1 - np.abs(x), 0.02))


def _vessels(canvas: Canvas, rng: np.random.Generator, air: Plane) -> None:
    layer = canvas.like()
    for side in (-1, 1):
        hilum = (side * 0.17, -0.05 + 0.03 * side)
        layer.add(0.18 * ball(radius_of(layer, hilum, (0.07, 0.13))))
        for heading in (-1.25, -0.6, -0.05, 0.5, 1.0, 1.4):
            angle = heading if side > 0 else np.pi - heading
            tree(layer, rng, hilum, angle, 0.17, 0.019, 0.17)
    canvas.add(ndimage.gaussian_filter(layer.image, 0.9) * np.clip(air + 0.15, 0, 1))


def _skeleton(canvas: Canvas, build: _Build, rng: np.random.Generator) -> None:
    tilt = rng.normal(0, 0.01)
    for side in (-1, 1):
        for k in range(10):
            top = -0.80 + build.rib_gap * k + tilt * side
            span = build.width * np.sqrt(max(0.05, 1 - ((top + 0.05 - 0.3) / 1.35) ** 2))
            u = np.linspace(0.08, span, 12)
            v = u / span
            back = [(side * a, top - 0.06 * np.sin(3.0 * b) + 0.16 * b**3) for a, b in zip(u, v, strict=True)]
            path(canvas, back, 0.027, 0.20, _flat)
            if k < 8:
                front = [
                    (side * (0.32 * span + 0.68 * a), top + 0.44 - 0.30 * b**1.6) for a, b in zip(u, v, strict=True)
                ]
                path(canvas, front, 0.024, 0.075, _flat)
        bone(canvas, (side * 0.07, -0.63), (side * 0.40, -0.745), 0.030, 0.34, 0.25)  # clavicle
        bone(canvas, (side * 0.38, -0.74), (side * 0.74, -0.79), 0.026, 0.34, 0.35)
        blade = radius_of(canvas, (side * 0.80, -0.42), (0.10, 0.30), -0.25 * side)
        canvas.add(0.15 * inside(1 - blade, 0.12))
        canvas.add(0.45 * ball(radius_of(canvas, (side * 0.90, -0.70), (0.10, 0.11))))  # humeral head


def _flat(radius: Plane) -> Plane:
    """A rib: flat in section, its lower and upper edges a little brighter."""
    return np.asarray(inside(1 - radius, 0.12) * (0.72 + 0.4 * radius**2), dtype=np.float32)


def _draw_finding(canvas: Canvas, chances: Chances, finding: Finding, lungs: dict[int, Plane]) -> None:
    side = 1 if finding.side == "L" else -1  # the patient's left is on the right of the image
    rng, lung = chances.body, lungs[side]
    jitter = chances.visit.normal(0, 0.012, 2)
    if finding.name == "pneumonia":
        centre = (side * rng.uniform(0.38, 0.46) + jitter[0], rng.uniform(0.12, 0.3) + jitter[1])
        patchy = np.clip(0.85 + 0.3 * cloud(canvas.image.shape, canvas.image.shape[1] / 22, chances.visit), 0, 1.4)
        spread = np.exp(-(radius_of(canvas, centre, (0.22, 0.26)) ** 2.5))
        canvas.add(0.72 * lung * spread * patchy)
    elif finding.name == "pleural_effusion":
        level = rng.uniform(0.18, 0.28) + jitter[1]
        meniscus = level + 0.55 * (_from_the_wall(canvas, side)) ** 2
        canvas.add(1.05 * lung * inside(canvas.y - meniscus, 0.03))
    elif finding.name == "nodule":
        radius = (finding.size_mm or 20.0) / FIELD_MM
        centre = (side * rng.uniform(0.36, 0.55), rng.uniform(-0.4, 0.1))
        canvas.add(0.75 * ball(radius_of(canvas, centre, (radius, radius * 0.92), 0.4)) ** 0.8)
    elif finding.name == "pneumothorax":
        gap = rng.uniform(0.16, 0.22)
        u, y = side * canvas.x, canvas.y
        rim = np.hypot((u - 0.30) / (0.48 - gap), (y - 0.02) / (0.80 - gap))
        outside = inside(rim - 1, 0.01) * lung * inside(0.35 - y, 0.1)
        canvas.take(outside * np.clip(canvas.image - 0.05, 0, 0.16))
        canvas.add(0.14 * np.exp(-(((rim - 1) / 0.012) ** 2)) * lung * inside(0.35 - y, 0.1))


def _from_the_wall(canvas: Canvas, side: int) -> Plane:
    """Distance from the lateral chest wall, towards the spine."""
    return np.asarray(np.clip(0.72 - side * canvas.x, 0, None))


def chest_lateral(chances: Chances, finding: Finding, columns: int) -> Picture:
    """A left lateral view: anterior is on the left of the image."""
    rng = chances.body
    build = _Build.of(rng, finding)
    canvas = Canvas.blank(round(columns * 1.08), columns)
    x, y = canvas.x, canvas.y
    trunk = inside(1 - radius_of(canvas, (0.02, 0.25), (0.80, 1.75)), 0.03) * inside(y + 1.0 - 0.25 * np.abs(x), 0.03)
    canvas.add(1.2 * trunk)
    lung = inside(1 - radius_of(canvas, (0.04, -0.1), (0.60, 0.78), 0.06), 0.03)
    lung = lung * inside(build.base - 0.02 + 0.5 * (x + 0.2) ** 2 + 0.35 * np.clip(x, 0, None) - y, 0.015)
    canvas.take(0.95 * lung)
    canvas.add(0.45 * inside(y - 0.4, 0.15) * trunk)
    heart = ball(radius_of(canvas, (-0.22, build.base - 0.2), (0.30 * build.heart, 0.25), -0.5))
    canvas.add(0.6 * heart)
    canvas.add(0.22 * ball(radius_of(canvas, (0.03, -0.08), (0.13, 0.12))))  # hila
    canvas.take(0.20 * inside(0.035 - np.abs(x - 0.02 - 0.1 * (y + 0.8)), 0.012) * inside(-0.2 - y, 0.05))
    for k in range(13):
        top = -0.95 + 0.15 * k
        centre = 0.50 + 0.10 * np.sin(1.7 * (top + 0.6))
        block = inside(0.10 - np.abs(x - centre), 0.035) * inside(0.06 - np.abs(y - top), 0.02)
        canvas.add(0.24 * block * trunk)
    for k in range(9):
        top = -0.75 + build.rib_gap * k
        points = [(0.55 - t, top + 0.30 * t**1.3) for t in np.linspace(0, 1.08, 12)]
        path(canvas, points, 0.022, 0.10, _flat)
    stroke(canvas, (-0.60, -0.55), (-0.66, 0.2), 0.028, 0.3)  # sternum
    for heading in (-2.3, -1.6, -0.8, 0.2, 1.0, 1.9, 2.7):
        tree(canvas, rng, (0.03, -0.08), heading, 0.15, 0.017, 0.11)
    canvas.add(lung * (0.028 * texture(canvas.image.shape, rng) + 0.05))
    _draw_lateral_finding(canvas, chances, finding, lung)
    film = grain(canvas.image, chances.visit, 0.012)
    return Picture(to_levels(1 - np.exp(-np.clip(film, 0, None)), 12, 0.02, 0.93), _spacing(columns))


def _draw_lateral_finding(canvas: Canvas, chances: Chances, finding: Finding, lung: Plane) -> None:
    rng = chances.body
    if finding.name == "pneumonia":
        spread = np.exp(-(radius_of(canvas, (rng.uniform(0.1, 0.3), 0.25), (0.24, 0.22)) ** 2.5))
        patchy = np.clip(0.85 + 0.3 * cloud(canvas.image.shape, canvas.image.shape[1] / 22, chances.visit), 0, 1.4)
        canvas.add(0.75 * lung * spread * patchy)
    elif finding.name == "pleural_effusion":
        level = rng.uniform(0.25, 0.35)
        canvas.add(0.9 * lung * inside(canvas.y - level + 0.5 * (canvas.x - 0.1) ** 2, 0.03))
    elif finding.name == "nodule":
        radius = (finding.size_mm or 20.0) / FIELD_MM
        centre = (rng.uniform(-0.1, 0.3), rng.uniform(-0.4, 0.0))
        canvas.add(0.65 * ball(radius_of(canvas, centre, (radius, radius))) ** 0.8)
