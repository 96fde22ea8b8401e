"""Exact search in NumPy: the default, and the oracle of every other index."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Self

from retrieval.errors import UsageError
from retrieval.indexes import scan
from retrieval.indexes.rows import Rows
from retrieval.indexes.stored import Stored
from retrieval.planner import PLAIN, Plan, Scan, choose_scan
from retrieval.types import Keys, Similarities, UnitRows


class ExactIndex(Stored):
    """Every vector is scored. Adding while others search is safe: they keep the rows they started with."""

    name = "exact"
    exhaustive = True

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    @classmethod
    def create(cls, dim: int, options: str = "") -> Self:
        if options:
            raise UsageError(f"The exact index takes no options, got '{options}'.")
        return cls(Rows.empty(dim))

    @classmethod
    def build(cls, directory: Path, batches: Iterable[tuple[Keys, UnitRows]], dim: int, options: str = "") -> Self:
        cls.create(dim, options)
        return cls(Rows.written(directory, batches, dim))

    @property
    def rows(self) -> Rows:
        return self._rows

    @property
    def options(self) -> str:
        return ""

    def add(self, keys: Keys, vectors: UnitRows) -> None:
        self._rows = self._rows.appended(keys, vectors)

    def extended(self, keys: Keys, vectors: UnitRows, reserve: int = 0) -> ExactIndex:
        """A new index with more vectors; this one stays as it is. See ``Rows.appended`` for the cost."""
        return ExactIndex(self._rows.appended(keys, vectors, reserve))

    def plan(self, selected: int | None = None) -> Plan:
        if choose_scan(len(self), selected, PLAIN) is Scan.GATHER:
            return Plan("selected-exact", selected or 0, True)
        return Plan("exact", len(self), True)

    def search(self, queries: UnitRows, k: int, allowed: Keys | None = None) -> tuple[Keys, Similarities]:
        rows = self._rows
        queries, allowed = scan.check_search(queries, rows.dim, k, allowed)
        if allowed is None:
            return scan.search(queries, rows, k)
        positions = rows.positions(allowed)
        gather = choose_scan(len(rows), len(positions), PLAIN) is Scan.GATHER
        return scan.search(queries, rows, k, positions, gather=gather)

    def save(self, directory: Path) -> None:
        self._rows.save(directory)

    @classmethod
    def open(cls, directory: Path) -> Self:
        return cls(Rows.open(directory))
