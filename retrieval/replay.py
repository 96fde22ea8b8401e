"""What an index reads of the catalog, and nothing more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from retrieval.adapters.head import MetricHead
from retrieval.errors import StoreError, UsageError
from retrieval.heads import Heads
from retrieval.indexes.rows import check_unit_rows
from retrieval.space import Space
from retrieval.types import Keys, UnitRows


class VectorSource(Protocol):
    """The catalog, seen from an index. ``Heads`` says in which order things must become visible."""

    def heads(self) -> Heads: ...

    def vectors(self, after: int, upto: int | None = None, batch: int = 4096) -> Iterator[tuple[Keys, UnitRows]]:
        """Live (not deleted) embeddings with after < key <= upto, by ascending key, in batches."""
        ...

    def tombstones(self, after: int) -> tuple[Keys, Keys]:
        """Sequence numbers and the keys they delete, for every number > after, ascending."""
        ...

    def head(self, sha256: str) -> MetricHead:
        """The metric head of that hash; StoreError or NotFoundError when it is damaged or gone."""
        ...


def live_space(source: VectorSource, stored: Space, heads: Heads) -> Space:
    """The space of the live generation that ``heads`` names, over that of the stored vectors."""
    return stored.adapted(source.head(heads.adapter) if heads.adapter else None)


def replay(source: VectorSource, stored: Space, space: Space, after: int, upto: int) -> Iterator[tuple[Keys, UnitRows]]:
    """``source.vectors`` placed in ``space``, each row checked. StoreError when the database holds an unfit one."""
    if after >= upto:
        return
    for keys, vectors in source.vectors(after, upto):
        try:
            checked = check_unit_rows(vectors, stored.dim)
        except UsageError as error:
            raise StoreError(
                f"A vector with a key from {keys[0]} to {keys[-1]} is damaged in the database: run precedent verify "
                f"--repair. {error}"
            ) from error
        yield keys, space.place(checked)
