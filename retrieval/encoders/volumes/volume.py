"""A volume with its place in the patient, turned and resampled to what a recipe asks for. Pure: arrays in, arrays out.

Trilinear, without smoothing, before any clipping: as MONAI's Orientation and Spacing do, which most public 3D networks
were trained with. Slices need not be evenly spaced, nor lie straight above each other (gantry tilt).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval.encoders.volumes.recipe import VolumeRecipe
from retrieval.errors import RejectedInput

Direction = tuple[float, float, float]
Coordinates = npt.NDArray[np.float64]
Voxels = npt.NDArray[np.float32]  # resampled, three axes as the recipe's orientation names them

_TOWARDS = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}  # LPS
_STRAIGHT_MM = 0.05  # slices whose corners stray less than this lie straight above each other
_LEAST_STEP_MM = 1e-3
_MOST_STEPS = 1 << 15  # along an axis of the grid: past this, positions in the headers are wrong
_SQUARE = 0.05  # cosine between rows and columns that still counts as a right angle: 3 degrees


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where the voxels of a stack of parallel slices lie, in LPS mm.

    ``corners``: the centre of voxel [0, 0] of each slice, in ascending position along the stack's normal. ``row``: unit
    direction of increasing column index; ``column``: of increasing row index. ``spacing``: (between rows, between
    columns).
    """

    shape: tuple[int, int, int]  # slices, rows, columns
    corners: tuple[Direction, ...]
    row: Direction
    column: Direction
    spacing: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Volume:
    """``voxels``: [slices, rows, columns], grey, rescaled once (HU for CT). ``modality``: "" when unknown."""

    voxels: npt.NDArray[Any]
    geometry: Geometry
    modality: str = ""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Where each voxel of the resampled array comes from.

    ``order``: which axis of the volume (0 slices, 1 rows, 2 columns) each axis of the array is. ``slices``: index into
    the slices, fractional, for each step along that axis; ``rows`` and ``columns``: mm along theirs. ``shifts``: how
    far each slice's corner strays in the plane, mm [slices, 2].
    """

    order: tuple[int, int, int]
    slices: Coordinates
    rows: Coordinates
    columns: Coordinates
    shifts: Coordinates

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the resampled array."""
        own = (len(self.slices), len(self.rows), len(self.columns))
        first, second, third = self.order
        return own[first], own[second], own[third]


def sampling(geometry: Geometry, recipe: VolumeRecipe) -> Sampling:
    """The grid a recipe asks for, over the whole of a volume: from the first voxel's centre to the last's, rounded.

    RejectedInput for what is not a volume in space.
    """
    corners = np.asarray(geometry.corners, np.float64)
    row, column = np.asarray(geometry.row, np.float64), np.asarray(geometry.column, np.float64)
    if abs(row @ column) > _SQUARE:
        raise RejectedInput("embed", "Expected slices whose rows and columns are at right angles, got sheared ones.")
    normal = np.cross(row, column) / np.linalg.norm(np.cross(row, column))
    if len(corners) > 1 and (corners[-1] - corners[0]) @ normal < 0:
        normal = -normal
    heights = corners @ normal
    if len(corners) < 2 or np.diff(heights).min() < _LEAST_STEP_MM or min(geometry.spacing) <= 0:
        raise RejectedInput("embed", "Expected a volume of at least two slices at places of their own.")
    order, signs = _turn(np.stack([normal, column, row]), recipe.orientation)
    shifts = (corners - corners[0]) @ np.stack([column, row], axis=1)
    if np.abs(shifts).max() < _STRAIGHT_MM:
        shifts = np.zeros_like(shifts)
    low = (heights[0], shifts[:, 0].min(), shifts[:, 1].min())
    far = [(size - 1) * step for size, step in zip(geometry.shape[1:], geometry.spacing, strict=True)]
    high = (heights[-1], shifts[:, 0].max() + far[0], shifts[:, 1].max() + far[1])
    places: list[Coordinates] = [np.empty(0)] * 3
    for axis, sign, step in zip(order, signs, recipe.spacing, strict=True):
        steps = _steps(float(high[axis] - low[axis]), step)
        places[axis] = low[axis] + steps if sign > 0 else high[axis] - steps
    slices = np.interp(places[0], heights, np.arange(len(heights)))
    return Sampling(order, slices, places[1], places[2], shifts)


