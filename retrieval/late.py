"""Pure: late interaction over slices, or views: which slice of the query met which of the hit, and a score from all.

MaxSim after Khattab and Zaharia, "ColBERT" (SIGIR 2020), with the mean instead of the sum so that the score stays in
[-1, 1] whatever the number of slices.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from retrieval.types import UnitRows


def best_matches(query: UnitRows, hit: UnitRows, top: int = 5) -> list[tuple[int, int, float]]:
    """Up to ``top`` pairs (row of query, row of hit, similarity), best first, each row in one pair at most.

    Greedy: the best pair is taken, its two rows leave, and so on; equal pairs by row of the query, then of the hit.
    """
    table = _table(query, hit)
    pairs: list[tuple[int, int, float]] = []
    while len(pairs) < min(top, *table.shape):
        mine, theirs = divmod(int(table.argmax()), table.shape[1])
        pairs.append((mine, theirs, float(table[mine, theirs])))
        table[mine, :] = -np.inf
        table[:, theirs] = -np.inf
    return pairs


def max_similarity(query: UnitRows, hit: UnitRows) -> float:
    """Mean over the query's rows of the similarity of the best row of the hit, in [-1, 1].

    Not symmetric: a short query inside a long hit scores high. ``symmetric_max_similarity`` asks for both.
    ValueError when either has no rows.
    """
    if not len(query) or not len(hit):
        raise ValueError(f"Expected at least one row on each side, got {len(query)} and {len(hit)}.")
    return float(_table(query, hit).max(axis=1).mean(dtype=np.float64))


def symmetric_max_similarity(one: UnitRows, other: UnitRows) -> float:
    """The mean of both directions: high only when each covers the other. For whole studies of the same kind."""
    return (max_similarity(one, other) + max_similarity(other, one)) / 2


def _table(query: UnitRows, hit: UnitRows) -> npt.NDArray[np.float32]:
    """Similarities [query rows, hit rows]: float64 sums, rounded, so that equal pairs are equal."""
    products = query.astype(np.float64) @ hit.astype(np.float64).T
    return np.clip(products.astype(np.float32), -1.0, 1.0)
