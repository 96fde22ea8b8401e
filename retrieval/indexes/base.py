"""What a vector index is: keys and unit rows in, the most similar keys out. SQL is the truth; an index is a cache."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, Self

from retrieval.types import Keys, Similarities, UnitRows


class VectorIndex(Protocol):
    """Contract, run on every implementation by ``tests/test_index_contract.py``.

    * ``add`` refuses a wrong dim, NaN or infinity, rows that are not unit (1e-3), keys < 1, keys already present or
      given twice (``UsageError``, and nothing is added).
    * ``search`` gives for each query row the k best by inner product, best first, equal similarities by smaller key.
      Rows shorter than k are padded with key -1 and similarity -inf, only when fewer (allowed) vectors exist.
      ``allowed`` (sorted unique keys; unknown ones are ignored) restricts the answer and never costs recall.
    * ``save`` writes plain files into an existing empty directory (the caller fsyncs, hashes and renames);
      ``open`` reads them back, memory-mapped where that works; an opened index answers exactly as the saved one.
    * ``search`` is safe from several threads at once.
    """

    name: str  # "exact", "faiss", ...

    @property
    def dim(self) -> int: ...

    @property
    def exhaustive(self) -> bool:
        """True when every (allowed) vector is scored exactly, so recall is 1 by construction."""
        ...

    def __len__(self) -> int: ...

    def keys(self) -> Keys:
        """All keys, ascending."""
        ...

    def add(self, keys: Keys, vectors: UnitRows) -> None: ...

    def search(self, queries: UnitRows, k: int, allowed: Keys | None = None) -> tuple[Keys, Similarities]:
        """Keys int64 [q, k] and similarities float32 [q, k]."""
        ...

    def save(self, directory: Path) -> None: ...

    @classmethod
    def open(cls, directory: Path) -> Self: ...
