"""hnswlib (https://github.com/nmslib/hnswlib): a graph over float32 vectors, filtered by a Python function."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks.search.contender import (
    BUILD_EF,
    EFFORTS,
    LINKS,
    THREADS,
    Built,
    Effort,
    K,
    Search,
    Task,
    in_process,
    padded,
)
from benchmarks.search.scopes import Scope
from retrieval.types import Keys, UnitRows


@contextmanager
def hnsw(task: Task) -> Iterator[Built]:
    import hnswlib

    index = hnswlib.Index("ip", task.rows.shape[1])
    index.init_index(len(task.rows), ef_construction=BUILD_EF, M=LINKS)
    started = time.perf_counter()
    index.add_items(task.rows, num_threads=THREADS)
    seconds = time.perf_counter() - started

    def at(ef: int) -> Effort:
        def search(scope: Scope) -> Search:
            index.set_ef(ef)
            return _whole(index) if scope.allowed is None else _filtered(index, scope, len(task.rows))

        return in_process(f"ef={ef}", search)

    yield Built(f"hnswlib M{LINKS}", seconds, index.index_file_size(), 0, tuple(at(ef) for ef in EFFORTS))


def _whole(index: Any) -> Search:
    def search(queries: UnitRows) -> Keys:
        found = index.knn_query(queries, K, num_threads=1 if len(queries) == 1 else THREADS)[0]
        return np.asarray(found.astype(np.int64) + 1)

    return search


def _filtered(index: Any, scope: Scope, count: int) -> Search:
    """With a function of Python's it wants one thread. It raises where it reaches fewer than it is asked for."""
    passes = scope.mask(count).tobytes().__getitem__
    wanted = min(K, int(scope.mask(count).sum()))

    def one(query: UnitRows) -> Keys:
        try:
            found = index.knn_query(query, wanted, num_threads=1, filter=passes)[0]
        except RuntimeError:
            return np.full((1, K), -1, np.int64)
        return padded(found.astype(np.int64) + 1)

    return lambda queries: np.concatenate([one(queries[n : n + 1]) for n in range(len(queries))])
