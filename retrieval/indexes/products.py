"""Inner products and distances with rows read where they lie, without copying them together first."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from retrieval.indexes.library import load_faiss, one_thread
from retrieval.types import Similarities, UnitRows

NOBODY = -1
Nominees = npt.NDArray[np.int64]  # [queries, n] positions of rows, nearest first; NOBODY where there are no more
_FOR_MORE_THREADS = 5 << 20  # numbers: a millisecond and more


def products(queries: UnitRows, vectors: UnitRows, nominees: Nominees) -> Similarities:
    """Inner products [q, n] in float32; -inf for nobody."""
    return _by_position(load_faiss().fvec_inner_products_by_idx, queries, vectors, nominees, -np.inf)


def distances(
    queries: npt.NDArray[np.float32], vectors: npt.NDArray[np.float32], nominees: Nominees
) -> npt.NDArray[np.float32]:
    """Squared distances [q, n] in float32; inf for nobody."""
    return _by_position(load_faiss().fvec_L2sqr_by_idx, queries, vectors, nominees, np.inf)


def _by_position(
    measure: Callable[..., None],
    queries: npt.NDArray[np.float32],
    vectors: npt.NDArray[np.float32],
    nominees: Nominees,
    nobody: float,
) -> npt.NDArray[np.float32]:
    found = np.empty(nominees.shape, np.float32)
    nominees, queries = np.ascontiguousarray(nominees, np.int64), np.ascontiguousarray(queries, np.float32)
    pointers = map(load_faiss().swig_ptr, (found, queries, vectors, nominees))
    measure(*pointers, vectors.shape[1], len(queries), nominees.shape[1])
    if len(nominees) and nominees[:, -1].min() < 0:  # the last are nobody where any is
        found[nominees < 0] = nobody
    return found


def products_of_one(
    query: npt.NDArray[np.float32], vectors: UnitRows, positions: npt.NDArray[np.intp]
) -> npt.NDArray[np.float32]:
    """Inner products [n] of one query [dim]. By one thread where there is little to read, which is sooner than to wake
    others."""
    if len(positions) * vectors.shape[1] < _FOR_MORE_THREADS:
        with one_thread(True):
            few: npt.NDArray[np.float32] = products(query[None, :], vectors, positions[None, :])[0]
        return few
    threads = load_faiss().omp_get_max_threads()
    shares = np.full((threads, -(-len(positions) // threads)), NOBODY, np.int64)
    shares.ravel()[: len(positions)] = positions
    found = products(np.tile(query, (threads, 1)), vectors, shares).ravel()
    return found[: len(positions)]
