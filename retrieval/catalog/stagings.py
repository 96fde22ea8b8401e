"""Embedding a gallery anew beside its vectors: see ``staging``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from retrieval.catalog import staging
from retrieval.catalog.store import Store
from retrieval.catalog.types import Binding
from retrieval.errors import NotFoundError
from retrieval.types import Embedding, Keys


class Stagings(Store):
    """The encoder being filled up, and views of the catalog by the vectors of one encoder."""

    def begin_staging(self, binding: Binding) -> None:
        """Fill up another encoder beside the gallery's; what it has already, from a run before, stays.

        UsageError for the gallery's own encoder, ConflictError while another one is being filled up.
        """
        with self.database.write() as connection:
            staging.begin(connection, binding)

    def staged(self) -> Binding | None:
        """The encoder that is being filled up, if one is."""
        with self.database.read() as connection:
            bound = staging.staged(connection)
        return bound.binding if bound else None

    def by(self, fingerprint: str) -> Self:
        """This catalog with the vectors of that encoder. Shares the database: not to be closed, nor written through.

        NotFoundError when nothing was ever embedded with it.
        """
        with self.database.read() as connection:
            bound = staging.of_fingerprint(connection, fingerprint)
        if bound is None:
            raise NotFoundError(f"Nothing in this gallery was embedded with {fingerprint}.")
        view = type(self)(self.database)
        view._bound = bound
        return view

    def lacking(self, after: int, limit: int) -> Keys:
        """Keys > ``after`` of cases that have no vector by this view's encoder, ascending, at most ``limit``."""
        bound = self._need_bound()
        with self.database.read() as connection:
            return staging.page_of_lacking(connection, bound, after, limit)

    def count_lacking(self) -> int:
        """Cases that have no vector by this view's encoder."""
        bound = self._need_bound()
        with self.database.read() as connection:
            return staging.count_lacking(connection, bound)

    def stage(self, made: Sequence[tuple[int, Embedding]], fingerprint: str) -> None:
        """Store vectors by the encoder being filled up, by key, in one durable transaction.

        ConflictError when it is not, or no longer, being filled up.
        """
        with self.database.write() as connection:
            staging.store(connection, fingerprint, made)

    def discard_others(self) -> None:
        """Drop all vectors but the gallery's own: of an unfinished rebuild, and those kept for a rollback."""
        with self.database.write() as connection:
            staging.forget_others(connection)
        self.purge()

    def purge(self) -> None:
        """Remove vectors that nothing names any more, a few at a time, so that writers get their turn."""
        with self.database.read() as connection:
            orphans = staging.orphaned_encoders(connection)
        for encoder_id in orphans:
            last = 0
            while True:
                with self.database.write() as connection:
                    last = staging.purge_some(connection, encoder_id, last)
                if not last:
                    break
