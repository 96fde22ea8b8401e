"""B-mode ultrasound of breast and liver: speckle, layers, shadows, enhancement."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from indexer.demo.findings import Chances, Finding, Picture
from indexer.demo.shapes import Canvas, Plane, Point, cloud, inside, radius_of

BREAST_MM, LIVER_MM = 50.0, 160.0


def breast_ultrasound(chances: Chances, finding: Finding, columns: int) -> Picture:
    """A linear probe: skin, fat, gland, muscle from top to bottom."""
    rng = chances.body
    canvas = Canvas.blank(columns, columns)
    shape = canvas.image.shape
    wave = 0.03 * cloud(shape, columns / 4, rng)
    depth = canvas.y + 1 + wave
    echo = 0.85 * inside(0.1 - depth, 0.02) + 0.26 * inside(depth - 0.1, 0.02)
    echo += (0.30 + 0.07 * cloud(shape, columns / 14, rng)) * inside(depth - 0.55, 0.08) * inside(1.35 - depth, 0.05)
    for line in (0.55, 1.38, 1.62):
        echo += 0.35 * np.exp(-(((depth - line) / 0.018) ** 2))
    echo -= 0.10 * inside(depth - 1.65, 0.05)
    where = (rng.uniform(-0.3, 0.3), rng.uniform(-0.2, 0.05))
    echo = _with_lesion(canvas, chances, finding, where, echo, BREAST_MM)
    return _scan(echo * (1.05 - 0.18 * (canvas.y + 1)), np.ones(shape, np.float32), chances, BREAST_MM)


def liver_ultrasound(chances: Chances, finding: Finding, columns: int) -> Picture:
    """A curved probe: a fan of liver with vessels, diaphragm below, right kidney at the side."""
    rng = chances.body
    canvas = Canvas.blank(columns, columns)
    shape = canvas.image.shape
    radius, angle = np.hypot(canvas.x, canvas.y + 1.45), np.arctan2(canvas.x, canvas.y + 1.45)
    fan = inside(0.62 - np.abs(angle), 0.008) * inside(radius - 0.55, 0.008) * inside(2.38 - radius, 0.008)
    fatty = finding.name == "steatosis"
    echo = np.full(shape, 0.62 if fatty else 0.42, np.float32) + 0.04 * cloud(shape, columns / 10, rng)
    echo += 0.5 * np.exp(-(((radius - 2.1 - 0.08 * np.cos(3 * angle)) / 0.035) ** 2)) * (0.4 if fatty else 1.0)
    for _ in range(7):  # portal and hepatic veins
        spot = (rng.uniform(-0.6, 0.5), rng.uniform(-0.4, 0.5))
        vein = radius_of(canvas, spot, (rng.uniform(0.05, 0.16), rng.uniform(0.022, 0.035)), rng.uniform(-0.8, 0.8))
        echo -= (0.16 if fatty else 0.30) * inside(1 - vein, 0.2)
        echo += (0.03 if fatty else 0.16) * np.exp(-(((vein - 1.15) / 0.15) ** 2))
    kidney = radius_of(canvas, (0.62, 0.28), (0.30, 0.17), 0.5)
    echo = echo + inside(1 - kidney, 0.05) * (0.26 - echo) + 0.35 * np.exp(-((kidney / 0.45) ** 2))
    where = (rng.uniform(-0.35, 0.1), rng.uniform(-0.2, 0.2))
    echo = _with_lesion(canvas, chances, finding, where, echo, LIVER_MM)
    loss = np.exp(-(0.75 if fatty else 0.18) * np.clip(radius - 0.6, 0, None))
    return _scan(echo * loss, fan, chances, LIVER_MM)


def _with_lesion(
    canvas: Canvas, chances: Chances, finding: Finding, where: Point, echo: Plane, field_mm: float
) -> Plane:
    """Echogenicity with the finding in it: what it reflects, and what it does to the beam behind it."""
    rng = chances.body
    size = (finding.size_mm or 15.0) / field_mm
    behind = inside(size * 0.9 - np.abs(canvas.x - where[0]), 0.03) * inside(canvas.y - where[1] - size * 0.6, 0.05)
    if finding.name == "cyst":
        hole = inside(1 - radius_of(canvas, where, (size * 1.15, size * 0.9)), 0.06)
        echo = echo * (1 - 0.97 * hole) + 0.30 * behind * (1 - hole) * np.exp(-(canvas.y - where[1]) / 0.5)
    elif finding.name == "solid_mass":
        edge = radius_of(canvas, where, (size, size * 1.05), 0.3) + 0.13 * cloud(echo.shape, echo.shape[0] / 12, rng)
        mass = inside(1 - edge, 0.12)
        echo = echo * (1 - 0.72 * mass) - 0.9 * echo * 0.72 * behind * (1 - mass)
        echo = echo + 0.18 * np.exp(-(((edge - 1.12) / 0.1) ** 2))
    elif finding.name == "haemangioma":
        bright = inside(1 - radius_of(canvas, where, (size, size * 0.92)), 0.1)
        echo = echo + 0.42 * bright
    return np.asarray(echo, dtype=np.float32)


def _scan(echo: Plane, fan: Plane, chances: Chances, field_mm: float) -> Picture:
    """Fully developed speckle (Rayleigh), blurred more across the beam than along it, log-compressed, as grey RGB."""
    rng = chances.visit
    noise = rng.standard_normal((2, *echo.shape), dtype=np.float32)
    smooth = [ndimage.gaussian_filter(part, (0.9, 2.0)) for part in noise]
    speckle = np.hypot(smooth[0], smooth[1])
    amplitude = np.clip(echo, 0.004, None) ** 2 * speckle / speckle.mean()
    compressed = 1 + np.log10(np.clip(amplitude, 1e-4, None)) / 3.0
    grey = np.round(np.clip(compressed * 0.95, 0, 1) * 255 * fan).astype(np.uint8)
    return Picture(np.repeat(grey[:, :, None], 3, axis=2), (field_mm / echo.shape[1],) * 2, 8)
