"""Embeddings by another encoder beside those that are searched, until one commit puts them in their place.

``embeddings`` and ``slices`` are keyed by case and encoder, so the new ones lie beside the old: nothing is copied, what
is deleted goes from both, and what a killed run had stored is simply there. ``gallery.staged_encoder_id`` says which
encoder is being filled up. Works inside a transaction of the caller.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Select, and_, delete, exists, func, insert, select, union, update

from retrieval.catalog.reads import as_keys, chunks
from retrieval.catalog.rows import embedding_columns
from retrieval.catalog.types import Binding
from retrieval.catalog.vectors import Bound, need_bound
from retrieval.database import now
from retrieval.errors import ConflictError, UsageError
from retrieval.schema import adapters, cases, embeddings, encoders, gallery, generations, slices
from retrieval.types import Embedding, Keys

PURGED = 2000  # vectors removed in one transaction: writers wait no longer than that takes


def encoder_row(connection: Connection, binding: Binding) -> int:
    """The id its vectors are filed under; made when it is new."""
    known = connection.scalar(select(encoders.c.id).where(encoders.c.fingerprint == binding.fingerprint))
    if known is not None:
        return int(known)
    row = {
        "fingerprint": binding.fingerprint,
        "encoder": binding.encoder,
        "dim": binding.dim,
        "pooling": binding.pooling,
        "card_json": binding.card_json,
        "created_at": now(),
    }
    return int(connection.execute(insert(encoders).returning(encoders.c.id), row).scalar_one())


def of_fingerprint(connection: Connection, fingerprint: str) -> Bound | None:
    """An encoder that vectors are, or were, filed under."""
    row = connection.execute(select(encoders).where(encoders.c.fingerprint == fingerprint)).first()
    return Bound(row.id, Binding(row.fingerprint, row.encoder, row.dim, row.pooling, row.card_json)) if row else None


def staged(connection: Connection) -> Bound | None:
    """The encoder that is being filled up, if one is."""
    statement = select(encoders.c.fingerprint).join(gallery, gallery.c.staged_encoder_id == encoders.c.id)
    fingerprint = connection.scalar(statement)
    return None if fingerprint is None else of_fingerprint(connection, fingerprint)


def begin(connection: Connection, binding: Binding) -> None:
    """Fill up this encoder from now on; the same again is fine. ConflictError while another one is."""
    if need_bound(connection).binding.fingerprint == binding.fingerprint:
        raise UsageError(f"The gallery is embedded with {binding.fingerprint} already: there is nothing to embed anew.")
    other = staged(connection)
    if other is not None and other.binding.fingerprint != binding.fingerprint:
        raise ConflictError(
            f"A rebuild with {other.binding.encoder} ({other.binding.fingerprint}) was begun and has not ended: finish "
            "it with the same command, or drop what it has embedded with precedent rebuild --discard."
        )
    connection.execute(update(gallery).values(staged_encoder_id=encoder_row(connection, binding)))


def lacking(bound: Bound) -> Select[tuple[int]]:
    """Keys of the cases without a vector by this encoder."""
    row = exists().where(embeddings.c.key == cases.c.key, embeddings.c.encoder_id == bound.encoder_id)
    return select(cases.c.key).where(~row)


def page_of_lacking(connection: Connection, bound: Bound, after: int, limit: int) -> Keys:
    """The first ``limit`` of them with a greater key, ascending."""
    statement = lacking(bound).where(cases.c.key > after).order_by(cases.c.key).limit(limit)
    return as_keys(connection.scalars(statement))


def count_lacking(connection: Connection, bound: Bound) -> int:
    return connection.scalar(select(func.count()).select_from(lacking(bound).subquery())) or 0


def store(connection: Connection, fingerprint: str, made: Sequence[tuple[int, Embedding]]) -> None:
    """Vectors of cases by key; of those that were deleted meanwhile, or have one, nothing is stored."""
    bound = staged(connection)
    if bound is None or bound.binding.fingerprint != fingerprint:
        raise ConflictError(f"The rebuild with {fingerprint} was ended by another process: start it again.")
    wanting: set[int] = set()
    for part in chunks([key for key, _ in made]):
        wanting.update(connection.scalars(lacking(bound).where(cases.c.key.in_(part))))
    rows = [embedding_columns(embedding, key, bound.encoder_id) for key, embedding in made if key in wanting]
    if rows:
        connection.execute(insert(embeddings), [vector for vector, _ in rows])
        connection.execute(insert(slices), [matrix for _, matrix in rows])


def forget_others(connection: Connection) -> None:
    """Give up what is being filled up, and every generation of another encoder than the gallery's."""
    encoder_id = need_bound(connection).encoder_id
    connection.execute(update(gallery).values(staged_encoder_id=None))
    connection.execute(delete(generations).where(generations.c.encoder_id != encoder_id))


def orphaned_encoders(connection: Connection) -> list[int]:
    """Encoders that are neither the gallery's nor being filled up, and that no generation on file is made of."""
    named = union(
        select(gallery.c.encoder_id).where(gallery.c.encoder_id.is_not(None)),
        select(gallery.c.staged_encoder_id).where(gallery.c.staged_encoder_id.is_not(None)),
        select(generations.c.encoder_id),
    )
    return list(connection.scalars(select(encoders.c.id).where(encoders.c.id.not_in(named)).order_by(encoders.c.id)))


def purge_some(connection: Connection, encoder_id: int, after: int) -> int:
    """Remove the next vectors of an orphaned encoder; the last key they had, or 0 when there were none."""
    if encoder_id not in orphaned_encoders(connection):
        return 0
    statement = select(embeddings.c.key).where(embeddings.c.encoder_id == encoder_id, embeddings.c.key > after)
    last = connection.scalar(select(func.max(statement.order_by(embeddings.c.key).limit(PURGED).subquery().c.key)))
    if last is None:
        of_adapter = exists().where(adapters.c.encoder_id == encoders.c.id)  # which may come to use again
        connection.execute(delete(encoders).where(encoders.c.id == encoder_id, ~of_adapter))
        return 0
    for table in (embeddings, slices):
        mine = and_(table.c.encoder_id == encoder_id, table.c.key > after, table.c.key <= last)
        connection.execute(delete(table).where(mine))
    return int(last)
