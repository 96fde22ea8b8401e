"""Whoever is nominated by codes is judged by the stored float32 row, and the nomination by what it may have missed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrieval.indexes import scan
from retrieval.indexes.library import load_faiss
from retrieval.indexes.rows import Rows
from retrieval.types import Keys, Similarities, UnitRows

_SPARE = 4  # scored in float64 beyond k: float32 products may put neighbours in the wrong order

Nominees = npt.NDArray[np.int64]  # [queries, n] positions of rows, nearest first; -1 where there are no more


@dataclass(frozen=True, slots=True)
class Nominated:
    """``likely`` float32 [queries, n]: similarities of the nominees as their codes tell them; ``noise``: standard
    deviation of what these are off by."""

    nominees: Nominees
    likely: Similarities
    noise: float

    def doubtful(self, worst: Similarities, sure: float) -> npt.NDArray[np.bool_]:
        """[queries]: whether someone who was not nominated may well be nearer than ``worst`` [queries], the least of
        those returned: whose code is as near as the last nominee's, and ``sure`` times the noise too far."""
        full = self.nominees[:, -1] >= 0
        beyond: npt.NDArray[np.bool_] = self.likely[:, -1] + sure * self.noise > worst
        return (full & beyond) | np.isneginf(worst)


def judged(queries: UnitRows, rows: Rows, nominees: Nominees, k: int) -> tuple[Keys, Similarities]:
    """The k best of each query's nominees [q, n] by exact similarity, ties by key; padded. k <= n."""
    lines = np.arange(len(queries))[:, None]
    rough = products(queries, rows.vectors, nominees)
    kept = min(k + _SPARE, nominees.shape[1])
    chosen = nominees[lines, np.argpartition(-rough, kept - 1, axis=1)[:, :kept]]
    keys, sims = rows.keys[chosen], np.empty(chosen.shape, np.float32)
    for n, query in enumerate(queries):
        sims[n] = scan.similarities(query, rows.vectors[chosen[n]])
    nobody = chosen < 0
    keys[nobody], sims[nobody] = scan.NO_KEY, scan.NO_SIMILARITY
    best = np.lexsort((keys, -sims), axis=-1)[:, :k]
    return keys[lines, best], sims[lines, best]


def products(queries: UnitRows, vectors: UnitRows, nominees: Nominees) -> Similarities:
    """Inner products [q, n] in float32, the nominees read where they lie; -inf for -1."""
    faiss = load_faiss()
    found = np.empty(nominees.shape, np.float32)
    nominees, queries = np.ascontiguousarray(nominees, np.int64), np.ascontiguousarray(queries, np.float32)
    pointers = (faiss.swig_ptr(each) for each in (found, queries, vectors, nominees))
    faiss.fvec_inner_products_by_idx(*pointers, vectors.shape[1], len(queries), nominees.shape[1])
    if len(nominees) and nominees[:, -1].min() < 0:  # the last are nobody where any is
        found[nominees < 0] = scan.NO_SIMILARITY
    return found
