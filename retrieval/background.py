"""How similar two random cases of this gallery are: the yardstick beside every similarity.

A cosine of 0.93 means nothing by itself; some encoders put any two radiographs there. Against the similarities of
random pairs of the same gallery it becomes a percentile, and a best hit that random pairs reach easily is told as no
confident match.
"""

from __future__ import annotations

import threading
from typing import Protocol

import numpy as np

from retrieval.types import Similarities, UnitRows

SAMPLE = 400  # vectors; about 80,000 pairs, so a percentile is good to well under one point
CONFIDENT_PERCENTILE = 95.0


class Samples(Protocol):
    """Where sampled vectors come from (the catalog)."""

    def sample(self, n: int) -> UnitRows:
        """At most n stored vectors, the same ones for the same content."""
        ...


class Background:
    """Sorted similarities of random pairs, drawn again when the gallery has doubled or halved since."""

    def __init__(self) -> None:
        self._pairs: Similarities = np.empty(0, dtype=np.float32)
        self._drawn_at = -1
        self._lock = threading.Lock()

    def of(self, source: Samples, size: int) -> Background:
        """Brought up to date with a source of ``size`` vectors; free when nothing much has changed."""
        with self._lock:
            if self._drawn_at < 0 or size > 2 * self._drawn_at or 2 * size < self._drawn_at:
                self._pairs = pair_similarities(source.sample(SAMPLE))
                self._drawn_at = size
        return self

    def percentile(self, similarity: float) -> float:
        """Share of random pairs less similar than this, 0 to 100; 0 when the gallery is too small to tell."""
        if not len(self._pairs):
            return 0.0
        return float(np.searchsorted(self._pairs, similarity) / len(self._pairs) * 100.0)

    def stands_out(self, similarity: float) -> bool:
        """Whether a best hit is above what 95 of 100 random pairs reach. True when too small a gallery can't tell."""
        return not len(self._pairs) or self.percentile(similarity) >= CONFIDENT_PERCENTILE


def pair_similarities(rows: UnitRows) -> Similarities:
    """Sorted inner products of all distinct pairs of rows [n, dim]: float32 [n (n - 1) / 2]."""
    upper = np.triu_indices(len(rows), k=1)
    return np.sort((rows @ rows.T)[upper].astype(np.float32))
