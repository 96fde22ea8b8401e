"""What would change: a generation that was built, compared with the live one before it takes its place.

Queries are a seeded sample of stored vectors, each without its own patient, asked of both as a search would ask them:
index, delta and tombstones, at one state of the catalog. What is true is told by neither of the two: the exact
neighbours come from a pass over the vectors in SQL.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval.adapters.head import MetricHead
from retrieval.catalog import Catalog
from retrieval.errors import StoreError
from retrieval.generations import check_generation, generations_folder
from retrieval.heads import Heads
from retrieval.live import LiveIndex
from retrieval.replay import live_space, replay
from retrieval.shadow_figures import (
    Answers,
    LabelChange,
    Neighbours,
    ShadowReport,
    Side,
    changes,
    merged,
    nothing_yet,
    overlap,
    percentile,
    rank_correlation,
    recall,
)
from retrieval.snapshot import Snapshot
from retrieval.space import Space
from retrieval.types import Keys, UnitRows

AT = 10
QUERIES = 200
MIN_CASES = 20  # queries that carry a label, below which its P@k says nothing

Tick = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way the gallery can be searched. ``catalog`` reads the vectors it is made of; ``stored`` is their space.

    ``heads``: the state of the catalog that is compared, with the generation and the adapter of this one. ``backend``:
    of that generation.
    """

    catalog: Catalog
    stored: Space
    heads: Heads
    backend: str


@dataclass(frozen=True, slots=True)
class _Asked:
    """The queries: keys, patients ("" when unknown), and what each may not find: itself, its patient, its study."""

    keys: Keys
    patients: list[str]
    excluded: list[Keys]


class _Pinned:
    """A catalog as indexes see it, held at one state."""

    def __init__(self, source: Catalog, heads: Heads) -> None:
        self._source = source
        self._heads = heads

    def heads(self) -> Heads:
        return self._heads

    def vectors(self, after: int, upto: int | None = None, batch: int = 4096) -> Iterator[tuple[Keys, UnitRows]]:
        return self._source.vectors(after, self._heads.last_key if upto is None else upto, batch)

    def tombstones(self, after: int) -> tuple[Keys, Keys]:
        numbers, keys = self._source.tombstones(after)
        seen = numbers <= self._heads.last_tombstone
        return numbers[seen], keys[seen]

    def head(self, sha256: str) -> MetricHead:
        return self._source.head(sha256)


def compare(old: Candidate, new: Candidate, home: Path, *, seed: int = 0, tick: Tick | None = None) -> ShadowReport:
    """The report on ``new``, whose generation is on disk and not live yet. ``tick`` is called every now and then.

    Memory: both indexes as they are opened for searching, and a batch of vectors. Each exact ranking is a pass over
    SQL; where both lie in one space there is one pass.
    """
    spaces = [live_space(one.catalog, one.stored, one.heads) for one in (old, new)]
    with old.catalog.one_state():  # both read one database: a case deleted meanwhile is a question of both or of none
        asked = _asked(old.catalog, new.catalog, seed)
        stored = [one.catalog.vectors_of(asked.keys)[1] for one in (old, new)]
    queries = [space.place(rows) for space, rows in zip(spaces, stored, strict=True)]
    exact = [_exact(old, spaces[0], queries[0], asked.excluded, tick)]
    same = spaces[0].fingerprint == spaces[1].fingerprint
    exact.append(exact[0] if same else _exact(new, spaces[1], queries[1], asked.excluded, tick))
    snapshots = [_snapshot(one, home) for one in (old, new)]
    found, times = _ask(snapshots, queries, asked.excluded, exact)
    answers = [each.keys for each in found]
    sides = [
        Side(
            generation=snapshot.generation if snapshot else "",
            backend=one.backend if snapshot else "exact",
            fingerprint=space.fingerprint,
            recall=recall(answer, truth),
            p50_ms=percentile(took, 50),
            p99_ms=percentile(took, 99),
        )
        for one, snapshot, space, answer, truth, took in zip(
            (old, new), snapshots, spaces, found, exact, times, strict=True
        )
    ]
    return ShadowReport(
        k=AT,
        queries=len(asked.keys),
        seed=seed,
        old=sides[0],
        new=sides[1],
        overlap=overlap(*answers),
        rank_correlation=rank_correlation(*answers),
        labels=_label_changes(old.catalog, asked, answers, seed),
    )


