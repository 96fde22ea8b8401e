"""What an index over stored rows is by those rows alone, whatever nominates among them."""

from __future__ import annotations

from abc import ABC, abstractmethod

from retrieval.indexes.rows import Rows
from retrieval.types import Keys, UnitRows


class Stored(ABC):
    """The part of the ``VectorIndex`` contract that its rows answer."""

    @property
    @abstractmethod
    def rows(self) -> Rows:
        """All keys and vectors, as of now."""

    @property
    def dim(self) -> int:
        return self.rows.dim

    def __len__(self) -> int:
        return len(self.rows)

    def keys(self) -> Keys:
        return self.rows.keys

    def vectors(self, keys: Keys) -> UnitRows:
        return self.rows.of(keys)
