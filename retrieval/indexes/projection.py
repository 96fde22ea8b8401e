"""A smaller space in which neighbours are looked for: the directions in which rows vary most.

Embeddings have far fewer directions than numbers. Rows and queries are turned onto the directions of most variance
(Pearson 1901) and then by a random rotation, so that every number left carries about as much as any other and short
codes of equal length suit them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from retrieval.indexes.choice import MOST_DIRECTIONS, STEP
from retrieval.indexes.library import load_faiss
from retrieval.types import UnitRows

EXPLAINED = 0.9  # share of the variance that the directions kept must carry


@dataclass(frozen=True, slots=True)
class Placed:
    """Queries in the smaller space: ``rows`` float32 [n, directions], seen from the mean row; ``outside`` float32 [n]:
    squared length of what the directions do not show of them."""

    rows: npt.NDArray[np.float32]
    outside: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.rows)

    def of(self, chosen: slice | npt.NDArray[np.bool_]) -> Placed:
        return Placed(self.rows[chosen], self.outside[chosen])


@dataclass(frozen=True, slots=True)
class Projection:
    """``directions`` float32 [dim, n], as columns; ``mean`` float32 [dim]: of the rows they were learnt from.

    ``beyond``: squared length of a unit row and of the mean together. ``turning``: the same as a faiss.LinearTransform.
    NumPy's own threads would wait for more to do long after a product, on the cores that FAISS wants next: a batch of
    questions then took half as long again.
    """

    directions: npt.NDArray[np.float32]
    mean: npt.NDArray[np.float32]
    beyond: np.float32
    turning: Any

    @classmethod
    def onto(cls, directions: npt.NDArray[np.float32], mean: npt.NDArray[np.float32]) -> Self:
        faiss = load_faiss()
        turning = faiss.LinearTransform(*directions.shape, True)
        turning.A = _floats(directions.T)
        turning.b = _floats(-(mean @ directions))
        turning.is_trained = True
        return cls(directions, mean, np.float32(1 + mean @ mean), turning)

    @classmethod
    def learn(cls, rows: UnitRows, directions: int = 0) -> Self:
        """The ``directions`` of most variance; 0 for as many as ``EXPLAINED`` calls for."""
        mean = rows.mean(axis=0, dtype=np.float64)
        centred = rows - mean.astype(np.float32)
        values, vectors = np.linalg.eigh(centred.T @ centred)
        values, vectors = values[::-1].clip(0), vectors[:, ::-1]
        if not directions:
            share = np.cumsum(values) / max(float(values.sum()), 1e-30)
            needed = int(np.searchsorted(share, EXPLAINED)) + 1
            directions = min(-(-needed // STEP) * STEP, MOST_DIRECTIONS)
        kept = vectors[:, : min(directions, rows.shape[1])]
        turn, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((kept.shape[1], kept.shape[1])))
        return cls.onto(np.ascontiguousarray(kept @ turn, dtype=np.float32), mean.astype(np.float32))

    def of(self, rows: UnitRows) -> Placed:
        """Where unit rows [n, dim] lie."""
        placed: npt.NDArray[np.float32] = self.turning.apply_py(np.ascontiguousarray(rows))
        far = self.beyond - 2 * np.vecdot(rows, self.mean)  # |row - mean|^2
        return Placed(placed, far - np.vecdot(placed, placed))


def _floats(values: npt.NDArray[np.float32]) -> Any:
    """A vector of faiss's own making. Where SimpleITK was loaded after faiss, SWIG shows a vector that is read from a
    faiss object as one of SimpleITK's, which faiss can't fill."""
    faiss = load_faiss()
    vector = faiss.Float32Vector()
    faiss.copy_array_to_vector(np.ascontiguousarray(values, dtype=np.float32).ravel(), vector)
    return vector
