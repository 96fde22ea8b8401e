"""FAISS (https://faiss.ai) by itself: every vector, and its HNSW graph over float32 vectors."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks.search.contender import BUILD_EF, EFFORTS, LINKS, Built, Effort, K, Search, Task, in_process
from benchmarks.search.scopes import Scope
from retrieval.indexes.library import load_faiss


@contextmanager
def flat(task: Task) -> Iterator[Built]:
    faiss = load_faiss()
    index = faiss.IndexFlatIP(task.rows.shape[1])
    seconds = _added(index, task)

    def search(scope: Scope) -> Search:
        chosen = faiss.SearchParameters(**_selected(scope, len(task.rows)))
        return lambda queries: np.asarray(index.search(queries, K, params=chosen)[1]) + 1

    yield Built("FAISS Flat", seconds, _serialised(index), 0, (in_process("every row", search),))


@contextmanager
def hnsw(task: Task) -> Iterator[Built]:
    faiss = load_faiss()
    index = faiss.IndexHNSWFlat(task.rows.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = BUILD_EF
    seconds = _added(index, task)

    def at(ef: int) -> Effort:
        def search(scope: Scope) -> Search:
            chosen = faiss.SearchParametersHNSW(efSearch=ef, **_selected(scope, len(task.rows)))
            return lambda queries: np.asarray(index.search(queries, K, params=chosen)[1]) + 1

        return in_process(f"ef={ef}", search)

    yield Built(f"FAISS HNSW{LINKS}", seconds, _serialised(index), 0, tuple(at(ef) for ef in EFFORTS))


def _added(index: Any, task: Task) -> float:
    started = time.perf_counter()
    index.add(task.rows)
    return time.perf_counter() - started


def _selected(scope: Scope, count: int) -> dict[str, Any]:
    """What search parameters need for a filter."""
    if scope.allowed is None:
        return {}
    return {"sel": load_faiss().IDSelectorBitmap(np.packbits(scope.mask(count), bitorder="little"))}


def _serialised(index: Any) -> int:
    """Bytes of the index, counted as they would be written."""
    faiss = load_faiss()
    written = 0

    def count(block: bytes) -> int:
        nonlocal written
        written += len(block)
        return len(block)

    faiss.write_index(index, faiss.PyCallbackIOWriter(count))
    return written
