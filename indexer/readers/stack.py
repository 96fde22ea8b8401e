"""A voxel grid in the patient as an ordered stack of frames, each turned the usual way up. Pure geometry.

However the voxels are ordered in the file (RAS, LPS, PIR, ...), the same anatomy gives the same frames in one order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.pixels import to_radiological
from indexer.sources import Plane

CLEARLY_LARGER = 1.25  # a voxel size this many times the other two marks the direction slices were acquired in

Affine = npt.NDArray[np.float64]  # [4, 4], voxel index (i, j, k) -> LPS mm
Direction = tuple[float, float, float]


def stacking_axis(shape: tuple[int, int, int], affine: Affine) -> int:
    """The voxel axis slices lie along: a single-slice one, else that of clearly the largest voxels, else the third."""
    for axis in (2, 1, 0):
        if shape[axis] == 1:
            return axis
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    largest = int(np.argmax(sizes))
    others = [sizes[axis] for axis in range(3) if axis != largest]
    return largest if sizes[largest] >= CLEARLY_LARGER * max(others) else 2


@dataclass(frozen=True, slots=True)
class Stack:
    """How frames are cut from voxels ``[i, j, k]`` or ``[i, j, k, 3]``.

    Frame 0 lies lowest along the normal, which is the cross product of the displayed row and column directions:
    axial frames run from feet to head, coronal from front to back, sagittal from left to right.
    """

    axis: int
    transposed: bool  # the cut [first, second] remaining axes is swapped for display
    flip_rows: bool
    flip_columns: bool
    reversed: bool  # frame 0 is the last slice
    frames: int
    rows: int
    columns: int
    spacing: tuple[float, float]  # between rows, between columns, mm
    plane: str
    planes: tuple[Plane, ...]
    positions_mm: tuple[float, ...]  # along the normal

    @classmethod
    def of(cls, shape: tuple[int, int, int], affine: Affine) -> Stack:
        """The stack of a grid; ``affine`` must be finite and invertible."""
        axis = stacking_axis(shape, affine)
        first, second = (other for other in range(3) if other != axis)
        steps = affine[:3, :3]
        sizes = np.linalg.norm(steps, axis=0)
        units = steps / sizes
        stored = (float(sizes[first]), float(sizes[second]))
        corners = np.array([[0, 1], [2, 3]], np.uint8)  # told apart after the turn, so the turn is known
        turned, spacing, plane = to_radiological(
            corners, _direction(units[:, second]), _direction(units[:, first]), stored
        )
        transposed = bool(abs(int(turned[0, 1]) - int(turned[0, 0])) == 2)
        top_left = int(turned[0, 0])
        far_first, far_second = bool(top_left & 2), bool(top_left & 1)
        along_first = units[:, first] * (-1 if far_first else 1)
        along_second = units[:, second] * (-1 if far_second else 1)
        row, column = (along_first, along_second) if transposed else (along_second, along_first)
        normal = np.cross(row, column)
        normal /= np.linalg.norm(normal)
        backwards = bool(steps[:, axis] @ normal < 0)
        corner = np.zeros(3)
        corner[first] = shape[first] - 1 if far_first else 0
        corner[second] = shape[second] - 1 if far_second else 0
        slices = np.arange(shape[axis])[:: -1 if backwards else 1]
        origins = affine[:3, 3] + steps @ corner + slices[:, None] * steps[:, axis]
        planes = tuple(Plane(_direction(origin), _direction(row), _direction(column)) for origin in origins)
        return cls(
            axis=axis,
            transposed=transposed,
            flip_rows=far_second if transposed else far_first,
            flip_columns=far_first if transposed else far_second,
            reversed=backwards,
            frames=shape[axis],
            rows=shape[second] if transposed else shape[first],
            columns=shape[first] if transposed else shape[second],
            spacing=spacing or stored,
            plane=plane,
            planes=planes,
            positions_mm=tuple(float(position) for position in origins @ normal),
        )

    def frame(self, voxels: npt.NDArray[Any], index: int) -> npt.NDArray[Any]:
        """Frame ``index`` as displayed, [rows, columns] or [rows, columns, 3], values untouched."""
        chosen = self.frames - 1 - index if self.reversed else index
        cut = voxels[(slice(None),) * self.axis + (chosen,)]  # a view; np.take would copy the whole volume first
        if self.transposed:
            cut = cut.swapaxes(0, 1)
        return np.ascontiguousarray(cut[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1])


def _direction(vector: npt.NDArray[np.float64]) -> Direction:
    return (float(vector[0]), float(vector[1]), float(vector[2]))
