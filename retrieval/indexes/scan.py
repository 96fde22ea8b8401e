"""Exact search over rows: what every other plan is measured against.

Float32 matrix products finish a sum in an order that depends on shapes and threads, so two equal vectors may differ in
the last bit. So they only *nominate*: everything within the rounding error of the k-th best is scored again in float64,
row by row, and rounded. A vector then has one similarity, whatever plan, block or machine scored it, and ties are ties.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from retrieval.errors import UsageError
from retrieval.indexes.products import products, products_of_one
from retrieval.indexes.rows import Positions, Rows, check_unit_rows
from retrieval.types import Keys, Similarities, UnitRows

NO_KEY = -1
NO_SIMILARITY = -np.inf
_SCORES = 1 << 22  # similarities held at once
_GATHERED = 1 << 21  # values of rows copied at once
_COPIED_FROM = 4  # queries from which rows are copied together sooner than each reads them where they lie
_RESCORED = 1 << 15  # float64 values held at once: what stays in a core's own cache


def check_search(queries: npt.ArrayLike, dim: int, k: int, allowed: Keys | None) -> tuple[UnitRows, Keys | None]:
    """Queries as unit rows and ``allowed`` sorted and unique, or UsageError."""
    if k < 1:
        raise UsageError(f"k must be at least 1, got {k}.")
    if allowed is not None:
        allowed = np.asarray(allowed, dtype=np.int64)
        if (allowed[1:] <= allowed[:-1]).any():
            allowed = np.unique(allowed)
    return check_unit_rows(queries, dim, "queries"), allowed


def similarities(query: npt.NDArray[np.float32], vectors: UnitRows) -> Similarities:
    """Inner products [n] of one query [dim] with rows [n, dim]: summed in float64 in a fixed order, in [-1, 1]."""
    found = np.empty(len(vectors), np.float32)
    wide = query.astype(np.float64)
    step = max(1, _RESCORED // max(1, len(query)))
    for start in range(0, len(vectors), step):
        found[start : start + step] = np.vecdot(vectors[start : start + step].astype(np.float64), wide)
    return np.clip(found, -1.0, 1.0, out=found)


def search(
    queries: UnitRows, rows: Rows, k: int, positions: Positions | None = None, *, gather: bool = True
) -> tuple[Keys, Similarities]:
    """The k best of ``rows`` (or of those at ``positions``), best first, ties by key; padded with -1 and -inf.

    ``gather``: score the selected rows alone (good for few) rather than all, and mask (good for many).
    """
    keys, sims = no_answers(len(queries), k)
    if not len(rows) or (positions is not None and not len(positions)):
        return keys, sims
    # Queries are taken in groups so that the memory of their candidates stays bounded.
    step = max(1, min(64, _SCORES // (4 * k)))
    for start in range(0, len(queries), step):
        group = queries[start : start + step]
        candidates = _nominate(group, rows, k, positions, gather)
        for i, found in enumerate(candidates, start):
            keys[i], sims[i] = rank(queries[i], rows, found, k)
    return keys, sims


def rank(query: npt.NDArray[np.float32], rows: Rows, candidates: Positions, k: int) -> tuple[Keys, Similarities]:
    """The k best of the candidates (ascending positions) by exact similarity, ties by key; padded to k."""
    keys, sims = no_answers(1, k)
    scored = np.empty(len(candidates), np.float32)
    step = max(1, _GATHERED // rows.dim)
    for start in range(0, len(candidates), step):
        chosen = candidates[start : start + step]
        scored[start : start + step] = similarities(query, rows.vectors[chosen])
    best = np.argsort(-scored, kind="stable")[:k]
    keys[0, : len(best)] = rows.keys[candidates[best]]
    sims[0, : len(best)] = scored[best]
    return keys[0], sims[0]


def no_answers(queries: int, k: int) -> tuple[Keys, Similarities]:
    """Arrays [queries, k] of padding."""
    return np.full((queries, k), NO_KEY, np.int64), np.full((queries, k), NO_SIMILARITY, np.float32)


def merge(parts: list[tuple[Keys, Similarities]], k: int) -> tuple[Keys, Similarities]:
    """The k best of several answers to the same queries, ties by key; padding goes last."""
    keys = np.concatenate([part[0] for part in parts], axis=1)
    sims = np.concatenate([part[1] for part in parts], axis=1)
    order = np.lexsort((keys, -sims), axis=-1)[:, :k]
    return np.take_along_axis(keys, order, axis=1), np.take_along_axis(sims, order, axis=1)


def rounding_slack(dim: int) -> float:
    """How far a float32 inner product of unit rows can be from the true one: n * eps * |x| * |y| (Higham 2002, 3.1)."""
    return 1.01 * dim * 2.0**-24


def _nominate(queries: UnitRows, rows: Rows, k: int, positions: Positions | None, gather: bool) -> list[Positions]:
    """For each query, ascending positions of a superset of its k best."""
    margin = 2 * rounding_slack(rows.dim)
    masked = None
    if positions is not None and not gather:
        masked = np.ones(len(rows), bool)
        masked[positions] = False
        positions = None
    total = len(rows) if positions is None else len(positions)
    block = max(1024, _SCORES // len(queries))
    best = np.full((len(queries), 0), NO_SIMILARITY, np.float32)  # the k best similarities so far, in no order
    nominated: list[list[tuple[Positions, Similarities]]] = [[] for _ in queries]
    for start in range(0, total, block):
        stop = min(start + block, total)
        chosen = None if positions is None else positions[start:stop]
        scores = _scores(queries, rows.vectors[start:stop] if chosen is None else rows.vectors, chosen)
        if masked is not None:
            scores[:, masked[start:stop]] = NO_SIMILARITY
        best = _largest(np.concatenate([best, _largest(scores, k)], axis=1), k)
        floor = best.min(axis=1) - margin if best.shape[1] == k else np.full(len(queries), NO_SIMILARITY)
        for i, row in enumerate(scores):
            passed = np.flatnonzero(row >= floor[i]) if np.isfinite(floor[i]) else np.flatnonzero(row > NO_SIMILARITY)
            nominated[i].append((passed + start if chosen is None else chosen[passed], row[passed]))
    floor = best.min(axis=1) - margin
    return [
        np.concatenate([at[score >= low] for at, score in found]) for found, low in zip(nominated, floor, strict=True)
    ]


def _scores(queries: UnitRows, vectors: UnitRows, chosen: Positions | None) -> Similarities:
    """Inner products [q, n] with all of ``vectors`` or with those chosen: copied together only for many queries."""
    if chosen is None:
        return queries @ vectors.T
    if len(queries) > _COPIED_FROM:
        return queries @ vectors[chosen].T
    if len(queries) == 1:
        return products_of_one(queries[0], vectors, chosen)[None, :]
    return products(queries, vectors, np.broadcast_to(chosen, (len(queries), len(chosen))))


def _largest(scores: Similarities, k: int) -> Similarities:
    if scores.shape[1] <= k:
        return scores
    return np.partition(scores, scores.shape[1] - k, axis=1)[:, -k:]
