"""How much better one ranking is than another, and how sure that is.

In a leave-one-patient-out ranking every patient asks and is found. An interval that draws queries again but leaves the
candidates as they are is then too narrow, by about half, and luck passes for gain. So whole patients are left out in
both roles: the delete-a-group jackknife (Efron, Tibshirani 1993, chapter 11).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from retrieval.adapters.split import Members, Numbers
from retrieval.types import UnitRows

MOST_BLOCKS = 50  # of patients, each left out once
_QUERIES = 256  # rows of similarities held at a time

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Gain:
    """Difference in mean average precision and its standard error."""

    value: float
    error: float

    def above(self, risk: float) -> float:
        """What the true gain exceeds but for this risk (one-sided, normal)."""
        return self.value - NormalDist().inv_cdf(1.0 - risk) * self.error

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Two-sided."""
        reach = NormalDist().inv_cdf(0.5 + level / 2) * self.error
        return self.value - reach, self.value + reach


def gain_of(before: UnitRows, after: UnitRows, members: Members, groups: Numbers) -> Gain:
    """Of ``after`` over ``before``, each [n, dim]; ``members`` [n, classes] says what is alike, ``groups`` [n] who."""
    blocks = _blocks(groups)
    old, old_without = _means(before, members, groups, blocks)
    new, new_without = _means(after, members, groups, blocks)
    without = new_without - old_without
    count = len(without)
    error = np.sqrt((count - 1) / count * np.sum((without - without.mean()) ** 2))
    return Gain(new - old, float(error))


def mean_precision(rows: UnitRows, members: Members, groups: Numbers) -> float:
    """Mean average precision of each row asking for the rows of other groups."""
    sums, asked = np.zeros(1), np.zeros(1)
    for ranked, places, _ in _rankings(rows, members, groups, np.zeros(len(rows), np.int64)):
        _add(sums, asked, 0, ranked, places >= 0)
    return float(sums[0] / asked[0]) if asked[0] else 0.0


def _blocks(groups: Numbers) -> Numbers:
    """For each row the number of its block: neighbours by first appearance are dealt to different ones."""
    _, numbered = np.unique(groups, return_inverse=True)
    return np.asarray(numbered % min(MOST_BLOCKS, int(numbered.max()) + 1), dtype=np.int64)


def _means(rows: UnitRows, members: Members, groups: Numbers, blocks: Numbers) -> tuple[float, Scores]:
    """(mean AP, mean AP [blocks] without the patients of each block)."""
    count = int(blocks.max()) + 1
    sums, asked = np.zeros(count + 1), np.zeros(count + 1)
    for ranked, places, own in _rankings(rows, members, groups, blocks):
        allowed = places >= 0
        _add(sums, asked, count, ranked, allowed)
        for block in range(count):
            kept = own != block
            _add(sums, asked, block, ranked[kept], (allowed & (places != block))[kept])
    means = sums / np.maximum(asked, 1)
    return float(means[count]), means[:count]


def _rankings(
    rows: UnitRows, members: Members, groups: Numbers, blocks: Numbers
) -> Iterator[tuple[npt.NDArray[np.bool_], Numbers, Numbers]]:
    """(relevant [q, n], block of the case at each rank [q, n], -1 where it may not be ranked, block of each query)."""
    for start in range(0, len(rows), _QUERIES):
        asked = slice(start, start + _QUERIES)
        forbidden = groups[asked, None] == groups[None, :]
        relevant = (members[asked] @ members.T > 0) & ~forbidden
        order = np.argsort(np.where(forbidden, np.inf, -(rows[asked] @ rows.T)), axis=1, kind="stable")
        places = np.where(np.take_along_axis(forbidden, order, axis=1), -1, blocks[order])
        yield np.take_along_axis(relevant, order, axis=1), places, blocks[asked]


def _add(sums: Scores, asked: Scores, at: int, ranked: npt.NDArray[np.bool_], kept: npt.NDArray[np.bool_]) -> None:
    """Average precision of each query over the kept places, added up."""
    hits = ranked & kept
    totals = hits.sum(axis=1)
    precision = np.cumsum(hits, axis=1, dtype=np.float32) / np.maximum(np.cumsum(kept, axis=1, dtype=np.float32), 1)
    found = (precision * hits).sum(axis=1, dtype=np.float64)
    some = totals > 0
    sums[at] += float((found[some] / totals[some]).sum())
    asked[at] += int(some.sum())
