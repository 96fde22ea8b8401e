"""Precision among the first k as it would be where a finding is rarer or more common than in the gallery. Pure.

A gallery made for research holds far more of a finding than a reading room meets, and precision falls with prevalence.
Here cases are thought to be drawn away at random, those with the finding or those without, until it has the prevalence
asked for. The expectation over all such draws is exact: a case with the finding at a rank with ``a`` others and ``b``
without before it stays among the first k when fewer than k of these are left, and how many are left is hypergeometric.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrieval.metrics import Ranked

PREVALENCES = (0.05, 0.02, 0.01, 0.005)
WITHIN = 0.25  # of the prevalence asked for


def left_after_drawing(positives: int, negatives: int, prevalence: float) -> tuple[int, int]:
    """How many cases with and without the finding are left at a ``prevalence`` in (0, 1), rounded to whole cases.

    Only one of the two is drawn from. (0, negatives) when the gallery is so small that whole cases come no nearer to
    the prevalence than a quarter of it.
    """
    wanted = round(negatives * prevalence / (1 - prevalence))
    if wanted <= positives:
        left = wanted, negatives
    else:
        left = positives, min(negatives, round(positives * (1 - prevalence) / prevalence))
    reached = left[0] / max(sum(left), 1)
    return left if abs(reached / prevalence - 1) <= WITHIN else (0, negatives)


def expected_precision(
    carrying: Ranked, sizes: npt.NDArray[np.int64], k: int, prevalences: Sequence[float]
) -> npt.NDArray[np.float64]:
    """Expected P@k at each prevalence of rankings ``carrying`` [q, n] (True: has the finding), [q, prevalences].

    ``sizes`` [q]: how many places are ranked at all; those after hold nothing. NaN where too few cases are on file
    for that prevalence: no case with the finding, or fewer than k cases, would be left.
    """
    out = np.full((len(carrying), len(prevalences)), np.nan)
    found = _Found.of(carrying, sizes, k)
    for counts in sorted(set(zip(found.with_it.tolist(), found.without.tolist(), strict=True))):
        rows = np.flatnonzero((found.with_it == counts[0]) & (found.without == counts[1]))
        for column, prevalence in enumerate(prevalences):
            left = left_after_drawing(*counts, prevalence)
            if left[0] and sum(left) >= k:
                out[rows, column] = found.expected(rows, counts, left)
    return out


@dataclass(frozen=True, slots=True)
class _Found:
    """The cases with the finding that may come among the first k: the query of each [m], ascending, and how many cases
    with and without it stand before; and how many of both there are for each query [q]."""

    query: npt.NDArray[np.int64]
    before_with: npt.NDArray[np.int64]
    before_without: npt.NDArray[np.int64]
    with_it: npt.NDArray[np.int64]
    without: npt.NDArray[np.int64]
    k: int

    @classmethod
    def of(cls, carrying: Ranked, sizes: npt.NDArray[np.int64], k: int) -> _Found:
        reached = np.arange(carrying.shape[1]) < sizes[:, None]
        query, rank = np.nonzero(carrying & reached)
        with_it = np.bincount(query, minlength=len(carrying))
        before_with = np.arange(len(query)) - (np.cumsum(with_it) - with_it)[query]
        before_without = rank - before_with
        near = (before_with < k) | (before_without < k)
        return cls(query[near], before_with[near], before_without[near], with_it, sizes - with_it, k)

    def expected(
        self, rows: npt.NDArray[np.int64], counts: tuple[int, int], left: tuple[int, int]
    ) -> npt.NDArray[np.float64]:
        """P@k of some queries, where of ``counts`` (with, without) cases ``left`` stay. One of the two loses none."""
        thinned = left[1] == counts[1]  # cases with the finding are drawn from
        place = np.full(len(self.with_it), -1, dtype=np.int64)
        place[rows] = np.arange(len(rows))
        mine = (place[self.query] >= 0) & ((self.before_without if thinned else self.before_with) < self.k)
        a, b = self.before_with[mine], self.before_without[mine]
        if thinned:  # this one is kept with probability left / counts
            stays = left[0] / counts[0] * _at_most(self.k - 1 - b, counts[0] - 1, left[0] - 1, a)
        else:
            stays = _at_most(self.k - 1 - a, counts[1], left[1], b)
        summed = np.bincount(place[self.query[mine]], weights=stays, minlength=len(rows))
        return np.asarray(summed / self.k, dtype=np.float64)


def _at_most(
    most: npt.NDArray[np.int64], population: int, drawn: int, before: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """P(X <= most) of a hypergeometric X: how many of ``before`` are among ``drawn`` of a ``population``, [n] each."""
    from scipy.special import gammaln

    def log_choose(n: npt.NDArray[np.int64], r: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        return np.asarray(gammaln(n + 1.0) - gammaln(r + 1.0) - gammaln(n - r + 1.0), dtype=np.float64)

    total = np.zeros(len(before))
    whole = log_choose(np.array([population]), np.array([drawn]))
    for x in range(int(most.max(initial=-1)) + 1):
        possible = (x <= most) & (x <= before) & (x <= drawn) & (drawn - x <= population - before)
        inside, outside = before[possible], population - before[possible]
        logs = log_choose(inside, np.full_like(inside, x)) + log_choose(outside, np.full_like(outside, drawn - x))
        total[possible] += np.exp(logs - whole)
    return np.minimum(total, 1.0)
