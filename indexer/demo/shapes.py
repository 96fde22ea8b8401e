"""Brushes for phantoms: soft shapes, bones, vessels, clouds. Pure NumPy, all randomness from the generator handed in.

Coordinates: x runs right over [-1, 1] across the width, y runs down, in the same unit, 0 in the middle of the image.
An image is float32 [rows, columns] in arbitrary units until ``to_levels`` makes it storable.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Plane = npt.NDArray[np.floating[Any]]
Point = tuple[float, float]
Profile = Callable[[Plane], Plane]


@dataclass(frozen=True, slots=True)
class Canvas:
    """An image being drawn, with the coordinates of its pixels: x [1, columns], y [rows, 1]."""

    image: Plane
    x: Plane
    y: Plane

    @classmethod
    def blank(cls, rows: int, columns: int) -> Canvas:
        x = np.linspace(-1, 1, columns, dtype=np.float32)[None, :]
        half = rows / columns
        y = np.linspace(-half, half, rows, dtype=np.float32)[:, None]
        return cls(np.zeros((rows, columns), dtype=np.float32), x, y)

    def window(self, low: Point, high: Point) -> Canvas:
        """A view of the part between two corners: drawing into it draws into this canvas."""
        left, right = np.searchsorted(self.x[0], [low[0], high[0]])
        top, bottom = np.searchsorted(self.y[:, 0], [low[1], high[1]])
        rows, columns = slice(top, bottom), slice(left, right)
        return Canvas(self.image[rows, columns], self.x[:, columns], self.y[rows])

    def like(self) -> Canvas:
        """An empty canvas with the same coordinates."""
        return Canvas(np.zeros_like(self.image), self.x, self.y)

    def add(self, amount: Plane | float) -> None:
        """Make denser (brighter on a radiograph)."""
        self.image[:] += amount

    def take(self, amount: Plane | float) -> None:
        """Make less dense."""
        self.image[:] -= amount


def inside(distance: Plane, softness: float) -> Plane:
    """1 where ``distance`` is well above 0, 0 well below, a smooth step of width 2 x ``softness`` between."""
    step = np.clip(distance / (2 * softness) + 0.5, 0, 1)
    return np.asarray(step * step * (3 - 2 * step), dtype=np.float32)


def radius_of(canvas: Canvas, centre: Point, radii: Point, angle: float = 0.0) -> Plane:
    """Distance from the centre of an ellipse, 1 on its outline. ``angle`` in radians, clockwise on screen."""
    dx, dy = canvas.x - centre[0], canvas.y - centre[1]
    along, across = np.cos(angle) * dx + np.sin(angle) * dy, np.cos(angle) * dy - np.sin(angle) * dx
    return np.asarray(np.hypot(along / radii[0], across / radii[1]), dtype=np.float32)


def ball(radius: Plane) -> Plane:
    """Path length of an X-ray through a solid ellipsoid, 1 in the middle."""
    return np.sqrt(np.clip(1 - radius * radius, 0, None))


def tubular(radius: Plane) -> Plane:
    """Path length through a bone shaft: a dense cortex around marrow, so that its edges are bright."""
    marrow = np.sqrt(np.clip(0.68**2 - radius * radius, 0, None))
    return np.asarray(ball(radius) - 0.62 * marrow, dtype=np.float32)


def stroke(canvas: Canvas, start: Point, end: Point, width: float, gain: float, profile: Profile = ball) -> None:
    """Add a straight capsule of half-width ``width``."""
    bone(canvas, start, end, width, gain, flare=0.0, profile=profile)


def bone(
    canvas: Canvas, start: Point, end: Point, width: float, gain: float, flare: float = 0.5, profile: Profile = tubular
) -> None:
    """Add a capsule of half-width ``width`` that widens by ``flare`` towards both ends."""
    reach = width * (1 + flare)
    low = (min(start[0], end[0]) - reach, min(start[1], end[1]) - reach)
    part = canvas.window(low, (max(start[0], end[0]) + reach, max(start[1], end[1]) + reach))
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = max(dx * dx + dy * dy, 1e-9)
    t = np.clip(((part.x - start[0]) * dx + (part.y - start[1]) * dy) / length, 0, 1)
    away = np.hypot(part.x - start[0] - t * dx, part.y - start[1] - t * dy)
    part.add(gain * profile(away / (width * (1 + flare * (2 * t - 1) ** 4))))


def path(canvas: Canvas, points: Sequence[Point], width: float, gain: float, profile: Profile = ball) -> None:
    """The brightest of a chain of capsules, so that joints do not add up."""
    layer = canvas.like()
    for start, end in itertools.pairwise(points):
        low = (min(start[0], end[0]) - width, min(start[1], end[1]) - width)
        part = layer.window(low, (max(start[0], end[0]) + width, max(start[1], end[1]) + width))
        fresh = part.like()
        stroke(fresh, start, end, width, gain, profile)
        np.maximum(part.image, fresh.image, out=part.image)
    canvas.add(layer.image)


def tree(
    canvas: Canvas, rng: np.random.Generator, root: Point, heading: float, reach: float, width: float, gain: float
) -> None:
    """Add a branching vessel: each branch splits in two, shorter, thinner, fainter."""
    if width < 0.0035 or reach < 0.03:
        return
    bend = heading + rng.normal(0, 0.18)
    end = (root[0] + reach * np.cos(bend), root[1] + reach * np.sin(bend))
    stroke(canvas, root, end, width, gain)
    for turn in (-1, 1):
        child = bend + turn * rng.uniform(0.2, 0.65)
        tree(canvas, rng, end, child, reach * rng.uniform(0.62, 0.85), width * 0.74, gain * 0.88)


def cloud(
    shape: tuple[int, ...], scale: float | Sequence[float], rng: np.random.Generator
) -> npt.NDArray[np.floating[Any]]:
    """Smooth noise, standard deviation about 1, with blobs of ``scale`` pixels (one for all axes or one each).

    Random weights on a coarse lattice, blended by cubic B-splines along one axis after the other.
    """
    scales = [float(scale)] * len(shape) if isinstance(scale, (int, float)) else list(scale)
    noise = rng.standard_normal([int(n / s) + 4 for n, s in zip(shape, scales, strict=True)], dtype=np.float32)
    for axis, (n, s) in enumerate(zip(shape, scales, strict=True)):
        noise = _blend(noise, axis, np.arange(n) / s)
    return np.asarray(noise / max(float(noise.std()), 1e-6), dtype=np.float32)


def _blend(lattice: npt.NDArray[np.floating[Any]], axis: int, at: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Cubic B-spline blend of a lattice along one axis at the places ``at``."""
    first = at.astype(np.intp)
    t = at - first
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    across = [1] * lattice.ndim
    across[axis] = len(at)
    parts = ((w / 6).astype(np.float32).reshape(across) * lattice.take(first + k, axis) for k, w in enumerate(weights))
    return np.asarray(sum(parts), dtype=np.float32)


def texture(
    shape: tuple[int, ...], rng: np.random.Generator, scales: Sequence[float] = (3, 7, 16)
) -> npt.NDArray[np.floating[Any]]:
    """Noise at several scales, the coarser the stronger, standard deviation about 1."""
    weights = np.sqrt(np.asarray(scales) / sum(scales))
    layers = (w * cloud(shape, s, rng) for w, s in zip(weights, scales, strict=True))
    return np.asarray(sum(layers), dtype=np.float32)


def to_levels(image: Plane, bits: int, low: float, high: float) -> npt.NDArray[np.uint16]:
    """Stored values 0 .. 2**bits - 1 from ``low`` .. ``high``, clipped."""
    top = (1 << bits) - 1
    return np.asarray(np.round(np.clip((image - low) / (high - low), 0, 1) * top), dtype=np.uint16)


def grain(image: Plane, rng: np.random.Generator, noise: float, blur: float = 0.6) -> Plane:
    """What a detector adds: a little unsharpness and quantum noise."""
    soft = ndimage.gaussian_filter(image, blur)
    return np.asarray(soft + noise * rng.standard_normal(image.shape, dtype=np.float32), dtype=np.float32)
