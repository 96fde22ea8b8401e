"""Mammograms: CC and MLO views of both breasts."""

from __future__ import annotations

import numpy as np

from indexer.demo.findings import Chances, Finding, Picture
from indexer.demo.shapes import Canvas, Plane, Point, ball, grain, inside, radius_of, stroke, texture, to_levels, tree

FIELD_MM = 150.0


def mammogram(chances: Chances, finding: Finding, view: str, side: str, columns: int) -> Picture:
    """One view. The chest wall of a left breast is on the left of the image, of a right breast on the right.

    ``finding`` is drawn when it is on ``side``.
    """
    rng = chances.body
    canvas = Canvas.blank(round(columns * 1.3), columns)
    reach, density = rng.uniform(1.35, 1.6), rng.uniform(0.35, 0.75)
    depth = canvas.x + 1  # from the chest wall
    centre = 0.22 if view == "MLO" else 0.0
    radius = np.hypot(depth / reach, (canvas.y - centre) / (1.02 if view == "MLO" else 0.92))
    breast = inside(1 - radius, 0.02)
    canvas.add(breast * (0.30 + 0.25 * np.sqrt(np.clip(1 - radius, 0, 1))))
    canvas.add(0.10 * np.exp(-(((radius - 0.985) / 0.012) ** 2)))  # skin line
    _tissue(canvas, chances, breast, radius, density, centre)
    nipple = (reach - 1.01, centre)
    canvas.add(0.45 * ball(radius_of(canvas, nipple, (0.045, 0.06))))
    if view == "MLO":
        edge = 0.62 * (0.25 - canvas.y) - depth * 0.85  # the pectoral muscle, and the armpit's fat beside it
        canvas.add(0.45 * inside(edge, 0.03) * (0.9 + 0.1 * np.clip(edge, 0, 1)) * (1 - 0.55 * breast))
        canvas.add(0.26 * inside(edge + 0.42, 0.05) * (1 - breast) * inside(-0.2 - canvas.y, 0.2))
    if side == finding.side:
        height = rng.uniform(-0.25, 0.25) + centre
        _draw_finding(canvas, chances, finding, (rng.uniform(-0.45, -0.1), height + (0.08 if view == "MLO" else 0.0)))
    film = grain(canvas.image, chances.visit, 0.012, 0.7)
    pixels = to_levels(1 - np.exp(-1.3 * np.clip(film, 0, None)), 12, 0.02, 0.90)
    return Picture(pixels if side == "L" else np.ascontiguousarray(pixels[:, ::-1]), (FIELD_MM / columns,) * 2)


def _tissue(canvas: Canvas, chances: Chances, breast: Plane, radius: Plane, density: float, centre: float) -> None:
    """A fibroglandular cone that narrows to the nipple, ducts running in it, vessels across the fat."""
    rng = chances.body
    shape = canvas.image.shape
    cone = np.clip(1.15 - radius, 0, 1) ** 0.5 * np.exp(
        -(((canvas.y - centre) / (0.62 - 0.28 * (canvas.x + 1) / 2)) ** 4)
    )
    lumps = np.clip(density + 0.33 * texture(shape, rng, (5, 12, 26)), 0, 1.3)
    canvas.add(0.72 * breast * cone * lumps * inside(canvas.x + 0.93, 0.1))
    fibres = canvas.like()
    for heading in np.linspace(np.pi - 0.7, np.pi + 0.7, 7):
        tree(fibres, rng, (0.33, centre), float(heading), 0.26, 0.011, 0.10)
    for _ in range(3):
        tree(fibres, rng, (-0.95, float(rng.uniform(-0.5, 0.5) + centre)), float(rng.normal(0, 0.4)), 0.3, 0.012, 0.13)
    canvas.add(fibres.image * breast)


def _draw_finding(canvas: Canvas, chances: Chances, finding: Finding, where: Point) -> None:
    rng = chances.body
    radius = (finding.size_mm or 12.0) / FIELD_MM
    if finding.name == "spiculated_mass":
        canvas.add(0.62 * ball(radius_of(canvas, where, (radius, radius * 0.9), 0.5)) ** 0.7)
        for angle in np.linspace(0, 2 * np.pi, 22, endpoint=False) + rng.uniform(0, 0.3):
            reach = radius * rng.uniform(1.7, 2.9)
            tip = (where[0] + reach * np.cos(angle), where[1] + reach * np.sin(angle))
            stroke(canvas, where, tip, 0.008, 0.10)
    elif finding.name == "round_mass":
        canvas.add(0.60 * inside(1 - radius_of(canvas, where, (radius * 1.15, radius), 0.3), 0.08))
    elif finding.name == "calcifications":
        for _ in range(34):
            spot = (where[0] + rng.normal(0, 0.5 * radius), where[1] + rng.normal(0, 0.5 * radius))
            size = rng.uniform(0.007, 0.014)
            canvas.add(1.6 * ball(radius_of(canvas, spot, (size, size * 0.8))))
