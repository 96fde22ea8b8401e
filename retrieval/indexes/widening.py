"""Search by codes: first as little as is likely to be enough, then more wherever the answer is in doubt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from retrieval.indexes import scan
from retrieval.indexes.codes import Selected
from retrieval.indexes.effort import Effort
from retrieval.indexes.judged import Nominated, judged
from retrieval.indexes.library import load_faiss
from retrieval.indexes.nomination import Nomination
from retrieval.indexes.projection import Placed
from retrieval.indexes.rows import Rows
from retrieval.planner import PLAIN, Scan, choose_scan
from retrieval.types import Keys, Similarities, UnitRows

# Where the worst answer was so many standard deviations of the noise above what the last nominee's code tells, 0.99 and
# more of the true neighbours were found under every filter tried, and hardly another answer was doubted
# (docs/benchmarks.md). Whoever is nominated among all codes may have been by luck: more is asked of them.
SURE_NEAR, SURE = 1.25, 1.75
WORTH = 3  # reading more than one row in so many costs more than scoring them all
_WIDER = 4

Asked = slice | npt.NDArray[np.bool_]  # of several queries
EVERYONE = slice(None)


def search(
    queries: UnitRows, rows: Rows, k: int, nomination: Nomination, effort: Effort, selected: Selected | None
) -> tuple[Keys, Similarities]:
    """The k best of ``rows``, or of those ``selected``, best first, ties by key; padded with -1 and -inf."""
    keys, sims = scan.no_answers(len(queries), k)
    doubt = np.ones(len(queries), bool)

    def answer(asked: Asked, nominated: Nominated, sure: float) -> None:
        keys[asked], sims[asked] = judged(queries[asked], rows, nominated.nominees, k)
        doubt[asked] = nominated.doubtful(sims[asked, -1], sure)

    with _one_thread(len(queries) == 1):
        placed = nomination.projection.of(queries)
        for asked, nominated in _by_lists(placed, k, nomination, effort, selected):
            answer(asked, nominated, SURE_NEAR)
        wide, available = effort.wide, len(rows) if selected is None else int(np.count_nonzero(selected))
        while doubt.any() and wide * WORTH < available:
            asked = EVERYONE if doubt.all() else doubt.copy()
            answer(asked, nomination.whole.near(placed.of(asked), wide, None, selected), SURE)
            wide *= _WIDER
    if doubt.any():
        keys[doubt], sims[doubt] = _exact(queries[doubt], rows, k, selected)
    return keys, sims


def _by_lists(
    placed: Placed, k: int, nomination: Nomination, effort: Effort, selected: Selected | None
) -> Iterator[tuple[Asked, Nominated]]:
    """Which queries can be answered by the lists nearest to them, and by whom."""
    lists, spread = nomination.lists, nomination.spread
    if lists is None or spread is None:
        return
    if selected is None:
        yield EVERYONE, lists.near(placed, effort.take, effort.probes)
        return
    probes = spread.probes(lists.index, placed.rows, selected, effort.probes, k)
    if probes.any():
        asked = EVERYONE if probes.all() else probes > 0
        take = min(effort.wide, 2 * effort.take)  # who passes is further away, where codes tell less
        yield asked, lists.near(placed.of(asked), take, int(probes.max()), selected)


def _exact(queries: UnitRows, rows: Rows, k: int, selected: Selected | None) -> tuple[Keys, Similarities]:
    if selected is None:
        return scan.search(queries, rows, k)
    positions = np.flatnonzero(selected)
    gather = choose_scan(len(rows), len(positions), PLAIN) is Scan.GATHER
    return scan.search(queries, rows, k, positions, gather=gather)


@contextmanager
def _one_thread(wanted: bool) -> Iterator[None]:
    """One query is answered sooner by one thread than by several that must be woken; the setting is this thread's."""
    faiss = load_faiss()
    before = faiss.omp_get_max_threads()
    if wanted:
        faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
