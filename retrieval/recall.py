"""What an index finds of what is there: measured before it may go live."""

from __future__ import annotations

from retrieval.indexes import scan
from retrieval.indexes.base import VectorIndex
from retrieval.indexes.rows import Rows
from retrieval.types import Similarities, UnitRows

RECALL_AT = 10
_BLOCK = 16384  # rows read at a time


def measure_recall(index: VectorIndex, queries: UnitRows, k: int = RECALL_AT) -> float:
    """Share of the k true neighbours that a search finds."""
    k = min(k, len(index))
    if not k or not len(queries):
        return 1.0
    exact = exact_similarities(index, queries, k)
    _, found = index.search(queries, k)
    # Similarities are exact whatever the backend, so equal vectors may stand in for one another.
    return float((found >= exact[:, -1:]).mean())


def exact_similarities(index: VectorIndex, queries: UnitRows, k: int) -> Similarities:
    """Of the k best [q, k], best first, by going through every stored row, whatever plans the index has."""
    keys = index.keys()
    best = scan.no_answers(len(queries), k)
    for start in range(0, len(keys), _BLOCK):
        block = keys[start : start + _BLOCK]
        best = scan.merge([best, scan.search(queries, Rows(block, index.vectors(block)), k)], k)
    return best[1]
