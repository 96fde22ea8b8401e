"""How far similarities are off that are told from the smaller space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrieval.indexes.products import Nominees, products
from retrieval.indexes.projection import Placed
from retrieval.indexes.rows import Rows
from retrieval.types import Similarities, UnitRows

SEEN = 600  # rows in which the noise is measured


@dataclass(frozen=True, slots=True)
class Noise:
    """Unit rows have similarity 1 - (squared distance) / 2; the smaller space tells the part of that distance within
    its directions, and the query's own part outside of them is known. ``offset``: what takes the place of the 1, on
    average; ``spread``: standard deviation of what similarities are then off by.
    """

    offset: float
    spread: float

    def likely(self, distances: npt.NDArray[np.float32], placed: Placed) -> Similarities:
        """[queries, n] by squared distances [queries, n] in the smaller space."""
        found: Similarities = np.float32(self.offset) - (distances + placed.outside[:, None]) / np.float32(2)
        return found

    @classmethod
    def met(
        cls, queries: UnitRows, placed: Placed, rows: Rows, nominees: Nominees, distances: npt.NDArray[np.float32]
    ) -> Noise:
        """By these queries in these of the rows, whose distances are told so."""
        off = products(queries, rows.vectors, nominees) - cls(0.0, 0.0).likely(distances, placed)
        return cls(float(off.mean(dtype=np.float64)), float(off.std(dtype=np.float64)))


def seen(count: int) -> npt.NDArray[np.int64]:
    """Positions of rows from everywhere."""
    return np.unique(np.linspace(0, count - 1, SEEN, dtype=np.int64))
