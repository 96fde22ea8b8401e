"""A gallery's database, opened, and the encoder it is bound to."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from sqlalchemy import update

from retrieval.catalog.staging import encoder_row
from retrieval.catalog.types import Binding
from retrieval.catalog.vectors import Bound, bound_encoder, need_bound
from retrieval.database import Database
from retrieval.errors import FingerprintMismatch
from retrieval.revisions import prepare
from retrieval.schema import gallery


class Store:
    """What every part of a catalog stands on. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._bound: Bound | None = None

    @classmethod
    def open(cls, url: str, create: bool = False) -> Self:
        """Open the gallery at a SQLite or PostgreSQL URL; an older one is upgraded, with ``create`` a missing one made.

        Raises StoreError when there is none, StoreTooNew when a newer Precedent wrote it, UsageError for another URL.
        """
        database = Database(url)
        try:
            prepare(database, create=create)
        except BaseException:
            database.close()
            raise
        return cls(database)

    def close(self) -> None:
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def one_state(self) -> AbstractContextManager[None]:
        """All that this thread reads of the catalog within is of one moment."""
        return self.database.one_state()

    def binding(self) -> Binding | None:
        """The encoder this gallery belongs to now, or None while it has none."""
        with self.database.read() as connection:
            bound = bound_encoder(connection)
        self._bound = self._bound or bound
        return bound.binding if bound else None

    def bind(self, binding: Binding) -> None:
        """Tie the gallery to an encoder. The first writer wins; FingerprintMismatch for any other after it."""
        with self.database.write() as connection:
            bound = bound_encoder(connection)
            if bound is None:
                encoder_id = encoder_row(connection, binding)
                connection.execute(update(gallery).values(encoder_id=encoder_id))
                bound = Bound(encoder_id, binding)
        check_fingerprint(bound.binding, binding.fingerprint)
        self._bound = self._bound or bound

    def embedded_with(self) -> Binding:
        """The encoder whose vectors this catalog reads; StoreError while there is none."""
        return self._need_bound().binding

    def _need_bound(self) -> Bound:
        """The encoder whose vectors are read: what the gallery was bound to when this was first asked.

        It stays that one when the gallery is embedded anew, so that whoever opened it never meets vectors of another.
        """
        if self._bound is None:
            with self.database.read() as connection:
                self._bound = need_bound(connection)
        return self._bound


def check_fingerprint(stored: Binding, offered: str) -> None:
    """FingerprintMismatch unless ``offered`` is what the gallery is bound to."""
    if stored.fingerprint != offered:
        fix = (
            f"Use the encoder it was made with ({stored.encoder}, pooling {stored.pooling}), or index into a new data "
            "directory with the other one."
        )
        raise FingerprintMismatch(stored.fingerprint, offered, fix)
