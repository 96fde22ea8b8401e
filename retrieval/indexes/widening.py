"""Search by codes: first as little as is likely to be enough, then more wherever the answer is in doubt."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from retrieval.indexes import scan
from retrieval.indexes.codes import Walk
from retrieval.indexes.effort import Effort
from retrieval.indexes.finer import Finer
from retrieval.indexes.judged import Care, Doubt, Nominated, judged
from retrieval.indexes.library import one_thread
from retrieval.indexes.nomination import Nomination
from retrieval.indexes.projection import Placed
from retrieval.indexes.rows import Passing, Rows
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
SPARE = 2  # times as many are nominated by lists as are read in any case
WIDE = 8  # and by all codes: they are asked where nothing is known to be near
LOOKED = 5  # times as many rows as may be returned: their places are looked at sooner than all codes
KNOWN = 1024  # nominated by their leading places
_CHEAP = 4096  # nominees of whom few are read: hardly more than a thousand cost
_WIDER = 4
WORTH = 3  # reading more than one row in so many costs more than scoring them all
_GROUP = 256  # queries answered together, so that the memory of their nominees is bounded

Asked = slice | npt.NDArray[np.bool_]  # of several queries
EVERYONE = slice(None)


def search(
    queries: UnitRows, rows: Rows, k: int, nomination: Nomination, effort: Effort, passing: Passing | None
) -> tuple[Keys, Similarities]:
    """The k best of ``rows``, or of those ``passing``, best first, ties by key; padded with -1 and -inf."""
    parts = [
        _search(queries[at : at + _GROUP], rows, k, nomination, effort, passing)
        for at in range(0, len(queries), _GROUP)
    ]
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([keys for keys, _ in parts]), np.concatenate([sims for _, sims in parts])


def _search(
    queries: UnitRows, rows: Rows, k: int, nomination: Nomination, effort: Effort, passing: Passing | None
) -> tuple[Keys, Similarities]:
    keys, sims = scan.no_answers(len(queries), k)
    doubt = np.ones(len(queries), bool)

    def answer(asked: Asked, nominated: Nominated, care: Care) -> None:
        keys[asked], sims[asked], doubt[asked] = judged(queries[asked], rows, nominated, care, k)

    with one_thread(len(queries) == 1):
        placed = nomination.projection.of(queries)
        for asked, nominated, care in _nearby(placed, k, nomination, effort, passing):
            answer(asked, nominated, care)
        if doubt.any():
            for asked, nominated, care in _by_codes(placed, k, nomination, effort, passing, doubt):
                answer(asked, nominated, care)
        if nomination.finer and doubt.any():
            for asked, nominated, care in _by_places(placed, k, nomination.finer, passing, doubt):
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
    placed: Placed, k: int, nomination: Nomination, effort: Effort, passing: Passing | None, doubt: Doubt
) -> Iterator[tuple[Asked, Nominated, Care]]:
    """More and more of all codes' nominees for those in ``doubt``, until it costs more than to look at everyone."""
    size, care = nomination.whole.index.ntotal, Care(max(FIRST, FIRST * k // AT), SURE, SURE_OWN)
    available = size if passing is None else len(passing)
    if nomination.finer and available * LOOKED <= size:
        return
    wide = max(WIDE * effort.wide, SPARE * care.first)
    while doubt.any() and wide < available and (wide <= _CHEAP or wide * WORTH < available):
        asked = EVERYONE if doubt.all() else doubt.copy()
        yield asked, nomination.whole.near(placed.of(asked), wide, None, passing), care
        wide *= _WIDER


def _by_places(
    placed: Placed, k: int, finer: Finer, passing: Passing | None, doubt: Doubt
) -> Iterator[tuple[Asked, Nominated, Care]]:
    """More and more nominees by the places of everyone, for those in ``doubt``, until nobody is left."""
    positions = np.arange(len(finer.places)) if passing is None else passing.positions
    care = Care(max(FIRST_PLACE, FIRST_PLACE * k // AT), SURE_PLACE, SURE_OWN_PLACE)
    most = max(KNOWN, SPARE * care.first)
    while doubt.any():
        asked = doubt.copy()
        yield asked, finer.among(placed.of(asked), positions, most), care
        if most > len(positions):
            return
        most *= _WIDER


def _exact(queries: UnitRows, rows: Rows, k: int, passing: Passing | None) -> tuple[Keys, Similarities]:
    if passing is None:
        return scan.search(queries, rows, k)
    positions = passing.positions
    gather = choose_scan(len(rows), len(positions), PLAIN) is Scan.GATHER
    return scan.search(queries, rows, k, positions, gather=gather)
