"""Space for 3D phantoms: coordinates, soft solids, small vessels.

Axes of every array: [slices, rows, columns] = foot to head, anterior to posterior, the patient's right to left.
x and y run over [-1, 1] across the field of view; z runs over [-1, 1] from the lowest slice to the highest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from indexer.demo.shapes import cloud

Solid = npt.NDArray[np.floating[Any]]
Spot = tuple[float, float, float]  # x, y, z


@dataclass(frozen=True, slots=True)
class Space:
    """Coordinates: x [1, 1, n], y [1, n, 1], z [slices, 1, 1]."""

    x: Solid
    y: Solid
    z: Solid

    @classmethod
    def of(cls, slices: int, size: int) -> Space:
        line = np.linspace(-1, 1, size, dtype=np.float32)
        return cls(
            line[None, None, :], line[None, :, None], np.linspace(-1, 1, slices, dtype=np.float32)[:, None, None]
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.z.shape[0], self.y.shape[1], self.x.shape[2])

    def ellipsoid(self, centre: Spot, radii: Spot, turn: float = 0.0) -> Solid:
        """Distance from the centre, 1 on the surface. ``turn`` in radians about the long axis of the body."""
        dx, dy, dz = self.x - centre[0], self.y - centre[1], self.z - centre[2]
        along, across = np.cos(turn) * dx + np.sin(turn) * dy, np.cos(turn) * dy - np.sin(turn) * dx
        return np.asarray(
            np.sqrt((along / radii[0]) ** 2 + (across / radii[1]) ** 2 + (dz / radii[2]) ** 2), np.float32
        )

    def cylinder(self, centre: tuple[float, float], radii: tuple[float, float]) -> Solid:
        """Distance from an axis along the body, 1 on the surface; one slice that serves all."""
        flat = np.hypot((self.x - centre[0]) / radii[0], (self.y - centre[1]) / radii[1])
        return np.asarray(flat, dtype=np.float32)

    def cloud(self, scale: float, rng: np.random.Generator) -> Solid:
        """Smooth noise with blobs of ``scale`` columns, a third as many slices."""
        return cloud(self.shape, (max(scale / 3, 1.0), scale, scale), rng)


def within(radius: Solid, soft: float = 0.06) -> Solid:
    """1 inside (radius below 1), 0 outside, a smooth step between."""
    step = np.clip((1 - radius) / (2 * soft) + 0.5, 0, 1)
    return np.asarray(step * step * (3 - 2 * step), dtype=np.float32)


def fill(voxels: Solid, share: Solid, value: float | Solid) -> None:
    """Replace the share of each voxel that a structure takes by the structure's value, in place."""
    voxels += share * (value - voxels)


def threads(space: Space, rng: np.random.Generator, scale: float, width: float) -> Solid:
    """Winding vessels, 0 to 1: where the zero surfaces of two clouds cross."""
    one, two = space.cloud(scale, rng), space.cloud(scale, rng)
    return np.asarray(np.exp(-(one * one + two * two) / width**2), dtype=np.float32)


def scanned(voxels: Solid, rng: np.random.Generator, noise: float, blur: float = 0.55) -> npt.NDArray[np.int16]:
    """What a scanner adds: in-plane unsharpness and correlated noise of standard deviation ``noise``."""
    soft = ndimage.gaussian_filter(voxels, (0, blur, blur))
    grain = ndimage.gaussian_filter(rng.standard_normal(voxels.shape, dtype=np.float32), (0, 0.7, 0.7))
    return np.asarray(np.round(soft + grain * np.float32(noise / grain.std())), dtype=np.int16)
