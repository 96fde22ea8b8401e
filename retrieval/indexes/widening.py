"""Search by codes: first as little as is likely to be enough, then more wherever the answer is in doubt."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from retrieval.indexes import scan
from retrieval.indexes.codes import Walk
from retrieval.indexes.effort import Effort
from retrieval.indexes.judged import Care, Doubt, Nominated, judged
from retrieval.indexes.library import one_thread
from retrieval.indexes.nomination import Nomination
from retrieval.indexes.projection import Placed
from retrieval.indexes.rows import Passing, Rows
from retrieval.indexes.scopes import Scope
from retrieval.indexes.spread import AT
from retrieval.planner import PLAIN, Scan, choose_scan
from retrieval.types import Keys, Similarities, UnitRows

# Whoever was not read may be nearer when his code tells so many standard deviations of the noise less than the worst
# answer. 0.99 and more of the true neighbours were then found under every filter tried (docs/benchmarks.md). Among all
# codes someone may be nominated by luck, and where what may be returned lies far away, codes are off by other amounts
# than elsewhere: more is asked of them.
SURE_NEAR, SURE, SURE_OWN = 1.25, 2.0, 3.0
FIRST = 128  # read of all codes' nominees in any case; so many tell how far off codes are
# Places are off by less, and less unlike from place to place.
SURE_PLACE, SURE_OWN_PLACE, FIRST_PLACE = 1.5, 2.0, 64
SURE_NOMINATED = 1.75  # of the codes that nominated them
SPARE = 2  # times as many are nominated by lists as are read in any case
WIDE = 8  # and by all codes: they are asked where nothing is known to be near
LOOKED = 512  # nominated by all codes where they are looked at more closely first
_CHEAP = 4096  # nominees of whom few are read: hardly more than a thousand cost
_WIDER = 4
WORTH = 3  # reading more than one row in so many costs more than scoring them all
_GROUP = 256  # queries answered together, so that the memory of their nominees is bounded
_HELD = 1 << 21  # nominees of queries that are answered together

Asked = slice | npt.NDArray[np.bool_]  # of several queries
EVERYONE = slice(None)


def search(
    queries: UnitRows, rows: Rows, k: int, nomination: Nomination, effort: Effort, scope: Scope | None
) -> tuple[Keys, Similarities]:
    """The k best of ``rows``, or of those in ``scope``, best first, ties by key; padded with -1 and -inf."""
    parts = [
        _search(queries[at : at + _GROUP], rows, k, nomination, effort, scope) for at in range(0, len(queries), _GROUP)
    ]
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([keys for keys, _ in parts]), np.concatenate([sims for _, sims in parts])


def _search(
    queries: UnitRows, rows: Rows, k: int, nomination: Nomination, effort: Effort, scope: Scope | None
) -> tuple[Keys, Similarities]:
    keys, sims = scan.no_answers(len(queries), k)
    doubt = np.ones(len(queries), bool)
    passing = scope.passing if scope else None

    def answer(asked: Asked, nominated: Nominated, care: Care) -> None:
        keys[asked], sims[asked], doubt[asked] = judged(queries[asked], rows, nominated, care, k)

    with one_thread(len(queries) == 1):
        placed = nomination.projection.of(queries)
        if not (scope and scope.codes):
            for asked, nominated, care in _nearby(placed, k, nomination, effort, passing):
                answer(asked, nominated, care)
        if doubt.any():
            for asked, nominated, care in _by_codes(placed, k, nomination, effort, scope, doubt):
                answer(asked, nominated, care)
    if doubt.any():
        keys[doubt], sims[doubt] = _exact(queries[doubt], rows, k, passing)
    return keys, sims


def _nearby(
    placed: Placed, k: int, nomination: Nomination, effort: Effort, passing: Passing | None
) -> Iterator[tuple[Asked, Nominated, Care]]:
    """Which queries can be answered by the lists nearest to them, or by all codes where there are no lists, and by
    whom."""
    lists, spread = nomination.lists, nomination.spread
    if lists is None or spread is None:
        if passing is None:
            take = max(effort.wide, k)
            yield EVERYONE, nomination.whole.near(placed, SPARE * take), Care(take, SURE)
        return
    walk = lists.nearest(placed, effort.probes if passing is None else max(effort.probes, spread.worth))
    counts = walk.within(effort.reach)
    if k > AT:  # they lie further away
        counts = np.minimum(np.ceil(counts * (k / AT) ** 0.5).astype(np.intp), walk.lists.shape[1])
    take, finer = max(effort.take, k), nomination.finer if effort.look else None
    look = max(effort.look, k) if finer else SPARE * take

    def found(placed: Placed, look: int, walk: Walk) -> Nominated:
        nominated = lists.near(placed, look, walk, passing)
        return finer.of(placed, nominated) if finer else nominated

    if passing is None:
        yield EVERYONE, found(placed, look, walk.first(counts)), Care(take, SURE_NEAR)
        return
    counts = spread.probes(walk, np.maximum(counts, effort.probes // 2), passing, k)
    if counts.any():
        asked = EVERYONE if counts.all() else counts > 0
        walk = walk.of(asked).first(counts[asked])
        # Who passes is further away, where codes tell less.
        yield asked, found(placed.of(asked), 2 * look, walk), Care(2 * take, SURE, SURE_OWN)


def _by_codes(
    placed: Placed, k: int, nomination: Nomination, effort: Effort, scope: Scope | None, doubt: Doubt
) -> Iterator[tuple[Asked, Nominated, Care]]:
    """More and more nominees of the codes of all who may be returned, for those in ``doubt``, until nobody is left or
    it costs more than to look at everyone."""
    finer, codes, passing = nomination.finer, nomination.whole, scope.passing if scope else None
    if scope and scope.codes:
        codes, passing = scope.codes, None
    available = len(scope.passing) if scope else nomination.whole.index.ntotal
    if finer:
        care = Care(max(FIRST_PLACE, FIRST_PLACE * k // AT), SURE_PLACE, SURE_OWN_PLACE, SURE_NOMINATED)
        wide = LOOKED
    else:
        care = Care(max(FIRST, FIRST * k // AT), SURE, SURE_OWN)
        wide = WIDE * effort.wide
    wide = max(wide, SPARE * care.first)
    while doubt.any() and (finer or wide <= _CHEAP or wide * WORTH < available):
        for asked in _together(doubt, wide):
            nominated = codes.near(placed.of(asked), wide, None, passing)
            yield asked, finer.of(placed.of(asked), nominated) if finer else nominated, care
        if wide > available:
            return
        wide = min(_WIDER * wide, available + 1)


def _together(doubt: Doubt, wide: int) -> list[Asked]:
    """Those in doubt, as many at once as may have so many nominees each."""
    most = max(1, _HELD // wide)
    if doubt.all() and len(doubt) <= most:
        return [EVERYONE]
    asked = np.flatnonzero(doubt)
    groups = [np.zeros(len(doubt), bool) for _ in range(-(-len(asked) // most))]
    for n, group in enumerate(groups):
        group[asked[n * most : (n + 1) * most]] = True
    return list(groups)


def _exact(queries: UnitRows, rows: Rows, k: int, passing: Passing | None) -> tuple[Keys, Similarities]:
    if passing is None:
        return scan.search(queries, rows, k)
    positions = passing.positions
    gather = choose_scan(len(rows), len(positions), PLAIN) is Scan.GATHER
    return scan.search(queries, rows, k, positions, gather=gather)
