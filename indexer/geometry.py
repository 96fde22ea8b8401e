"""Vectors in patient coordinates (LPS, mm). Pure; shared by the DICOM reader and series assembly."""

from __future__ import annotations

import math
from collections.abc import Sequence

Vector = tuple[float, float, float]


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def cross(a: Vector, b: Vector) -> Vector:
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])


def unit(vector: Sequence[float]) -> Vector | None:
    """The vector at length 1; None when it is nowhere near a direction (length outside 0.5 to 2)."""
    length = math.sqrt(dot(vector, vector))
    if not 0.5 < length < 2.0:
        return None
    return (vector[0] / length, vector[1] / length, vector[2] / length)


def directions(orientation: Sequence[float]) -> tuple[Vector, Vector] | None:
    """Unit row and column directions of an ImageOrientationPatient, or None when they do not span a plane."""
    if len(orientation) != 6:
        return None
    row, column = unit(orientation[:3]), unit(orientation[3:])
    if row is None or column is None or abs(dot(row, column)) > 0.05:
        return None
    return row, column


def stack_normal(row: Vector, column: Vector) -> Vector:
    """The slice normal, pointing to the patient's left, back or head, whichever it is nearest.

    So the same slices get the same positions however their rows and columns run: axial slices count from foot to
    head, coronal from front to back, sagittal from right to left.
    """
    normal = cross(row, column)
    nearest = max((2, 1, 0), key=lambda axis: round(abs(normal[axis]), 6))
    return normal if normal[nearest] > 0 else (-normal[0], -normal[1], -normal[2])


def position_along(position: Vector, row: Vector, column: Vector) -> float:
    """Signed distance (mm) of a slice from the patient origin along its ``stack_normal``."""
    return dot(position, stack_normal(row, column))
