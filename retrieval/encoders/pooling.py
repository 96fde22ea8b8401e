"""How the rows of many slices become one vector. Pure; the choice is part of the gallery's fingerprint."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from retrieval.encoders.base import EncoderCard
from retrieval.errors import UsageError
from retrieval.types import UnitRows

_DEGENERATE = 1e-6  # a pooled vector shorter than this has no direction worth keeping

_Rows = npt.NDArray[np.float64]
_REDUCTIONS: dict[str, Callable[[_Rows], _Rows]] = {
    "mean": lambda rows: rows.mean(axis=0),
    "max": lambda rows: rows.max(axis=0),
    "min": lambda rows: rows.min(axis=0),
    "median": lambda rows: np.median(rows, axis=0),
    "std": lambda rows: rows.std(axis=0),
}
POOLINGS = tuple(_REDUCTIONS)


@dataclass(frozen=True, slots=True)
class Pooling:
    """``how``: mean, max, min, median or std, element by element. ``max_slices``: most slices embedded of one case."""

    how: str = "mean"
    max_slices: int = 256

    def __post_init__(self) -> None:
        if self.how not in _REDUCTIONS:
            raise UsageError(f"Pooling must be one of {', '.join(POOLINGS)}; got '{self.how}'.")
        if self.max_slices < 1:
            raise UsageError(f"Pooling needs at least 1 slice of a case; got max_slices {self.max_slices}.")

    @property
    def spec(self) -> str:
        """What goes into the fingerprint, such as ``mean-256``."""
        return f"{self.how}-{self.max_slices}"

    @classmethod
    def parse(cls, spec: str) -> Self:
        """The pooling of a ``spec``; ``mean`` alone takes the default number of slices."""
        how, dash, slices = spec.partition("-")
        if not dash:
            return cls(how)
        if not (slices.isascii() and slices.isdigit()):
            raise UsageError(f"Expected a pooling such as 'mean' or 'mean-256', got '{spec}'.")
        return cls(how, int(slices))


def pool(rows: UnitRows, pooling: Pooling) -> npt.NDArray[np.float32]:
    """One unit vector, float32 [dim], of unit rows [n, dim], n >= 1. Computed in float64.

    ``std`` says how a case varies along its stack; one slice (or equal slices) does not vary, and then the mean stands
    in. Where even the mean has no direction (slices that cancel out) the middle slice stands for the case.
    """
    if rows.ndim != 2 or rows.shape[0] == 0:
        raise UsageError(f"Expected unit rows [n, dim] of at least one slice, got an array of shape {rows.shape}.")
    if len(rows) == 1:
        return np.array(rows[0], np.float32)  # as it is: most cases are one picture
    exact = rows.astype(np.float64)
    for how in (pooling.how, "mean"):
        vector = _REDUCTIONS[how](exact)
        length = float(np.linalg.norm(vector))
        if length > _DEGENERATE:
            unit: npt.NDArray[np.float32] = (vector / length).astype(np.float32)
            return unit
    middle: npt.NDArray[np.float32] = rows[len(rows) // 2].astype(np.float32)
    return middle


def choose_slices(count: int, max_slices: int) -> tuple[int, ...]:
    """At most ``max_slices`` of ``count`` slices, ascending, evenly spaced: the middles of equal parts of the stack."""
    if count <= max_slices:
        return tuple(range(count))
    return tuple((2 * part + 1) * count // (2 * max_slices) for part in range(max_slices))


def most_frames(card: EncoderCard, pooling: Pooling) -> int:
    """How many frames of a case are decoded to embed it: ``max_slices``, or all for an encoder of volumes."""
    return pooling.max_slices if card.volume is None else sys.maxsize


def gallery_fingerprint(card: EncoderCard, pooling: Pooling) -> str:
    """What guards every vector of a gallery: encoder and pooling, such as ``classical-0123456789ab-mean-256``."""
    return f"{card.fingerprint}-{pooling.spec}"
