"""Siemens mosaics: one 2D DICOM image that holds the slices of a volume as tiles.

Read from the vendor's private header (CSA, "SV10" layout): how many tiles there are and which way they stack. Nothing
of it is kept but these two.
"""

from __future__ import annotations

import math
import struct
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset

from indexer.geometry import Vector, cross, directions, dot, unit
from indexer.readers.dicom import values
from indexer.readers.dicom.geometry import stacked
from indexer.sources import Plane
from retrieval.types import Pixels

COUNT_TAG, CSA_TAG = 0x0019100A, 0x00291010
_MOST_VALUES = 64


@dataclass(frozen=True, slots=True)
class Mosaic:
    """``side`` x ``side`` tiles of ``rows`` x ``columns`` pixels, the first ``count`` of them slices, row by row."""

    count: int
    side: int
    rows: int
    columns: int
    planes: tuple[Plane, ...]

    def tile(self, image: Pixels, index: int) -> Pixels:
        row, column = divmod(index, self.side)
        return np.ascontiguousarray(
            image[row * self.rows : (row + 1) * self.rows, column * self.columns : (column + 1) * self.columns]
        )


def is_mosaic(header: Dataset) -> bool:
    return "MOSAIC" in values.texts(header, "ImageType")


def mosaic_of(header: Dataset, rows: int, columns: int, spacing: tuple[float, float] | None) -> Mosaic | None:
    """How to take the mosaic apart, or None when its header does not say (then it stays one picture)."""
    csa = _csa(header)
    count = _count(header) or int((csa.get("NumberOfImagesInMosaic") or [0.0])[0])
    side = math.isqrt(count - 1) + 1 if count > 0 else 0
    if count < 1 or rows % side or columns % side:
        return None
    height, width = rows // side, columns // side
    return Mosaic(count, side, height, width, _planes(header, csa, count, (rows, columns), (height, width), spacing))


def _planes(
    header: Dataset, csa: dict[str, list[float]], count: int, whole: tuple[int, int], tile: tuple[int, int],
    spacing: tuple[float, float] | None,
) -> tuple[Plane, ...]:  # fmt: skip
    """ImagePositionPatient is the corner the whole mosaic would have if centred on the first slice: move it in."""
    turned = directions(values.numbers(header, "ImageOrientationPatient"))
    corner = values.numbers(header, "ImagePositionPatient")
    step = values.number(header, "SpacingBetweenSlices") or values.number(header, "SliceThickness")
    if turned is None or len(corner) != 3 or spacing is None or not step or step <= 0:
        return ()
    row, column = turned
    right, down = (whole[1] - tile[1]) / 2 * spacing[1], (whole[0] - tile[0]) / 2 * spacing[0]
    first = tuple(corner[i] + row[i] * right + column[i] * down for i in range(3))
    stated = csa.get("SliceNormalVector", [])
    normal = unit(stated) if len(stated) == 3 else None
    if normal is not None and dot(normal, cross(row, column)) < 0:
        step = -step
    origin: Vector = (first[0], first[1], first[2])
    return stacked(origin, turned, step, count)


def _count(header: Dataset) -> int:
    found = values.value_at(header, COUNT_TAG)
    if isinstance(found, bytes):
        found = int.from_bytes(found[:2], "little")
    return found if isinstance(found, int) and 1 <= found <= 4096 else 0


def _csa(header: Dataset) -> dict[str, list[float]]:
    """The numeric values of the CSA image header; {} when it is absent or not understood."""
    data = values.value_at(header, CSA_TAG)
    if not isinstance(data, bytes) or data[:4] != b"SV10":
        return {}
    try:
        return _parse_csa(data)
    except struct.error:
        return {}


def _parse_csa(data: bytes) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    (tags,) = struct.unpack_from("<I", data, 8)
    at = 16
    for _ in range(min(tags, 1024)):
        name = data[at : at + 64].split(b"\x00")[0].decode("ascii", "replace")
        (values_in,) = struct.unpack_from("<i", data, at + 76)
        at += 84
        numbers = []
        for _ in range(min(max(values_in, 0), _MOST_VALUES)):
            (length,) = struct.unpack_from("<i", data, at + 4)
            text = data[at + 16 : at + 16 + max(length, 0)].split(b"\x00")[0].strip()
            with suppress(ValueError):
                numbers.append(float(text))
            at += 16 + max(length, 0) + 3 & ~3
        found[name] = numbers
    return found
