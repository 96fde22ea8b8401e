"""How far codes must be gone through and how many rows read: the cheapest that finds enough, by measurement."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from retrieval.indexes import scan
from retrieval.indexes.judged import Nominees, products
from retrieval.indexes.nomination import Nomination
from retrieval.indexes.questions import displaced
from retrieval.indexes.rows import Rows
from retrieval.indexes.spread import AT
from retrieval.types import Similarities, UnitRows

RECALL = 0.997  # at 10; 0.99 is needed to publish
TAKEN = (48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
PROBED = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
_ASKED = 400
# Microseconds, measured with 256 directions and rows of 1,280 numbers: only how they compare counts.
_A_LIST, _A_CODE, _A_ROW = 6.0, 0.0027, 0.6


@dataclass(frozen=True, slots=True)
class Effort:
    """``probes`` lists are gone through and ``take`` rows read; ``wide`` rows when all codes are gone through. 0: not
    known yet."""

    probes: int
    take: int
    wide: int

    def at(self, k: int) -> Self:
        """What finds as much of the k nearest as this does of 10: they lie further away."""
        if k <= AT:
            return self
        more = k / AT
        return replace(
            self, probes=round(self.probes * more**0.5), take=round(self.take * more), wide=round(self.wide * more)
        )


def measured(nomination: Nomination, rows: Rows, stated: Effort) -> Effort:
    """With what is stated as it is, and the rest as little as finds ``RECALL``; the most where nothing does, which
    publishing will then refuse."""
    queries = displaced(rows.vectors[np.linspace(0, len(rows) - 1, _ASKED, dtype=np.intp)])
    worst = scan.search(queries, rows, AT)[1][:, -1:]
    placed, wide = nomination.projection.of(queries), stated.wide
    if not wide:
        nominees = nomination.whole.near(placed, TAKEN[-1]).nominees
        wide = _least(queries, rows, nominees, worst, TAKEN) or TAKEN[-1]
    lists = nomination.lists
    if lists is None or (stated.probes and stated.take):
        return replace(stated, wide=wide)
    # Codes of lists are finer than those of the whole: they never need more rows.
    taken = (stated.take,) if stated.take else tuple(take for take in TAKEN if take <= wide)
    best, cheapest = Effort(lists.lists, taken[-1], wide), np.inf
    for probes in (stated.probes,) if stated.probes else (n for n in PROBED if n <= lists.lists):
        walked = probes * (_A_LIST + _A_CODE * len(rows) / lists.lists)
        if walked >= cheapest:
            break
        take = _least(queries, rows, lists.near(placed, taken[-1], probes).nominees, worst, taken)
        if take and walked + take * _A_ROW < cheapest:
            best, cheapest = Effort(probes, take, wide), walked + take * _A_ROW
    return best


def _least(
    queries: UnitRows, rows: Rows, nominees: Nominees, worst: Similarities, taken: tuple[int, ...]
) -> int | None:
    """The fewest of the nominees [q, n], nearest first, that hold enough of the true neighbours. Equal vectors may
    stand in for one another; ``worst`` [q, 1] is the similarity of the last true neighbour."""
    hits, before = np.zeros(len(queries), np.intp), 0
    for take in taken:
        near = products(queries, rows.vectors, nominees[:, before:take]) >= worst - scan.rounding_slack(rows.dim)
        hits, before = hits + near.sum(axis=1), take
        if np.minimum(hits, AT).mean() >= RECALL * AT:
            return take
    return None
