"""From ranked keys to hits: the cases, their matching slices, their percentiles."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

import numpy as np

from retrieval.background import RandomPairs
from retrieval.catalog import Catalog
from retrieval.composed import Met
from retrieval.late import best_matches, max_similarity
from retrieval.ranking import Ranked
from retrieval.space import Space
from retrieval.types import Case, Embedding, FrameRef, Hit, Match, Query, UnitRows

MATCHES_PER_HIT = 5
PATCHES_A_SLICE = 16  # looked through to find that many different pairs of slices


def hits_of(
    catalog: Catalog,
    query: Query,
    asked: Embedding,
    found: Ranked,
    k: int,
    pairs: RandomPairs,
    space: Space,
    *,
    met: Mapping[int, Met],
    rerank: bool,
) -> tuple[Hit, ...]:
    """The k best cases of the ranked keys. One deleted by another process since the index was read is left out.

    ``asked``: the query as one vector of ``space``, in which the stored slices are placed. ``met``: how each case meets
    the parts of a composed query; empty for others.
    """
    slices = catalog.slices(found.keys)
    scored = [
        (key, met[key].similarity if key in met else similarity)
        for key, similarity in zip(found.keys.tolist(), found.similarities.tolist(), strict=True)
        if key in slices
    ]
    if rerank:
        scored = [(key, max_similarity(asked.slices, space.place(slices[key][0]))) for key, _ in scored]
        scored.sort(key=lambda pair: (-pair[1], pair[0]))
    scored = scored[:k]
    cases = catalog.cases(np.array([key for key, _ in scored], dtype=np.int64))
    alive = [(key, similarity) for key, similarity in scored if key in cases]
    return tuple(
        Hit(
            rank,
            cases[key],
            score,
            pairs.percentile(score),
            _matches(query, asked, cases[key], space.place(slices[key][0]), slices[key][1]),
            met[key].parts if key in met else None,
        )
        for rank, (key, score) in enumerate(alive, start=1)
    )


def _matches(query: Query, asked: Embedding, case: Case, rows: UnitRows, frames: tuple[int, ...]) -> tuple[Match, ...]:
    """The best pairs of slices, numbered as in their cases. Where a slice has several rows (patches of a volume side by
    side), two slices are told once."""
    numbers = asked.slice_frames or range(len(asked.slices))  # as the catalog stores it
    once = len(set(numbers)) == len(numbers) and len(set(frames)) == len(frames)
    pairs = best_matches(asked.slices, rows, top=MATCHES_PER_HIT if once else MATCHES_PER_HIT * PATCHES_A_SLICE)
    best: dict[tuple[int, int], float] = {}
    for mine, theirs, similarity in pairs:
        best.setdefault((numbers[mine], frames[theirs]), similarity)
    return tuple(
        Match(mine, theirs, similarity, _position(query.frames, mine), _position(case.frames, theirs))
        for (mine, theirs), similarity in islice(best.items(), MATCHES_PER_HIT)
    )


def _position(frames: tuple[FrameRef, ...], n: int) -> float | None:
    return frames[n].position_mm if n < len(frames) else None
