"""Pure: how close a query is to its nearest cases, in two figures, and how usual both are together.

``near`` is the mean similarity to the nearest cases, each of another patient. Kinds of picture that are alike among
themselves (knees) and kinds that are not (teaching cases) differ in it, and something foreign is often nearest to the
latter. A second figure tells it there. Where the encoder has seen strangers it is ``side``, on which side of a boundary
between them and cases the query lies (``retrieval.evidence.boundary``). Elsewhere it is ``apart``: the same mean, less
the mean similarity of these nearest cases to one another. A case among its own kind is about as like them as they are;
what is foreign is less like them than they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from retrieval.evidence.conformal import Reference, Values
from retrieval.types import Similarities, UnitRows

DEPTH = 5  # nearest cases that are looked at


@dataclass(frozen=True, slots=True)
class Closeness:
    """To ``depth`` cases. ``apart`` is None for a single neighbour, which has no others; ``side`` where there is no
    boundary."""

    depth: int
    near: float
    apart: float | None
    side: float | None = None


def closeness(similarities: Similarities, neighbours: UnitRows) -> Closeness:
    """Of a query to its nearest cases: similarities [n], best first, and their vectors [n, dim], n >= 1."""
    near, apart = by_depth(similarities[None, :], neighbours[None, :, :])
    depth = len(similarities)
    return Closeness(depth, float(near[0, -1]), None if depth < 2 else float(apart[0, -1]))


def by_depth(similarities: npt.NDArray[np.float32], neighbours: npt.NDArray[np.float32]) -> tuple[Values, Values]:
    """``near`` and ``apart`` of queries to their first 1, 2 ... n neighbours: of [q, n] and [q, n, dim], both [q, n].

    ``apart`` to a single one is NaN, and both are from the first neighbour on that there is not (similarity NaN).
    """
    depths = np.arange(1, similarities.shape[1] + 1)
    near = np.cumsum(similarities, axis=1, dtype=np.float64) / depths
    among = np.einsum("qid,qjd->qij", neighbours, neighbours).astype(np.float64)
    summed = np.stack([among[:, :depth, :depth].sum(axis=(1, 2)) for depth in depths], axis=1)
    own = np.cumsum(np.einsum("qii->qi", among), axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return near, near - (summed - own) / (depths * (depths - 1.0))


@dataclass(frozen=True, slots=True)
class UsualCloseness:
    """That of a sample of cases to so many neighbours each. ``near``, ``second``: ascending [n]; ``second`` is of
    ``side`` if ``sided``, else of ``apart``, and empty for one neighbour. ``joint``: of the lower of the two ranks of
    each case."""

    near: Values
    second: Values
    sided: bool
    joint: Reference

    @classmethod
    def of(
        cls,
        near: Values,
        apart: Values,
        independent: int,
        alpha: float,
        assurance: float,
        side: Values | None = None,
    ) -> UsualCloseness:
        """``near``, ``apart`` and, if there is a boundary, ``side`` [n] of the same cases; ``apart`` all NaN for one
        neighbour."""
        second = apart if side is None else side
        usual = cls(
            np.sort(near), np.sort(second[np.isfinite(second)]), side is not None, Reference.of([], 0, alpha, assurance)
        )
        lower = np.minimum(usual._rank(near, usual.near), usual._rank(second, usual.second))
        return replace(usual, joint=Reference.of(lower, independent, alpha, assurance))

    def second_of(self, found: Closeness) -> float | None:
        """That figure of a query which ``second`` is of."""
        return found.side if self.sided else found.apart

    def lower(self, found: Closeness) -> float:
        """The lower of the two ranks of a query; it is what ``joint`` is asked about."""
        near = float(self._rank(np.float64(found.near), self.near))
        if (second := self.second_of(found)) is None:
            return near
        return min(near, float(self._rank(np.float64(second), self.second)))

    @staticmethod
    def _rank(values: npt.ArrayLike, reference: Values) -> Values:
        """How many of the reference are smaller; -1 for what is smaller than all of them, which the smallest is not.
        Infinite where there is no reference."""
        known = np.asarray(values, dtype=np.float64)
        if not len(reference):
            return np.full(known.shape, np.inf)
        counted = np.searchsorted(reference, known, side="left").astype(np.float64)
        return np.where(known < reference[0], -1.0, counted)
