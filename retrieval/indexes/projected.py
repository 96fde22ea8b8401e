"""A smaller space in which neighbours are looked for: principal components of the rows, and a graph over their codes.

Embeddings have far fewer directions than numbers. Rows and queries are turned onto the directions of most variance
(Pearson 1901); a row keeps one byte for each of those and its links in a navigable small-world graph (Malkov and
Yashunin 2018). Whoever is nominated here is judged elsewhere, by the stored float32 row.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from retrieval.errors import CorruptIndex
from retrieval.indexes.library import load_faiss, write_index
from retrieval.indexes.rows import Positions, Rows, save_array
from retrieval.types import UnitRows

GRAPH_FILE = "graph.faiss"
PROJECTION_FILE = "projection.npy"
ORDER_FILE = "order.npy"
EXPLAINED = 0.9  # share of the variance that the directions kept must carry
STEP = 32  # directions are kept by multiples of this, as a processor likes them
MOST_DIRECTIONS = 512
_SAMPLE = 20_000  # rows that the directions and the codes are learnt from
_BLOCK = 8192
_CONSTRUCTION = 60  # candidates weighed for each link: more makes a better graph, and a slower build

Nominees = npt.NDArray[np.int64]  # [queries, n] positions of rows, nearest first; -1 where there are no more


@dataclass(frozen=True, slots=True)
class Projection:
    """float32 [dim + 1, directions]: the directions as columns, and below them what the mean row becomes."""

    matrix: npt.NDArray[np.float32]

    @classmethod
    def learn(cls, rows: UnitRows, directions: int) -> Self:
        """The ``directions`` of most variance; 0 for as many as ``EXPLAINED`` calls for."""
        mean = rows.mean(axis=0, dtype=np.float64)
        centred = rows - mean.astype(np.float32)
        values, vectors = np.linalg.eigh(centred.T @ centred)
        values, vectors = values[::-1].clip(0), vectors[:, ::-1]
        if not directions:
            share = np.cumsum(values) / max(float(values.sum()), 1e-30)
            needed = int(np.searchsorted(share, EXPLAINED)) + 1
            directions = min(-(-needed // STEP) * STEP, MOST_DIRECTIONS)
        kept = vectors[:, : min(directions, rows.shape[1])]
        return cls(np.concatenate([kept, mean[None, :] @ kept]).astype(np.float32))

    @property
    def directions(self) -> int:
        return int(self.matrix.shape[1])

    def of(self, rows: UnitRows) -> npt.NDArray[np.float32]:
        """[n, directions]: where rows lie, seen from their mean."""
        placed: npt.NDArray[np.float32] = rows @ self.matrix[:-1] - self.matrix[-1]
        return placed


@dataclass(frozen=True, slots=True)
class Graph:
    """The codes of all rows and the links between them. ``order``: position of the row of each node."""

    projection: Projection
    index: Any  # faiss.IndexHNSWSQ
    order: npt.NDArray[np.int64]

    @classmethod
    def over(cls, rows: Rows, directions: int, links: int, last: Positions) -> Self:
        """A graph over all rows but ``last`` (ascending), which ``add_last`` brings in."""
        faiss = load_faiss()
        sample = np.linspace(0, len(rows) - 1, min(len(rows), _SAMPLE), dtype=np.intp)
        learnt = np.ascontiguousarray(rows.vectors[sample])
        projection = Projection.learn(learnt, directions)
        index = faiss.IndexHNSWSQ(projection.directions, faiss.ScalarQuantizer.QT_8bit, links, faiss.METRIC_L2)
        index.hnsw.efConstruction = _CONSTRUCTION
        index.train(projection.of(learnt))
        first = np.delete(np.arange(len(rows), dtype=np.int64), last)
        graph = cls(projection, index, np.concatenate([first, last.astype(np.int64)]))
        graph._add(rows, first)
        return graph

    def add_last(self, rows: Rows) -> None:
        """Bring in the rows that were left out."""
        self._add(rows, self.order[self.index.ntotal :])

    def _add(self, rows: Rows, positions: npt.NDArray[np.int64]) -> None:
        for start in range(0, len(positions), _BLOCK):
            self.index.add(self.projection.of(np.ascontiguousarray(rows.vectors[positions[start : start + _BLOCK]])))

    def walk(self, queries: UnitRows, ef: int, wanted: int) -> Nominees:
        """Up to ``wanted`` nominees for each query, the nearest by code of ``ef`` that are kept in view while links
        are followed."""
        parameters = load_faiss().SearchParametersHNSW(efSearch=ef)
        return self._positions(self.index.search(self.projection.of(queries), wanted, params=parameters)[1])

    def scan(self, queries: UnitRows, wanted: int, allowed: Positions) -> Nominees:
        """As ``walk``, by going through the codes of all that is allowed."""
        faiss = load_faiss()
        chosen = np.zeros(len(self.order), bool)
        chosen[allowed] = True
        selector = faiss.IDSelectorBitmap(np.packbits(chosen[self.order[: self.index.ntotal]], bitorder="little"))
        codes = faiss.downcast_index(self.index.storage)
        placed = self.projection.of(queries)
        return self._positions(codes.search(placed, wanted, params=faiss.SearchParameters(sel=selector))[1])

    def _positions(self, nodes: Nominees) -> Nominees:
        return np.where(nodes >= 0, self.order[nodes], -1)

    def save(self, directory: Path) -> None:
        write_index(directory / GRAPH_FILE, self.index)
        save_array(directory / PROJECTION_FILE, self.projection.matrix)
        save_array(directory / ORDER_FILE, self.order)

    @classmethod
    def open(cls, directory: Path, rows: Rows) -> Self:
        """OSError, ValueError or RuntimeError when a file can't be read; CorruptIndex when they do not fit ``rows``."""
        index = load_faiss().read_index(str(directory / GRAPH_FILE))
        matrix = np.load(directory / PROJECTION_FILE, allow_pickle=False)
        order = np.load(directory / ORDER_FILE, allow_pickle=False)
        fits = matrix.dtype == np.float32 and order.dtype == np.int64 and matrix.shape == (rows.dim + 1, index.d)
        if not fits or index.ntotal != len(rows) or order.shape != (len(rows),) or not _is_permutation(order):
            raise CorruptIndex(
                f"The graph does not fit its {len(rows)} rows of dim {rows.dim} (it has {index.ntotal} nodes of dim "
                f"{index.d}): rebuild the index."
            )
        return cls(Projection(np.ascontiguousarray(matrix)), index, order)


def _is_permutation(order: npt.NDArray[np.int64]) -> bool:
    seen = np.zeros(len(order), bool)
    if len(order) and (order.min() < 0 or order.max() >= len(order)):
        return False
    seen[order] = True
    return bool(seen.all())
