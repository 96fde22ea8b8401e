"""usearch (https://github.com/unum-cloud/usearch): a graph over float16 vectors.

Its Python interface has no filter: under one it is asked for more (up to 2,000), and the rest is dropped.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

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

MOST = 2000


@contextmanager
def half_precision(task: Task) -> Iterator[Built]:
    from usearch.index import Index

    count = len(task.rows)
    index = Index(ndim=task.rows.shape[1], metric="ip", dtype="f16", connectivity=LINKS, expansion_add=BUILD_EF)
    started = time.perf_counter()
    index.add(np.arange(count), task.rows, threads=THREADS)
    seconds = time.perf_counter() - started

    def at(ef: int) -> Effort:
        def search(scope: Scope) -> Search:
            index.expansion_search = ef
            wanted = wider(ef, count, scope.allowed)

            def ask(queries: UnitRows) -> Keys:
                matches = index.search(queries, wanted, threads=1 if len(queries) == 1 else THREADS)
                keys = np.atleast_2d(np.asarray(matches.keys, np.int64)) + 1
                if len(queries) > 1:  # what lies behind the last match of a query is not set
                    keys[np.arange(wanted) >= np.asarray(matches.counts)[:, None]] = -1
                return kept(keys, scope.allowed)

            return ask

        return in_process(f"ef={ef}", search)

    yield Built("usearch f16", seconds, index.serialized_length, 0, tuple(at(ef) for ef in EFFORTS))


def wider(ef: int, count: int, allowed: Keys | None) -> int:
    """How many to ask for where what may not be returned is dropped afterwards."""
    return K if allowed is None else min(MOST, count, max(K, ef * count // max(1, len(allowed))))


def kept(keys: Keys, allowed: Keys | None) -> Keys:
    """The first K of each row of ``keys`` [q, n] that may be returned, padded with -1."""
    if allowed is None:
        return padded(keys)
    full = np.full((len(keys), K), -1, np.int64)
    for line, found in zip(full, keys, strict=True):
        passed = found[np.isin(found, allowed)][:K]
        line[: len(passed)] = passed
    return full
