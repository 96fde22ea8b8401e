"""How far codes must be gone through and how many rows read: the cheapest that finds enough, by measurement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from retrieval.indexes import scan
from retrieval.indexes.codes import Codes
from retrieval.indexes.finer import Finer
from retrieval.indexes.judged import Nominated
from retrieval.indexes.nomination import Nomination
from retrieval.indexes.products import Nominees, products
from retrieval.indexes.projection import Placed
from retrieval.indexes.questions import displaced
from retrieval.indexes.rows import Rows
from retrieval.indexes.spread import AT
from retrieval.types import Similarities, UnitRows

RECALL = 0.995  # at 10, of questions harder than new pictures are and before rows in doubt are read as well ...
KEPT = 0.9995  # ... and of that, once places in the smaller space have chosen who is read
TAKEN = (24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
REACHED = (110, 120, 130, 140, 150, 170, 200, 250, 300, 400, 600, 1000)  # per cent
MOST = 0.375  # of all lists are gone through by one query
_BEYOND = 2  # codes of lists are finer than those of the whole: they hardly ever need more rows, never so many times
_SAME = 2e-6  # how far off a float32 product is
_ASKED = 400
# Microseconds, measured with 256 directions and rows of 1,280 numbers: only how they compare counts.
_A_LIST, _A_CODE, _A_LOOK, _A_PLACE, _A_ROW = 6.0, 0.0027, 40.0, 0.2, 0.7


@dataclass(frozen=True, slots=True)
class Effort:
    """At most ``probes`` lists are gone through, those within ``reach`` per cent of the squared distance of the nearest
    one (0: all of them), ``look`` nominees looked at in the smaller space (0: none), and ``take`` rows read; ``wide``
    rows when all codes are gone through. 0: not known yet."""

    probes: int
    reach: int
    look: int
    take: int
    wide: int

    def at(self, k: int) -> Self:
        """What finds as much of the k nearest as this does of 10: they lie further away."""
        if k <= AT:
            return self
        more = k / AT
        return replace(
            self,
            probes=round(self.probes * more**0.5),
            look=round(self.look * more),
            take=round(self.take * more),
            wide=round(self.wide * more),
        )


def measured(nomination: Nomination, rows: Rows, stated: Effort) -> Effort:
    """With what is stated as it is, and the rest as little as finds ``RECALL``; the most where nothing does, which
    publishing will then refuse."""
    asked = _Asked.of(nomination, rows)
    wide = stated.wide
    if not wide:
        nominees = nomination.whole.near(asked.placed, TAKEN[-1]).nominees
        wide = asked.least(nominees, TAKEN, RECALL) or TAKEN[-1]
    lists = nomination.lists
    if lists is None or (stated.probes and stated.take):
        return replace(stated, wide=wide)
    return _by_lists(asked, nomination, lists, replace(stated, wide=wide))


def _by_lists(asked: _Asked, nomination: Nomination, lists: Codes, stated: Effort) -> Effort:
    most = stated.probes or max(2, round(MOST * lists.lists))
    walk = lists.nearest(asked.placed, most)
    counts = [count for count in TAKEN if count <= _BEYOND * stated.wide]
    best, cheapest = replace(stated, probes=stated.probes or lists.lists, take=stated.take or counts[-1]), np.inf
    for reach in (stated.reach,) if stated.probes or stated.reach else REACHED:
        within = walk.within(reach)
        walked = float(within.mean()) * (_A_LIST + _A_CODE * len(asked.rows) / lists.lists)
        if walked >= cheapest:
            break
        nominated = lists.near(asked.placed, counts[-1], walk.first(within))
        for look, take in _enough(asked, nomination.finer, nominated, counts):
            cost = walked + (look and _A_LOOK + look * _A_PLACE) + take * _A_ROW
            if cost < cheapest:
                best, cheapest = replace(stated, probes=most, reach=reach, look=look, take=stated.take or take), cost
    return best


def _enough(
    asked: _Asked, finer: Finer | None, nominated: Nominated, counts: Sequence[int]
) -> Iterator[tuple[int, int]]:
    """The fewest nominees to look at, and of them rows to read: without looking at any, and where that is possible
    with."""
    least = asked.least(nominated.nominees, counts, RECALL)
    if not least:
        return
    yield 0, least
    if finer:
        looked = Nominated(nominated.nominees[:, :least], nominated.likely[:, :least], nominated.noise)
        nominees = finer.of(asked.placed, looked).nominees
        if take := asked.least(nominees, [count for count in counts if count <= least], RECALL * KEPT):
            yield least, take


@dataclass(frozen=True, slots=True)
class _Asked:
    """Questions [q, dim] to ``rows``, where they lie, and ``worst`` [q, 1]: how similar the last true neighbour is."""

    queries: UnitRows
    placed: Placed
    rows: Rows
    worst: Similarities

    @classmethod
    def of(cls, nomination: Nomination, rows: Rows) -> _Asked:
        queries = displaced(rows.vectors[np.linspace(0, len(rows) - 1, _ASKED, dtype=np.intp)])
        return cls(queries, nomination.projection.of(queries), rows, scan.search(queries, rows, AT)[1][:, -1:])

    def least(self, nominees: Nominees, counts: Sequence[int], recall: float) -> int | None:
        """The fewest of the nominees [q, n], nearest first, that hold enough of the true neighbours. Equal vectors may
        stand in for one another."""
        hits, before = np.zeros(len(self.queries), np.intp), 0
        for count in counts:
            found = products(self.queries, self.rows.vectors, nominees[:, before:count])
            hits, before = hits + (found >= self.worst - _SAME).sum(axis=1), count
            if np.minimum(hits, AT).mean() >= recall * AT:
                return count
        return None