def _steps(length: float, step: float) -> Coordinates:
    """0, one step, two, ... up to ``length`` mm, rounded. RejectedInput for a length that no patient has: nothing
    that headers say is believed before it is bounded."""
    if not length / step < _MOST_STEPS:  # nor is NaN
        raise RejectedInput(
            "embed",
            f"Expected a volume of fewer than {_MOST_STEPS} steps of {step:g} mm along each axis, got one {length:.4g} "
            "mm long: check the positions and spacings in its headers.",
        )
    return np.arange(round(length / step) + 1, dtype=np.float64) * step


def resample(volume: Volume, grid: Sampling, outside: float) -> Voxels:
    """The volume on the grid, float32. Past the border the border's value counts; ``outside``: the value where a tilted
    stack leaves corners empty."""
    size, spacing = volume.geometry.shape, volume.geometry.spacing
    tilted = bool(grid.shifts.any())
    resampled = np.empty((len(grid.slices), len(grid.rows), len(grid.columns)), np.float32)
    for n, place in enumerate(grid.slices):
        below = min(int(place), size[0] - 1)
        plane = _between(volume.voxels[below], volume.voxels[min(below + 1, size[0] - 1)], place - below)
        shift = _between(grid.shifts[below], grid.shifts[min(below + 1, size[0] - 1)], place - below)
        rows = (grid.rows - float(shift[0])) / spacing[0]
        columns = (grid.columns - float(shift[1])) / spacing[1]
        resampled[n] = _along(_along(plane, rows).T, columns).T
        if tilted:
            resampled[n][_beyond(rows, size[1])] = outside
            resampled[n][:, _beyond(columns, size[2])] = outside
    return resampled.transpose(grid.order)


def _turn(own: Coordinates, orientation: str) -> tuple[tuple[int, int, int], list[int]]:
    """Which of the axes ``own`` [3, LPS] runs nearest along each letter, each used once; 1 with it, -1 against it."""
    cosines = np.array([_TOWARDS[letter] for letter in orientation]) @ own.T
    order = max(permutations(range(3)), key=lambda axes: sum(round(abs(cosines[n, a]), 6) for n, a in enumerate(axes)))
    return (order[0], order[1], order[2]), [1 if cosines[n, axis] >= 0 else -1 for n, axis in enumerate(order)]


def _between(one: npt.NDArray[Any], other: npt.NDArray[Any], share: float) -> npt.NDArray[Any]:
    """``one`` and ``other`` mixed, ``share`` (0 to 1) of the other; at 0 exactly ``one``."""
    exact: npt.NDArray[Any] = one.astype(np.float64 if one.dtype == np.float64 else np.float32)
    if share > 0:
        exact += (other.astype(exact.dtype) - exact) * exact.dtype.type(share)
    return exact


def _along(plane: npt.NDArray[Any], places: Coordinates) -> npt.NDArray[Any]:
    """The rows of ``plane`` at fractional indices, linear in between, the first and last row beyond the ends."""
    last = plane.shape[0] - 1
    inside = np.clip(places, 0, last)
    below = np.minimum(inside.astype(np.intp), last)
    share = (inside - below).astype(np.float32)[:, None]
    mixed: npt.NDArray[Any] = plane[below]
    if share.any():
        mixed = mixed + (plane[np.minimum(below + 1, last)] - mixed) * share
    return mixed


def _beyond(places: Coordinates, size: int) -> npt.NDArray[np.bool_]:
    return (places < -0.5 - 1e-6) | (places > size - 0.5 + 1e-6)
