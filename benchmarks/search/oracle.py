"""Exact answers, and the share of them that a plan found."""

from __future__ import annotations

import numpy as np

from benchmarks.search.contender import K
from benchmarks.search.scopes import Scope
from retrieval.indexes.library import load_faiss
from retrieval.types import Keys, UnitRows

_SPARE = 10  # beyond K, scored again in float64: float32 sums may put neighbours in the wrong order
_EQUAL = 1e-9

Worst = np.ndarray  # float64 [q], the similarity of each query's last true neighbour


def worst_of(rows: UnitRows, queries: UnitRows, scope: Scope) -> Worst:
    """The exact similarity of each query's K-th nearest in the scope, or of its last where there are fewer than K."""
    faiss = load_faiss()
    keys = np.arange(1, len(rows) + 1) if scope.allowed is None else scope.allowed
    chosen = np.ascontiguousarray(rows if scope.allowed is None else rows[keys - 1])
    _, near = faiss.knn(queries, chosen, min(K + _SPARE, len(keys)), metric=faiss.METRIC_INNER_PRODUCT)
    similarities = -np.sort(-_similarities(rows, queries, keys[near]), axis=1)
    return np.asarray(similarities[:, min(K, len(keys)) - 1])


def recall(found: Keys, rows: UnitRows, queries: UnitRows, scope: Scope, worst: Worst) -> float:
    """Share of the K nearest in the scope that are in ``found`` [q, K], equal similarities counted as equal.

    What is not in the scope, or is there twice, counts as not found.
    """
    good = found > 0
    if scope.allowed is not None:
        good &= np.isin(found, scope.allowed)
    for n in range(1, found.shape[1]):
        good[:, n] &= ~(found[:, :n] == found[:, n : n + 1]).any(axis=1)
    near = _similarities(rows, queries, np.maximum(found, 1)) >= worst[:, None] - _EQUAL
    there = K if scope.allowed is None else min(K, len(scope.allowed))
    return float((good & near).sum() / (len(found) * min(there, len(rows))))


def _similarities(rows: UnitRows, queries: UnitRows, keys: Keys) -> np.ndarray:
    """float64 [q, n]; a query at a time, so that few rows are in memory."""
    return np.stack(
        [
            rows[each - 1].astype(np.float64) @ query.astype(np.float64)
            for each, query in zip(keys, queries, strict=True)
        ]
    )
