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

from retrieval.indexes.judged import Nominated, products
from retrieval.indexes.library import load_faiss
from retrieval.indexes.projection import Placed
from retrieval.indexes.rows import Rows
from retrieval.types import UnitRows

LISTS_FROM = 50_000  # with fewer rows all codes are gone through in a fifth of a millisecond
_LIST_GROWTH = 8.0  # times the number of lists is about the square root of the number of rows
_ROUNDS = 10  # of k-means
_SEEN = 600  # rows by whose codes the noise is measured

Selected = npt.NDArray[np.bool_]  # [rows]: what may be returned


@dataclass(frozen=True, slots=True)
class Noise:
    """Of similarities as codes tell them. Unit rows have similarity 1 - (squared distance) / 2; codes tell the part of
    that distance within the directions, and the query's own part outside of them is known. ``offset``: what takes
    the place of the 1, on average; ``spread``: standard deviation of what similarities are then off by.
    """

    offset: float
    spread: float


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
        faiss = load_faiss()
        dims = placed.shape[1]
        middles = faiss.IndexFlatL2(dims)
        index = faiss.IndexIVFPQFastScan(middles, dims, lists, dims // 2, 4)
        index.own_fields = True
        middles.this.disown()
        index.by_residual = lists > 1
        index.cp.niter = _ROUNDS
        index.train(placed)
        return cls(index, Noise(1.0, 0.0))

    @property
    def lists(self) -> int:
        return int(self.index.nlist)

    def near(
        self, placed: Placed, wanted: int, probes: int | None = None, selected: Selected | None = None
    ) -> Nominated:
        """Up to ``wanted`` nominees of each query from its ``probes`` nearest lists; None for all lists."""
        parameters = _through(probes or self.lists)
        if selected is not None:
            faiss = load_faiss()
            chosen = faiss.IDSelectorBitmap(np.packbits(selected, bitorder="little"))
            parameters = faiss.SearchParametersIVF(nprobe=probes or self.lists, sel=chosen)
        distances, nominees = self.index.search(placed.rows, wanted, params=parameters)
        likely = self.noise.offset - (distances + placed.outside[:, None]) / 2
        return Nominated(nominees, likely, self.noise.spread)

    def measured(self, queries: UnitRows, placed: Placed, rows: Rows) -> Codes:
        """With the noise that these queries meet in rows from everywhere."""
        seen = np.zeros(len(rows), bool)
        seen[np.linspace(0, len(rows) - 1, _SEEN, dtype=np.intp)] = True
        found = Codes(self.index, Noise(0.0, 0.0)).near(placed, int(seen.sum()), None, seen)
        off = products(queries, rows.vectors, found.nominees) - found.likely
        return Codes(self.index, Noise(float(off.mean(dtype=np.float64)), float(off.std(dtype=np.float64))))


@lru_cache(maxsize=64)  # made once: it takes longer than a list
def _through(probes: int) -> Any:
    return load_faiss().SearchParametersIVF(nprobe=probes)


def lists_for(count: int) -> int:
    """How many lists suit so many rows: a power of two, 1 when there are few."""
    return 1 if count < LISTS_FROM else 1 << round(log2(sqrt(count) / _LIST_GROWTH))
