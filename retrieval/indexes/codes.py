"""4-bit codes of projected rows, read 32 at a time: "fast scan" in FAISS (André, Kermarrec and Le Scouarnec, "Cache
locality is not enough", VLDB 2015).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import log2, sqrt
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from retrieval.indexes.judged import Nominated
from retrieval.indexes.library import load_faiss
from retrieval.indexes.noise import Noise, seen
from retrieval.indexes.packed import BLOCK, Blocks, taken
from retrieval.indexes.projection import Placed
from retrieval.indexes.rows import Passing, Rows
from retrieval.types import UnitRows

LISTS_FROM = 50_000  # with fewer rows all codes are gone through in a fifth of a millisecond
_LIST_GROWTH = 8.0  # times the number of lists is about the square root of the number of rows
_ROUNDS = 10  # of k-means
_AT_LEAST = 2  # lists that are gone through, however near the first one is


@dataclass(frozen=True, slots=True)
class Walk:
    """``lists`` int64 [queries, n]: those nearest to each query, nearest first; -1 for those not to be gone through.
    ``distances`` float32 [queries, n]: squared, to their middles."""

    lists: npt.NDArray[np.int64]
    distances: npt.NDArray[np.float32]

    def within(self, reach: int) -> npt.NDArray[np.intp]:
        """[queries]: how many lists are no further than ``reach`` per cent of the nearest one; all of them for 0. Who
        lies in the midst of a list has neighbours in no other (Chen et al., "SPANN", NeurIPS 2021)."""
        if not reach:
            return np.full(len(self.lists), self.lists.shape[1])
        far = self.distances > np.float32(reach / 100) * self.distances[:, :1]
        counts: npt.NDArray[np.intp] = np.maximum(far.shape[1] - far.sum(axis=1), min(_AT_LEAST, far.shape[1]))
        return counts

    def first(self, counts: npt.NDArray[np.intp]) -> Walk:
        """So many lists of each query, and no more columns than the longest walk needs."""
        most = int(counts.max(initial=1))
        lists = self.lists[:, :most]
        if (counts < most).any():
            lists = np.where(np.arange(most) < counts[:, None], lists, -1)
        return Walk(lists, self.distances[:, :most])

    def of(self, chosen: slice | npt.NDArray[np.bool_]) -> Walk:
        return Walk(self.lists[chosen], self.distances[chosen])


@dataclass(frozen=True, slots=True)
class Codes:
    """``index``: a faiss.IndexIVFPQFastScan over positions of rows. With one list all codes are gone through, under any
    filter, in less time than rows are read; with many, of rows that lie together, each is coded by its distance from
    the middle of its list, and the nearest few lists are gone through."""

    index: Any
    noise: Noise

    @classmethod
    def empty(cls, placed: npt.NDArray[np.float32], lists: int) -> Self:
        """Lists and codes learnt from these rows. Pairs of directions have one code of 4 bits."""
        index = _without_rows(placed.shape[1], lists)
        index.cp.niter = _ROUNDS
        index.train(placed)
        return cls(index, Noise(1.0, 0.0))

    @property
    def lists(self) -> int:
        return int(self.index.nlist)

    def nearest(self, placed: Placed, most: int) -> Walk:
        """The ``most`` lists nearest to each query."""
        distances, lists = self.index.quantizer.search(placed.rows, min(most, self.lists))
        return Walk(lists, distances)

    def near(self, placed: Placed, wanted: int, walk: Walk | None = None, passing: Passing | None = None) -> Nominated:
        """Up to ``wanted`` nominees of each query from the lists of ``walk``; None for all lists."""
        walk = walk or self.nearest(placed, self.lists)
        shape = (len(placed), wanted)
        distances, nominees = np.empty(shape, np.float32), np.empty(shape, np.int64)
        arrays = [np.ascontiguousarray(each) for each in (placed.rows, walk.lists, walk.distances)]
        rows, lists, middles, far, who = map(load_faiss().swig_ptr, (*arrays, distances, nominees))
        through = _through(walk.lists.shape[1], passing)
        self.index.search_preassigned_c(len(placed), rows, wanted, lists, middles, far, who, False, through)
        return Nominated(nominees, self.noise.likely(distances, placed), self.noise.spread)

    def of(self, positions: npt.NDArray[np.intp]) -> Codes:
        """Of the rows at these ascending positions alone, as they are coded here; where ``lists`` is 1."""
        faiss, ids = load_faiss(), np.ascontiguousarray(positions, np.int64)
        index = _without_rows(self.index.d, 1)
        index.quantizer.add(self.index.quantizer.reconstruct_n(0, 1))
        index.pq, index.is_trained, index.ntotal = self.index.pq, True, len(ids)
        codes = taken(self._blocks(), ids)
        index.invlists.add_entries(0, len(ids), faiss.swig_ptr(ids), faiss.swig_ptr(codes))
        return Codes(index, self.noise)

    def _blocks(self) -> Blocks:
        lists, pairs = self.index.invlists, self.index.M2 // 2
        blocks = -(-lists.list_size(0) // BLOCK)
        found: Blocks = load_faiss().rev_swig_ptr(lists.get_codes(0), blocks * pairs * BLOCK)
        return found.reshape(blocks, pairs, BLOCK)

    def measured(self, queries: UnitRows, placed: Placed, rows: Rows) -> Codes:
        """With the noise that these queries meet in rows from everywhere."""
        among = rows.passing(rows.keys[seen(len(rows))])
        found = Codes(self.index, Noise(0.0, 0.0)).near(placed, len(among), None, among)
        distances = -2 * found.likely - placed.outside[:, None]
        return Codes(self.index, Noise.met(queries, placed, rows, found.nominees, distances))


def _without_rows(dims: int, lists: int) -> Any:
    """A faiss.IndexIVFPQFastScan that owns its list of middles."""
    faiss = load_faiss()
    middles = faiss.IndexFlatL2(dims)
    index = faiss.IndexIVFPQFastScan(middles, dims, lists, dims // 2, 4)
    index.own_fields = True
    middles.this.disown()
    index.by_residual = lists > 1
    return index


def _through(probes: int, passing: Passing | None) -> Any:
    if passing is None:
        return _through_all_rows(probes)
    faiss = load_faiss()
    chosen = faiss.IDSelectorBitmap(np.packbits(passing.mask, bitorder="little"))
    return faiss.SearchParametersIVF(nprobe=probes, sel=chosen)


@lru_cache(maxsize=64)  # made once: it takes longer than a list
def _through_all_rows(probes: int) -> Any:
    return load_faiss().SearchParametersIVF(nprobe=probes)


def lists_for(count: int) -> int:
    """How many lists suit so many rows: a power of two, 1 when there are few."""
    return 1 if count < LISTS_FROM else 1 << round(log2(sqrt(count) / _LIST_GROWTH))
