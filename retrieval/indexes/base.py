"""What a vector index is: keys and unit rows in, the most similar keys out. SQL is the truth; an index is a cache."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, Self

from retrieval.planner import Plan
from retrieval.types import Keys, Similarities, UnitRows


class VectorIndex(Protocol):
    """Contract, run on every implementation by ``tests/test_index_contract.py``.

    * ``add`` refuses a wrong dim, NaN or infinity, rows that are not unit (1e-3), keys < 1, keys already present or
      given twice (``UsageError``, and nothing is added).
    * ``search`` gives for each query row the k best by inner product, best first, equal similarities by smaller key.
      Rows shorter than k are padded with key -1 and similarity -inf, only when fewer (allowed) vectors exist.
      ``allowed`` (sorted unique keys; unknown ones are ignored) restricts the answer and never costs recall: with it
      the answer is exact, or, where ``plan`` says it is not exhaustive, finds as much as without (``fastscan``).
      Queries that are not finite unit rows of the right dim, and k < 1, are a ``UsageError``.
    * A returned similarity is the inner product of the stored float32 row and the query, summed in float64 and
      rounded, clipped to [-1, 1]: the same number from every backend, so answers of two indexes can be merged.
    * ``save`` writes plain files into an existing empty directory (the caller fsyncs, hashes and renames);
      ``open`` reads them back, memory-mapped where that works; an opened index answers exactly as the saved one.
    * ``build`` streams batches (ascending keys) into such a directory in bounded memory and returns the opened index.
    * ``search`` is safe from several threads at once.
    """

    name: str  # "exact", "faiss", ...

    @classmethod
    def create(cls, dim: int, options: str = "") -> Self:
        """An empty index. ``options`` is what follows the colon in a backend's name; UsageError when not understood."""
        ...

    @classmethod
    def build(cls, directory: Path, batches: Iterable[tuple[Keys, UnitRows]], dim: int, options: str = "") -> Self: ...

    @property
    def dim(self) -> int: ...

    @property
    def options(self) -> str:
        """What ``create`` was given, in full."""
        ...

    @property
    def exhaustive(self) -> bool:
        """True when recall is 1 by construction, also without ``allowed``."""
        ...

    def __len__(self) -> int: ...

    def keys(self) -> Keys:
        """All keys, ascending."""
        ...

    def vectors(self, keys: Keys) -> UnitRows:
        """The stored rows of these keys, in order; UsageError when one is not here."""
        ...

    def add(self, keys: Keys, vectors: UnitRows) -> None: ...

    def plan(self, selected: int | None = None) -> Plan:
        """How ``search`` answers; ``selected``: how many vectors may be returned, None without a filter."""
        ...

    def search(self, queries: UnitRows, k: int, allowed: Keys | None = None) -> tuple[Keys, Similarities]:
        """Keys int64 [q, k] and similarities float32 [q, k]."""
        ...

    def save(self, directory: Path) -> None: ...

    @classmethod
    def open(cls, directory: Path) -> Self: ...
