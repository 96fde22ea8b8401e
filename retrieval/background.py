"""How similar two random cases of this gallery are: the yardstick beside every similarity.

A cosine of 0.93 means nothing by itself; some encoders put any two radiographs there. Against the similarities of
random pairs of the same gallery it becomes a percentile. The best hit of a sentence that random pairs reach easily is
no confident match; images are judged by what is usual among the cases on file (``retrieval.evidence.novelty``).

Cosines of sentences and images lie on a scale of their own, far below that of two images. So a sentence is compared
with random pairs of its kind: sentences that say something general of a medical image, each with sampled cases; and an
image with a sentence added is compared with sampled cases to which such sentences were added in the same proportion.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from retrieval.errors import UsageError
from retrieval.fusion import compose
from retrieval.space import Space
from retrieval.types import Similarities, UnitRows

SAMPLE = 400  # vectors; about 80,000 pairs, so a percentile is good to well under one point
CONFIDENT_PERCENTILE = 95.0
_WEIGHTS_HELD = 16  # text weights whose pairs are kept; each is under a megabyte


class Samples(Protocol):
    """Where sampled vectors come from (the catalog)."""

    def sample(self, n: int) -> UnitRows:
        """At most n stored vectors, the same ones for the same content."""
        ...


@dataclass(frozen=True, slots=True)
class Placed:
    """Samples of a source, in the space that searches happen in."""

    source: Samples
    space: Space

    def sample(self, n: int) -> UnitRows:
        return self.space.place(self.source.sample(n))


@dataclass(frozen=True, slots=True)
class RandomPairs:
    """Sorted similarities of random pairs of one kind."""

    similarities: Similarities

    def percentile(self, similarity: float) -> float:
        """Share of random pairs less similar than this, 0 to 100; 0 when the gallery is too small to tell."""
        if not len(self.similarities):
            return 0.0
        return float(np.searchsorted(self.similarities, similarity) / len(self.similarities) * 100.0)

    def stands_out(self, similarity: float) -> bool:
        """Whether a best hit is above what 95 of 100 random pairs reach. True when too small a gallery can't tell."""
        return not len(self.similarities) or self.percentile(similarity) >= CONFIDENT_PERCENTILE

    def doubts(self, best: float) -> tuple[str, ...]:
        """Why a best hit of this similarity is no confident match; empty when it is one."""
        if self.stands_out(best):
            return ()
        return (
            f"The most similar case ({best:.2f}) is no closer than {self.percentile(best):.0f} % of random pairs; "
            f"a match would have to be closer than {CONFIDENT_PERCENTILE:.0f} %.",
        )


class Background:
    """Random pairs of a gallery, drawn again when it has doubled or halved since. Safe to use from several threads."""

    def __init__(self) -> None:
        self._sample: UnitRows = np.empty((0, 0), dtype=np.float32)
        self._drawn_at = -1
        self._pairs: OrderedDict[float, RandomPairs] = OrderedDict()  # by text weight
        self._lock = threading.Lock()

    def of(
        self, source: Samples, size: int, text_weight: float = 0.0, sentences: Callable[[], UnitRows] | None = None
    ) -> RandomPairs:
        """Pairs from a source of ``size`` vectors; free when nothing much has changed.

        ``text_weight`` and ``sentences`` (asked for only when there is a weight): of the kind of the query.
        """
        with self._lock:
            if self._drawn_at < 0 or size > 2 * self._drawn_at or 2 * size < self._drawn_at:
                self._sample = source.sample(SAMPLE)
                self._drawn_at = size
                self._pairs.clear()
            if text_weight not in self._pairs:
                told = sentences() if text_weight > 0 and sentences else None
                self._pairs[text_weight] = RandomPairs(_similarities(self._sample, told, text_weight))
                while len(self._pairs) > _WEIGHTS_HELD:
                    self._pairs.popitem(last=False)
            self._pairs.move_to_end(text_weight)
            return self._pairs[text_weight]


def _similarities(sample: UnitRows, sentences: UnitRows | None, weight: float) -> Similarities:
    if sentences is None:
        return pair_similarities(sample)
    return text_similarities(sample, sentences) if weight == 1.0 else composed_similarities(sample, sentences, weight)


def pair_similarities(rows: UnitRows) -> Similarities:
    """Sorted inner products of all distinct pairs of rows [n, dim]: float32 [n (n - 1) / 2]."""
    upper = np.triu_indices(len(rows), k=1)
    return np.sort((rows @ rows.T)[upper].astype(np.float32))


def text_similarities(rows: UnitRows, sentences: UnitRows) -> Similarities:
    """Sorted inner products of every sentence [m, dim] with every row [n, dim]: float32 [n m]."""
    if not len(rows):
        return np.empty(0, np.float32)
    return np.sort((sentences @ rows.T).ravel().astype(np.float32))


def composed_similarities(rows: UnitRows, sentences: UnitRows, weight: float) -> Similarities:
    """Sorted inner products of rows [n, dim], each with one of the sentences added, and the other rows: [n (n - 1)]."""
    asked = []
    for n, row in enumerate(rows):
        try:
            asked.append(compose(row[None, :], sentences[n % len(sentences)], weight)[0])
        except UsageError:  # the two cancel out: nobody could ask with that either
            asked.append(row)
    if not asked:
        return np.empty(0, np.float32)
    table = np.stack(asked) @ rows.T
    return np.sort(table[~np.eye(len(rows), dtype=bool)].astype(np.float32))
