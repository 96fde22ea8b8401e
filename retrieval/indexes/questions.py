"""What is asked to find out how much an index finds."""

from __future__ import annotations

import numpy as np

from retrieval.types import UnitRows

# Rows on file are easy questions: they have series, other views and near copies beside them. Moved so far to the side
# they are as hard as real pictures held out of a gallery of 200,000 (docs/benchmarks.md).
ASIDE = 0.4


def displaced(rows: UnitRows, seed: int = 0) -> UnitRows:
    """As many unit rows as ``rows``, in the places of pictures that are not on file: each row moved to the side by
    ``ASIDE``, in the direction in which two others differ."""
    rng = np.random.default_rng(seed)
    ways = rows[rng.permutation(len(rows))] - rows[rng.permutation(len(rows))]
    ways /= np.maximum(np.linalg.norm(ways, axis=1, keepdims=True), 1e-12)
    moved = rows + np.float32(ASIDE) * ways
    placed: UnitRows = (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)
    return placed
