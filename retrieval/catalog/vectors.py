"""Reading embeddings: the bulk replay of an index, and single cases. Works inside a transaction of the caller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Row, Select, bindparam, select

from retrieval.catalog.reads import CHUNK, as_keys, chunks
from retrieval.catalog.rows import slices_of, stack, stored_slices_of
from retrieval.catalog.types import Binding
from retrieval.errors import NotFoundError, StoreError
from retrieval.schema import cases, embeddings, encoders, gallery, slices, tombstones
from retrieval.types import Embedding, Keys, UnitRows

EMBEDDING: Select[Any] = (
    select(cases.c.key, embeddings.c.vector, slices.c.length, slices.c.frames, slices.c.vectors)
    .outerjoin(embeddings, (embeddings.c.key == cases.c.key) & (embeddings.c.encoder_id == bindparam("encoder_id")))
    .outerjoin(slices, (slices.c.key == cases.c.key) & (slices.c.encoder_id == bindparam("encoder_id")))
    .where(cases.c.case_id == bindparam("case_id"))
)


@dataclass(frozen=True, slots=True)
class Bound:
    """The gallery's encoder as it is stored. ``encoder_id`` is what its vectors are filed under."""

    encoder_id: int
    binding: Binding


def bound_encoder(connection: Connection) -> Bound | None:
    row = connection.execute(select(encoders).join(gallery, gallery.c.encoder_id == encoders.c.id)).first()
    if row is None:
        return None
    return Bound(row.id, Binding(row.fingerprint, row.encoder, row.dim, row.pooling, row.card_json))


def need_bound(connection: Connection) -> Bound:
    bound = bound_encoder(connection)
    if bound is None:
        raise StoreError("This gallery is not bound to an encoder yet: run precedent index first.")
    return bound


def read_vectors(connection: Connection, bound: Bound, after: int, upto: int, limit: int) -> tuple[Keys, UnitRows]:
    """The first ``limit`` vectors with after < key <= upto, by ascending key."""
    statement = (
        select(embeddings.c.key, embeddings.c.vector)
        .where(embeddings.c.encoder_id == bound.encoder_id, embeddings.c.key > after, embeddings.c.key <= upto)
        .order_by(embeddings.c.key)
        .limit(limit)
    )
    return _stacked(_rows(connection, statement), bound)


def read_sample(connection: Connection, bound: Bound, n: int) -> UnitRows:
    """At most n vectors, chosen by the hash of their content: as good as random, and the same on every call."""
    chosen = connection.scalars(select(cases.c.key).order_by(cases.c.content_sha256, cases.c.case_id).limit(n)).all()
    found: dict[int, bytes] = {}
    for part in chunks(chosen):  # not a join: the first step is then answered by an index, whatever the planner thinks
        statement = select(embeddings.c.key, embeddings.c.vector).where(
            embeddings.c.encoder_id == bound.encoder_id, embeddings.c.key.in_(part)
        )
        found.update((row[0], row[1]) for row in _rows(connection, statement))
    keys = [key for key in chosen if key in found]
    return stack(as_keys(keys), [found[key] for key in keys], bound.binding.dim)


def read_vectors_of(connection: Connection, bound: Bound, keys: Keys) -> tuple[Keys, UnitRows]:
    """The vectors of those keys that have one, in the order of the keys."""
    found: dict[int, bytes] = {}
    for part in chunks(keys.tolist()):
        statement = select(embeddings.c.key, embeddings.c.vector).where(
            embeddings.c.encoder_id == bound.encoder_id, embeddings.c.key.in_(part)
        )
        found.update((row[0], row[1]) for row in _rows(connection, statement))
    held = as_keys(key for key in keys.tolist() if key in found)
    return held, stack(held, [found[key] for key in held.tolist()], bound.binding.dim)


def read_tombstones(connection: Connection, after: int) -> tuple[Keys, Keys]:
    statement = select(tombstones.c.seq, tombstones.c.key).where(tombstones.c.seq > after).order_by(tombstones.c.seq)
    rows = _rows(connection, statement)
    return as_keys(row[0] for row in rows), as_keys(row[1] for row in rows)


def read_embedding(connection: Connection, bound: Bound, case_id: str) -> tuple[int, Embedding]:
    made = {"case_id": case_id, "encoder_id": bound.encoder_id}
    row = connection.execute(EMBEDDING, made, execution_options={"precedent_binary": True}).first()
    if row is None:
        raise NotFoundError(f"No case {case_id} in this gallery: expected the id of a case on file.")
    if row.vector is None or row.vectors is None:
        raise StoreError(f"Case {case_id} has no embedding by {bound.binding.fingerprint}: run precedent verify.")
    dim = bound.binding.dim
    return row.key, Embedding(stack(as_keys([row.key]), [row.vector], dim)[0], *slices_of(row, dim))


def read_slices(connection: Connection, bound: Bound, keys: Keys) -> dict[int, tuple[UnitRows, tuple[int, ...]]]:
    found = {}
    for part in chunks(keys.tolist(), CHUNK):
        statement = select(slices).where(slices.c.key.in_(part), slices.c.encoder_id == bound.encoder_id)
        for row in _rows(connection, statement):
            found[int(row.key)] = slices_of(row, bound.binding.dim)
    return {key: found[key] for key in keys.tolist() if key in found}


def read_stored_slices(
    connection: Connection, bound: Bound, keys: Keys
) -> dict[int, tuple[npt.NDArray[np.float16], tuple[int, ...]]]:
    found = {}
    for part in chunks(keys.tolist(), CHUNK):
        statement = select(slices).where(slices.c.key.in_(part), slices.c.encoder_id == bound.encoder_id)
        for row in _rows(connection, statement):
            found[int(row.key)] = stored_slices_of(row, bound.binding.dim)
    return found


def _rows(connection: Connection, statement: Select[Any]) -> list[Row[*tuple[Any, ...]]]:
    return list(connection.execute(statement, execution_options={"precedent_binary": True}).all())


def _stacked(rows: list[Row[*tuple[Any, ...]]], bound: Bound) -> tuple[Keys, UnitRows]:
    keys = as_keys(row[0] for row in rows)
    return keys, stack(keys, [row[1] for row in rows], bound.binding.dim)
