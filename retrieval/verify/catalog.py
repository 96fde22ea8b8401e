"""Does the database agree with itself? Read through its tables, because what is damaged can't be read otherwise."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from sqlalchemy import ColumnElement, Connection, Select, Table, exists, func, or_, select

from retrieval.catalog.rows import FLOAT16, FLOAT32, INT32
from retrieval.catalog.vectors import Bound
from retrieval.database import Database
from retrieval.indexes.rows import UNIT_TOLERANCE
from retrieval.schema import (
    cases,
    embeddings,
    encoders,
    files,
    frames,
    gallery,
    labels,
    reports,
    slices,
    thumbnails,
    tombstones,
)
from retrieval.types import Keys, UnitRows

PARTS: tuple[Table, ...] = (frames, embeddings, slices, labels, reports, files, thumbnails)  # each has a case's key
BATCH = 4096


def dangling(table: Table) -> Select[tuple[int]]:
    """Keys of rows that belong to no case."""
    return select(table.c.key).where(~exists().where(cases.c.key == table.c.key))


def undeleted() -> Select[tuple[int]]:
    """Keys of cases that are there although a tombstone says they were deleted."""
    return select(cases.c.key).join(tombstones, tombstones.c.key == cases.c.key)


def without(table: Table, bound: Bound) -> Select[tuple[int]]:
    """Keys of cases that lack their row of ``embeddings`` or ``slices``."""
    row = exists().where(table.c.key == cases.c.key, table.c.encoder_id == bound.encoder_id)
    return select(cases.c.key).where(~row)


def unfit_slices(bound: Bound) -> Select[tuple[int]]:
    """Keys whose slice matrix has not the length that its shape asks for."""
    return select(slices.c.key).where(
        slices.c.encoder_id == bound.encoder_id,
        or_(
            slices.c.length < 1,
            func.length(slices.c.vectors) != slices.c.length * bound.binding.dim * FLOAT16.itemsize,
            func.length(slices.c.frames).not_in([0, slices.c.length * INT32.itemsize]),
        ),
    )


def of_unknown_encoder() -> ColumnElement[bool]:
    """Holds for vectors filed under an encoder that is not on file."""
    return ~exists().where(encoders.c.id == embeddings.c.encoder_id)


def late_counters(connection: Connection) -> int:
    """How many of the two counters are behind what they have given out."""
    key, tombstone = connection.execute(select(gallery.c.last_key, gallery.c.last_tombstone)).one()
    seen = [
        connection.scalar(select(func.coalesce(func.max(column), 0)))
        for column in (cases.c.key, tombstones.c.key, tombstones.c.seq)
    ]
    return int(key < max(seen[0] or 0, seen[1] or 0)) + int(tombstone < (seen[2] or 0))


def stored_vectors(database: Database, bound: Bound) -> Iterator[tuple[Keys, UnitRows, Keys]]:
    """(keys, rows, keys of unfit rows) in batches by ascending key; an unfit row (wrong length, NaN, not unit) is left
    out of the first two."""
    after, width = 0, bound.binding.dim * FLOAT32.itemsize
    while True:
        statement = (
            select(embeddings.c.key, embeddings.c.vector)
            .where(embeddings.c.encoder_id == bound.encoder_id, embeddings.c.key > after)
            .order_by(embeddings.c.key)
            .limit(BATCH)
        )
        with database.read() as connection:
            found = connection.execute(statement, execution_options={"precedent_binary": True}).all()
        if not found:
            return
        after = found[-1][0]
        whole = [row for row in found if len(row[1]) == width]
        keys = np.array([row[0] for row in whole], np.int64)
        rows = np.frombuffer(b"".join(row[1] for row in whole), FLOAT32).reshape(len(whole), bound.binding.dim)
        fit = unit(rows)
        short = [row[0] for row in found if len(row[1]) != width]
        yield keys[fit], rows[fit], np.array(short + keys[~fit].tolist(), np.int64)


def unit(rows: UnitRows) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """For each row whether it is finite and of length 1. By the rule of ``retrieval.catalog.checks``."""
    with np.errstate(invalid="ignore", over="ignore"):
        norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
        fit: np.ndarray[tuple[int], np.dtype[np.bool_]] = np.abs(norms - 1.0) <= UNIT_TOLERANCE
    return fit
