"""Radiographs of hands and knees, with and without disease."""

from __future__ import annotations

import itertools

import numpy as np

from indexer.demo.findings import Chances, Finding, Picture
from indexer.demo.shapes import Canvas, Plane, Point, ball, bone, grain, inside, radius_of, stroke, texture, to_levels

HAND_MM, KNEE_MM = 200.0, 180.0
_FINGERS = ((-0.42, 0.90), (-0.19, 1.06), (0.03, 1.12), (0.25, 1.04))  # (lean, length) from index to little finger
_CARPALS = ((-0.20, 0.55), (-0.05, 0.50), (0.09, 0.50), (0.21, 0.55), (-0.13, 0.66), (0.03, 0.64), (0.17, 0.67))


def hand(chances: Chances, finding: Finding, columns: int) -> Picture:
    """A PA view of one hand; a left hand has its thumb on the right of the image."""
    rng = chances.body
    canvas = Canvas.blank(round(columns * 1.3), columns)
    length, thick = rng.uniform(0.93, 1.03), rng.uniform(0.92, 1.1)
    mirror = -1.0 if finding.side == "L" else 1.0
    flesh, lay = canvas.like(), canvas.like()
    for number, rays in enumerate(_rays(length, rng)):
        worn = finding.name == "osteoarthritis" and number != 4
        _finger(lay, flesh, rays, thick, mirror, worn)
    for number, (x, y) in enumerate(_CARPALS):
        radii = (0.075 + 0.012 * (number % 3), 0.062 + 0.008 * (number % 2))
        where = (mirror * (x + rng.normal(0, 0.006)), y)
        shell = radius_of(lay, where, radii, 0.5 * number)
        lay.image[:] = np.maximum(lay.image, 0.62 * ball(shell) + 0.16 * np.exp(-(((shell - 0.93) / 0.1) ** 2)))
    bone(lay, (mirror * -0.11, 0.84), (mirror * -0.12, 1.5), 0.115 * thick, 0.75, 0.35)  # radius
    bone(lay, (mirror * 0.17, 0.86), (mirror * 0.16, 1.5), 0.070 * thick, 0.70, 0.25)  # ulna
    palm = inside(1 - radius_of(canvas, (0.0, 0.33), (0.47, 0.46)), 0.05)
    wrist = inside(0.33 - np.abs(canvas.x), 0.05) * inside(canvas.y - 0.5, 0.1)
    flesh.image[:] = np.maximum(flesh.image, 0.42 * np.maximum(palm, wrist))
    if finding.name == "fracture":
        _break(lay, (mirror * -0.115, 0.98), 0.16, chances, mirror)
    return _expose(canvas, lay.image, flesh.image, chances, HAND_MM)


def _rays(length: float, rng: np.random.Generator) -> list[list[Point]]:
    """The joints of each finger from the carpus outwards; the thumb last."""
    rays = []
    for lean, reach in _FINGERS:
        spread = lean + rng.normal(0, 0.015)
        base, top = (0.75 * spread, 0.42), (1.45 * spread, 0.42 - 1.42 * reach * length)
        rays.append([_between(base, top, t) for t in (0.0, 0.40, 0.68, 0.86, 1.0)])
    base, top = (-0.26, 0.48), (-0.80, -0.12 + rng.normal(0, 0.03))
    rays.append([_between(base, top, t) for t in (0.0, 0.45, 0.76, 1.0)])
    return rays


def _between(start: Point, end: Point, t: float) -> Point:
    return (start[0] + t * (end[0] - start[0]), start[1] + t * (end[1] - start[1]))


def _finger(lay: Canvas, flesh: Canvas, joints: list[Point], thick: float, mirror: float, worn: bool) -> None:
    gap = 0.012 if worn else 0.03  # joint space, as a share of the bone at each end
    points = [(mirror * x, y) for x, y in joints]
    for number, (start, end) in enumerate(itertools.pairwise(points)):
        width = thick * (0.056 - 0.007 * number)
        span = float(np.hypot(end[0] - start[0], end[1] - start[1]))
        margin = (gap + width) / span
        bone(lay, _between(start, end, margin), _between(start, end, 1 - margin), width, 0.72, 0.42)
        fresh = flesh.like()
        stroke(fresh, start, end, 2.05 * width, 0.5, lambda r: ball(r) ** 0.6)
        np.maximum(flesh.image, fresh.image, out=flesh.image)
        if worn and number > 0:  # sclerosis and osteophytes at the joint
            for off in (-1, 1):
                spur = (start[0] + off * 1.35 * width, start[1])
                lay.add(0.5 * ball(radius_of(lay, spur, (0.026, 0.02))))
            lay.add(0.4 * np.exp(-(radius_of(lay, start, (1.5 * width, 0.024)) ** 2)))


