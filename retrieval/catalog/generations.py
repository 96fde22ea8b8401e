"""Published indexes: which one is live is one column of one row, so a flip is one commit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from retrieval.catalog import staging
from retrieval.catalog.reads import chunks
from retrieval.catalog.types import GenerationRow
from retrieval.catalog.vectors import Bound, need_bound
from retrieval.catalog.writes import delete_keys
from retrieval.database import now
from retrieval.errors import ConflictError, NotFoundError, Unfinished
from retrieval.heads import Heads
from retrieval.schema import adapters, cases, encoders, gallery, generations
from retrieval.types import Keys

PUBLISHED = (
    select(generations, encoders.c.fingerprint, gallery.c.generation_id, adapters.c.sha256.label("adapter"))
    .join(encoders, encoders.c.id == generations.c.encoder_id)
    .outerjoin(adapters, adapters.c.id == generations.c.adapter_id)
)


HEADS = (
    select(
        gallery.c.last_key,
        gallery.c.last_tombstone,
        generations.c.name,
        generations.c.manifest_sha256,
        adapters.c.sha256,
        encoders.c.fingerprint,
        gallery.c.last_edit,
    )
    .outerjoin(encoders, encoders.c.id == gallery.c.encoder_id)
    .outerjoin(generations, generations.c.id == gallery.c.generation_id)
    .outerjoin(adapters, adapters.c.id == generations.c.adapter_id)
)


def read_heads(connection: Connection) -> Heads:
    last_key, last_tombstone, name, manifest, adapter, encoder, last_edit = connection.execute(HEADS).one()
    return Heads(last_key, last_tombstone, name or "", manifest or "", adapter or "", encoder or "", last_edit)


def read_generations(connection: Connection) -> list[GenerationRow]:
    """Oldest first."""
    rows = connection.execute(PUBLISHED.join(gallery, gallery.c.id == 1).order_by(generations.c.id))
    return [_row(row) for row in rows]


def publish(
    connection: Connection,
    name: str,
    manifest_sha256: str,
    last_key: int,
    last_tombstone: int,
    backend: str,
    count: int,
    adapter: str = "",
    report_json: str = "",
    fingerprint: str = "",
    dropping: Keys | None = None,
) -> None:
    """``fingerprint``: of the vectors it was made of, "" for the gallery's. That of the encoder being filled up makes
    it the gallery's in the same commit, once every case but ``dropping`` has a vector by it: those are deleted."""
    if connection.scalar(select(generations.c.id).where(generations.c.name == name)) is not None:
        raise ConflictError(f"There is a generation {name} already: expected a name that was never used.")
    adapter_id = connection.scalar(select(adapters.c.id).where(adapters.c.sha256 == adapter)) if adapter else None
    if adapter and adapter_id is None:
        raise NotFoundError(f"There is no adapter {adapter[:12]} in this gallery: see precedent adapt --list.")
    encoder_id = _encoder_to_be(connection, fingerprint, dropping)
    statement = insert(generations).values(
        name=name,
        encoder_id=encoder_id,
        adapter_id=adapter_id,
        backend=backend,
        manifest_sha256=manifest_sha256,
        last_key=last_key,
        last_tombstone=last_tombstone,
        size=count,
        created_at=now(),
        state="published",
        report_json=report_json or None,
    )
    generation_id = connection.execute(statement.returning(generations.c.id)).scalar_one()
    connection.execute(update(gallery).values(generation_id=generation_id))


def _encoder_to_be(connection: Connection, fingerprint: str, dropping: Keys | None) -> int:
    bound, staged = need_bound(connection), staging.staged(connection)
    if fingerprint in ("", bound.binding.fingerprint):
        return bound.encoder_id
    if staged is None or staged.binding.fingerprint != fingerprint:
        raise ConflictError(
            f"This generation is made of vectors by {fingerprint}; meanwhile the gallery was embedded anew, with "
            f"{bound.binding.fingerprint}: build another."
        )
    if dropping is not None:
        _drop_lacking(connection, staged, dropping)
    if late := staging.count_lacking(connection, staged):
        raise Unfinished(f"{late} cases have no vector by {fingerprint} yet: they came while the others were embedded.")
    connection.execute(update(gallery).values(encoder_id=staged.encoder_id, staged_encoder_id=None))
    return staged.encoder_id


def _drop_lacking(connection: Connection, staged: Bound, keys: Keys) -> None:
    for part in chunks(keys.tolist()):
        delete_keys(connection, list(connection.scalars(staging.lacking(staged).where(cases.c.key.in_(part)))))


def rollback(connection: Connection) -> GenerationRow:
    """Make the newest one live that was published before the live one and was not itself rolled back from.

    With it comes the encoder it was made with; ConflictError when cases have come since that it has no vector of.
    """
    live = connection.scalar(select(gallery.c.generation_id))
    before = (
        connection.scalar(
            select(generations.c.id)
            .where(generations.c.id < live, generations.c.state == "published")
            .order_by(generations.c.id.desc())
            .limit(1)
        )
        if live is not None
        else None
    )
    if before is None:
        raise NotFoundError("There is no earlier generation to go back to: it was never published or has been dropped.")
    connection.execute(update(generations).where(generations.c.id == live).values(state="rolled_back"))
    _bind_to_that_of(connection, before)
    connection.execute(update(gallery).values(generation_id=before))
    return next(row for row in read_generations(connection) if row.state == "live")


def _bind_to_that_of(connection: Connection, generation_id: int) -> None:
    encoder = connection.scalar(
        select(encoders.c.fingerprint)
        .join(generations, generations.c.encoder_id == encoders.c.id)
        .where(generations.c.id == generation_id)
    )
    bound, now_live = staging.of_fingerprint(connection, str(encoder)), need_bound(connection)
    if bound is None or bound == now_live:
        return
    if late := staging.count_lacking(connection, bound):
        raise ConflictError(
            f"{late} cases came after the gallery was embedded anew and have no vector by {encoder}: run precedent "
            f"rebuild --encoder {bound.binding.encoder}, which embeds just these and goes back."
        )
    connection.execute(update(gallery).values(encoder_id=bound.encoder_id))
    staged = gallery.c.staged_encoder_id == bound.encoder_id
    connection.execute(update(gallery).where(staged).values(staged_encoder_id=None))


def drop(connection: Connection, names: Sequence[str]) -> None:
    """Forget generations; names that are not there are ignored, the live one is refused."""
    live = read_heads(connection).generation
    if live and live in names:
        raise ConflictError(f"Generation {live} is live and can't be dropped: publish another or roll back first.")
    connection.execute(delete(generations).where(generations.c.name.in_(list(names))))


def _row(row: Row[Any]) -> GenerationRow:
    return GenerationRow(
        name=row.name,
        backend=row.backend,
        fingerprint=row.fingerprint,
        manifest_sha256=row.manifest_sha256,
        last_key=row.last_key,
        last_tombstone=row.last_tombstone,
        count=row.size,
        created_at=row.created_at,
        state="live" if row.id == row.generation_id else row.state,
        adapter=row.adapter or "",
        report_json=row.report_json or "",
    )
