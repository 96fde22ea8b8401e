"""A graph nominates, the stored float32 rows decide: the fastest plan for one query among very many vectors.

How widely the graph is searched (``ef``) is measured when it is built: on rows that were held out of it and added only
afterwards, so that they are questions it has not seen. With a filter that few pass, their rows are scored; with one
that many pass, the codes of what passes are gone through.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from retrieval.errors import CorruptIndex, UsageError
from retrieval.indexes import scan
from retrieval.indexes.library import load_faiss
from retrieval.indexes.projected import Graph, Nominees
from retrieval.indexes.rows import Positions, Rows, RowsWriter
from retrieval.indexes.stored import Stored
from retrieval.planner import Plan, Walk, choose_walk
from retrieval.types import Keys, Similarities, UnitRows

FACTS_FILE = "graph.json"
FROM = 10_000  # with fewer vectors all of them are scored, which takes a millisecond
LINKS = 24
TAKEN = (48, 64, 96, 128, 192, 256, 384, 512)
WIDTHS = (*TAKEN, 768, 1024)
# At 10, of held-out rows; 0.99 is needed to publish. Stored rows have nearer neighbours than new pictures will have, so
# more is asked of them: of the walk, and of going through all codes, since what those lose no walk can find again.
RECALL = 0.998
RECALL_OF_CODES = 0.9995
_HELD_OUT = 400
_AT = 10
_WORTH = 8  # reading more than one row in so many costs more than scoring them all
_SPARE = 8  # scored in float64 beyond k: float32 products may put neighbours in the wrong order
_GATHERED = 1 << 22  # float64 values held at once
_OPTIONS = re.compile(r"(dims|links|ef|take)=([1-9]\d{0,4})")


@dataclass(frozen=True, slots=True)
class Shape:
    """``dims``: directions that codes keep; ``links`` of a node (M); ``ef``: nodes kept in view while the graph is
    walked; ``take``: the nearest of them by code, whose rows are then read. 0: to be found by measurement."""

    dims: int = 0
    links: int = LINKS
    ef: int = 0
    take: int = 0

    @classmethod
    def parse(cls, options: str) -> Self:
        found: dict[str, int] = {}
        for part in filter(None, options.split(",")):
            match = _OPTIONS.fullmatch(part)
            if not match or match[1] in found:
                raise UsageError(f"Expected graph options such as dims=256,links=24,ef=128,take=64, got '{options}'.")
            found[match[1]] = int(match[2])
        if found.get("links", LINKS) < 4:
            raise UsageError(f"A graph needs at least 4 links of a node, got links={found['links']}.")
        if found.get("take", 0) > found.get("ef", WIDTHS[-1]):
            raise UsageError(f"Of ef={found['ef']} nodes no take={found['take']} can be read.")
        return cls(**found)

    def __str__(self) -> str:
        stated = (("dims", self.dims), ("links", self.links), ("ef", self.ef), ("take", self.take))
        return ",".join(f"{name}={value}" for name, value in stated if value)


@dataclass(frozen=True, slots=True)
class _State:
    rows: Rows
    graph: Graph | None
    shape: Shape


class GraphIndex(Stored):
    """``graph`` is None while there are fewer than ``FROM`` vectors: they are then scored exactly."""

    name = "graph"

    def __init__(self, stated: Shape, state: _State) -> None:
        self._stated = stated
        self._state = state
        self._lock = threading.Lock()

    @classmethod
    def create(cls, dim: int, options: str = "") -> Self:
        load_faiss()
        shape = Shape.parse(options)
        return cls(shape, _State(Rows.empty(dim), None, shape))

    @classmethod
    def build(cls, directory: Path, batches: Iterable[tuple[Keys, UnitRows]], dim: int, options: str = "") -> Self:
        shape = Shape.parse(options)
        with RowsWriter(directory, dim) as writer:
            writer.write_all(batches)
        index = cls(shape, _grown(Rows.open(directory), shape))
        index._save_graph(directory)
        return index

    @property
    def rows(self) -> Rows:
        return self._state.rows

    @property
    def options(self) -> str:
        return str(self._state.shape)

    @property
    def exhaustive(self) -> bool:
        return self._state.graph is None

    def add(self, keys: Keys, vectors: UnitRows) -> None:
        """Builds the graph anew: an index that grows often belongs in a delta, not here."""
        with self._lock:
            self._state = _grown(self._state.rows.appended(keys, vectors), self._stated)

    def plan(self, selected: int | None = None) -> Plan:
        size, shape = len(self), self._state.shape
        how = choose_walk(selected)
        if how is Walk.GATHER:
            return Plan("selected-exact", selected or 0, True)
        if self._state.graph is None:
            return Plan("exact", size, True)
        if how is Walk.CODES:
            return Plan(f"graph-codes:{self.options}", selected or 0, False)
        return Plan(f"graph:{self.options}", shape.ef, False)

    def search(self, queries: UnitRows, k: int, allowed: Keys | None = None) -> tuple[Keys, Similarities]:
        state = self._state
        rows, graph = state.rows, state.graph
        queries, allowed = scan.check_search(queries, rows.dim, k, allowed)
        positions = None if allowed is None else rows.positions(allowed)
        available = len(rows) if positions is None else len(positions)
        how = choose_walk(None if positions is None else available)
        take = max(state.shape.take, _SPARE + 2 * k)
        if graph is None or how is Walk.GATHER or take * _WORTH >= available or not len(queries):
            return scan.search(queries, rows, k, positions, gather=how is Walk.GATHER)
        if how is Walk.CODES and positions is not None:
            nominees = graph.scan(queries, take, positions)
        else:
            nominees = graph.walk(queries, max(state.shape.ef, take), take)
        keys, sims = judged(queries, rows, nominees, k)
        for short in np.flatnonzero(keys[:, -1] < 0):  # a part of the graph that no link leads to
            keys[short], sims[short] = (part[0] for part in scan.search(queries[short][None], rows, k, positions))
        return keys, sims

    def save(self, directory: Path) -> None:
        self._state.rows.save(directory)
        self._save_graph(directory)

    def _save_graph(self, directory: Path) -> None:
        graph = self._state.graph
        facts = {"options": self.options, "nodes": 0 if graph is None else len(graph.order)}
        (directory / FACTS_FILE).write_text(json.dumps(facts) + "\n")
        if graph is not None:
            graph.save(directory)

    @classmethod
    def open(cls, directory: Path) -> Self:
        rows = Rows.open(directory)
        try:
            facts = json.loads((directory / FACTS_FILE).read_text())
            shape = Shape.parse(facts["options"])
            graph = Graph.open(directory, rows) if facts["nodes"] else None
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, UsageError) as error:
            raise CorruptIndex("The files of the graph can't be read: rebuild the index.") from error
        return cls(shape, _State(rows, graph, shape))


def judged(queries: UnitRows, rows: Rows, nominees: Nominees, k: int) -> tuple[Keys, Similarities]:
    """The k best of each query's nominees [q, n] by exact similarity, ties by key; padded. k < n."""
    rough = _products(queries, rows.vectors, nominees)
    kept = min(k + _SPARE, nominees.shape[1])
    best = np.argpartition(-rough, kept - 1, axis=1)[:, :kept]
    chosen = np.take_along_axis(nominees, best, axis=1)
    keys, sims = scan.no_answers(len(queries), kept)
    step = max(1, _GATHERED // (kept * rows.dim))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        exact = (rows.vectors[chosen[part]] * queries[part, None].astype(np.float64)).sum(axis=2)
        sims[part] = np.where(chosen[part] >= 0, np.clip(exact.astype(np.float32), -1, 1), scan.NO_SIMILARITY)
    keys[:] = np.where(chosen >= 0, rows.keys[chosen], scan.NO_KEY)
    return scan.merge([(keys, sims)], k)


def _products(queries: UnitRows, vectors: UnitRows, nominees: Nominees) -> Similarities:
    """Inner products [q, n] in float32, the nominees read where they lie; -inf for -1."""
    faiss = load_faiss()
    found = np.empty(nominees.shape, np.float32)
    nominees, queries = np.ascontiguousarray(nominees, np.int64), np.ascontiguousarray(queries, np.float32)
    pointers = (faiss.swig_ptr(each) for each in (found, queries, vectors, nominees))
    faiss.fvec_inner_products_by_idx(*pointers, vectors.shape[1], len(queries), nominees.shape[1])
    found[nominees < 0] = scan.NO_SIMILARITY
    return found


def _grown(rows: Rows, stated: Shape) -> _State:
    """The graph over all rows, and the least ``ef`` that finds enough of what was held out of it."""
    if len(rows) < FROM:
        return _State(rows, None, stated)
    last: Positions = np.linspace(0, len(rows) - 1, _HELD_OUT, dtype=np.intp)
    graph = Graph.over(rows, min(stated.dims, rows.dim), stated.links, last)
    shape = replace(stated, dims=graph.projection.directions)
    if not (shape.ef and shape.take):
        shape = _measured(shape, graph, rows, last)
    graph.add_last(rows)
    return _State(rows, graph, shape)


def _measured(shape: Shape, graph: Graph, rows: Rows, last: Positions) -> Shape:
    """With the least ``take``, and for it the least ``ef``, that find enough of the true neighbours of held-out rows;
    the widest where none does, which publishing will then refuse."""
    queries = np.ascontiguousarray(rows.vectors[last])
    rest: Positions = np.delete(np.arange(len(rows), dtype=np.intp), last)
    _, exact = scan.search(queries, rows, _AT, rest, gather=False)
    nominees = graph.scan(queries, TAKEN[-1], rest)  # nearest first, so that fewer are the first of them
    take = shape.take or _first(TAKEN, lambda n: _found(queries, rows, nominees[:, :n], exact) >= RECALL_OF_CODES)
    widths = [ef for ef in WIDTHS if ef >= take]
    ef = shape.ef or _first(widths, lambda ef: _found(queries, rows, graph.walk(queries, ef, take), exact) >= RECALL)
    return replace(shape, ef=ef, take=min(take, ef))


def _first(candidates: Sequence[int], enough: Callable[[int], bool]) -> int:
    return next((each for each in candidates if enough(each)), candidates[-1])


def _found(queries: UnitRows, rows: Rows, nominees: Nominees, exact: Similarities) -> float:
    """Share of the true neighbours among the nominees. Similarities are exact, so equal vectors may stand in for one
    another."""
    _, sims = judged(queries, rows, nominees, _AT)
    return float((sims >= exact[:, -1:]).mean())