def _asked(old: Catalog, new: Catalog, seed: int) -> _Asked:
    """At most ``QUERIES`` cases with a vector on both sides, drawn from all keys, ascending."""
    keys = old.select()
    drawn = np.sort(np.random.default_rng(seed).choice(keys, min(QUERIES, len(keys)), replace=False))
    drawn = np.intersect1d(old.vectors_of(drawn)[0], new.vectors_of(drawn)[0])
    cases = old.cases(drawn)
    excluded = [
        np.union1d(
            np.union1d(old.keys_of_patient(case.patient_key), old.keys_of_study(case.study_uid)), np.array([case.key])
        )
        for case in cases.values()
    ]
    held = np.fromiter(cases, np.int64)
    return _Asked(held, old.patients([case.patient_key for case in cases.values()]), excluded)


def _exact(one: Candidate, space: Space, queries: UnitRows, excluded: Sequence[Keys], tick: Tick | None) -> Neighbours:
    """The k nearest of each query by inner product, from every vector in SQL; memory is bounded by a batch."""
    best = nothing_yet(len(queries))
    for keys, rows in replay(one.catalog, one.stored, space, 0, one.heads.last_key):
        similarities = queries @ rows.T
        for n, own in enumerate(excluded):
            similarities[n, np.isin(keys, own, assume_unique=True)] = -np.inf
        best = merged(best, keys, similarities, AT)
        if tick:
            tick()
    return best


def _snapshot(one: Candidate, home: Path) -> Snapshot | None:
    """As searches see it; None when there is no sound generation: everything is then read from SQL, exactly."""
    if not one.heads.generation:
        return None
    try:
        check_generation(generations_folder(home), one.heads.generation, one.heads.manifest_sha256)
    except StoreError:
        return None
    live = LiveIndex(_Pinned(one.catalog, one.heads), home, one.stored.dim, one.stored.fingerprint)
    return live.refresh()


def _ask(
    snapshots: Sequence[Snapshot | None],
    queries: Sequence[UnitRows],
    excluded: Sequence[Keys],
    exact: Sequence[Neighbours],
) -> tuple[list[Neighbours], list[list[float]]]:
    """Every query of every side in turn, so that both are timed under the same load; the answers, and milliseconds."""
    times: list[list[float]] = [[] for _ in snapshots]
    parts: list[list[Neighbours]] = [[] for _ in snapshots]
    for n, own in enumerate(excluded):
        for side, snapshot in enumerate(snapshots):
            if snapshot is None:
                continue
            query = queries[side][n : n + 1]
            if n == 0:
                snapshot.search(query, AT, None, own)  # the first one pays for pages and threads
            started = time.perf_counter()
            keys, similarities, _ = snapshot.search(query, AT, None, own)
            times[side].append((time.perf_counter() - started) * 1e3)
            parts[side].append(Neighbours(keys, similarities))
    found = [
        exact[side] if not mine else Neighbours(*(np.concatenate(column) for column in zip(*mine, strict=True)))
        for side, mine in enumerate(parts)
    ]
    return found, times


def _label_changes(catalog: Catalog, asked: _Asked, answers: Sequence[Answers], seed: int) -> tuple[LabelChange, ...]:
    seen = np.unique(np.concatenate([asked.keys, *(each.ravel() for each in answers)]))
    labels = catalog.labels_of(seen[seen >= 0])
    return changes(
        asked.keys.tolist(), asked.patients, answers[0], answers[1], labels, k=AT, least=MIN_CASES, seed=seed
    )