def knee(chances: Chances, finding: Finding, columns: int) -> Picture:
    """An AP view of one knee; the fibula of a left knee is on the right of the image."""
    rng = chances.body
    canvas = Canvas.blank(round(columns * 1.25), columns)
    lateral = 1.0 if finding.side == "L" else -1.0
    thick = rng.uniform(0.94, 1.06)
    worn = finding.name == "osteoarthritis"
    drop = 0.045 if worn else 0.0
    lay = canvas.like()
    femur, tibia = _femur(canvas, thick, lateral), _tibia(canvas, thick, lateral, drop)
    lay.image[:] = np.maximum(femur, tibia)
    bone(lay, (lateral * 0.52, 0.38), (lateral * 0.50, 1.5), 0.075 * thick, 0.55, 0.4)  # fibula
    lay.add(0.30 * ball(radius_of(canvas, (0.0, -0.32), (0.20, 0.23))))  # patella in front of the femur
    if worn:
        for side in (-lateral,):  # the medial side wears first
            lay.add(0.45 * np.exp(-(radius_of(canvas, (side * 0.30, 0.10), (0.26, 0.035)) ** 2)))
            lay.add(0.8 * ball(radius_of(canvas, (side * 0.60, 0.13), (0.08, 0.035), 0.5 * side)))
            lay.add(0.8 * ball(radius_of(canvas, (side * 0.60, 0.02), (0.07, 0.035), -0.5 * side)))
        lay.add(0.5 * ball(radius_of(canvas, (lateral * 0.58, 0.10), (0.06, 0.03))))
    if finding.name == "fracture":
        _break(lay, (lateral * 0.25, 0.36), 0.34, chances, lateral)
    limb = 0.80 * np.sqrt(np.clip(1 - ((canvas.x) / (0.83 + 0.05 * np.cos(2.6 * canvas.y))) ** 2, 0, None))
    return _expose(canvas, lay.image, limb, chances, KNEE_MM)


def _femur(canvas: Canvas, thick: float, lateral: float) -> Plane:
    """Shaft and condyles with a bright rim; the notch between the condyles stays open below."""
    x, y = canvas.x, canvas.y
    half = thick * (0.27 + 0.30 / (1 + np.exp(-(y + 0.42) / 0.10)))
    floor = 0.055 - 0.55 * np.clip(np.abs(np.abs(x) - 0.30) - 0.10, 0, None) ** 1.35 - 0.10 * np.exp(-((x / 0.09) ** 2))
    return _solid(np.minimum(half - np.abs(x - 0.02 * lateral), floor - y), 0.62)


def _tibia(canvas: Canvas, thick: float, lateral: float, drop: float) -> Plane:
    """Plateau with its two spines, tapering into the shaft. ``drop`` closes the medial joint space, in units."""
    x, y = canvas.x, canvas.y
    half = thick * (0.24 + 0.34 / (1 + np.exp((y - 0.42) / 0.10)))
    medial = inside(-lateral * x, 0.1)
    spines = 0.065 * (np.exp(-(((x - 0.06) / 0.035) ** 2)) + np.exp(-(((x + 0.06) / 0.035) ** 2)))
    roof = 0.125 - drop * medial - spines + 0.25 * np.clip(np.abs(x) - 0.45, 0, None)
    return _solid(np.minimum(half - np.abs(x), y - roof), 0.58)


def _solid(depth: Plane, gain: float) -> Plane:
    """Bone seen from the distance to its outline: spongy inside, a bright cortex at the rim."""
    body = inside(depth, 0.012)
    cortex = np.exp(-(((depth - 0.028) / 0.024) ** 2))
    return np.asarray(body * gain * (0.72 + 0.45 * cortex + 0.15 * np.clip(depth / 0.3, 0, 1)), dtype=np.float32)


def _break(lay: Canvas, centre: Point, reach: float, chances: Chances, lean: float) -> None:
    """A dark jagged line with a step in it."""
    rng = chances.body
    steps = np.linspace(-1, 1, 9)
    offsets = rng.normal(0, 0.018, 9)
    points = [
        (centre[0] + s * reach, centre[1] + 0.35 * lean * s * reach + o) for s, o in zip(steps, offsets, strict=True)
    ]
    gap = lay.like()
    for start, end in itertools.pairwise(points):
        stroke(gap, start, end, 0.020, 1.0, lambda r: ball(r) ** 0.5)
    dense = np.clip(lay.image, 0, None)
    lay.take(0.75 * dense * np.clip(gap.image, 0, 1))
    shifted = np.roll(gap.image, max(2, gap.image.shape[0] // 60), axis=0)
    lay.add(0.30 * np.clip(shifted - gap.image, 0, 1) * (dense > 0.05))  # overlap of the fragments


def _expose(canvas: Canvas, bones: Plane, flesh: Plane, chances: Chances, field_mm: float) -> Picture:
    """Trabecular pattern, soft tissue, grain."""
    columns = bones.shape[1]
    spongy = 1 + 0.10 * texture(bones.shape, chances.body, (2.2, 4, 9))
    film = grain(np.clip(bones, 0, None) * spongy * 1.25 + flesh, chances.visit, 0.012)
    film += chances.visit.normal(0, 0.015)
    spacing = field_mm / columns
    return Picture(to_levels(1 - np.exp(-np.clip(film, 0, None)), 12, 0.02, 0.86), (spacing, spacing))
