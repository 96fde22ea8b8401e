"""Adapters on file: metric heads with their names, and what ties the cases that they are learned from.

Works inside a transaction of the caller.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, insert, select

from retrieval.adapters.head import MetricHead
from retrieval.adapters.split import Linked
from retrieval.catalog.patients import canonical
from retrieval.catalog.reads import chunks
from retrieval.catalog.types import AdapterRow
from retrieval.catalog.vectors import Bound
from retrieval.database import now
from retrieval.errors import ConflictError, FingerprintMismatch, NotFoundError, StoreError
from retrieval.schema import adapters, cases, gallery, generations
from retrieval.types import Keys


def save(connection: Connection, bound: Bound, name: str, head: MetricHead, label: str, report_json: str) -> str:
    """The name it is on file under: the very same head is kept once. ConflictError when the name is another's."""
    if head.base != bound.binding.fingerprint:
        fix = "Learn one on this gallery with precedent adapt."
        raise FingerprintMismatch(bound.binding.fingerprint, f"an adapter of {head.base}", fix)
    known = connection.scalar(select(adapters.c.name).where(adapters.c.sha256 == head.sha256))
    if known is not None:
        return str(known)
    if connection.scalar(select(adapters.c.id).where(adapters.c.name == name)) is not None:
        raise ConflictError(f"There is another adapter '{name}' already: choose another --name.")
    row = {
        "name": name,
        "sha256": head.sha256,
        "encoder_id": bound.encoder_id,
        "label": label,
        "head": head.to_bytes(),
        "report_json": report_json,
        "created_at": now(),
    }
    connection.execute(insert(adapters), row)
    return name


def listed(connection: Connection) -> list[AdapterRow]:
    """Oldest first."""
    columns = [column for column in adapters.c if column.name != "head"]
    live = connection.scalar(
        select(generations.c.adapter_id).join(gallery, gallery.c.generation_id == generations.c.id)
    )
    rows = connection.execute(select(*columns).order_by(adapters.c.id))
    return [_row(row, live) for row in rows]


def head(connection: Connection, sha256: str) -> MetricHead:
    """NotFoundError when there is none of that hash; StoreError when its bytes are damaged, with the way out."""
    row = connection.execute(select(adapters.c.name, adapters.c.head).where(adapters.c.sha256 == sha256)).first()
    if row is None:
        raise NotFoundError(f"There is no adapter {sha256[:12]} in this gallery: see precedent adapt --list.")
    try:
        return MetricHead.parse(bytes(row.head), sha256)
    except StoreError as error:
        raise StoreError(
            f"The adapter '{row.name}' can't be used. {error} Go back to the vectors of the encoder with "
            "precedent adapt --use none, or restore the database from your backup."
        ) from error


def links(connection: Connection, keys: Keys) -> list[Linked]:
    """For each key what ties its case to others, in order. Keys that are gone have ties to nothing."""
    wanted = keys.tolist()
    columns = (cases.c.key, cases.c.case_id, cases.c.patient_key, cases.c.study_uid, cases.c.duplicate_of)
    found = {
        row.key: row
        for part in chunks(wanted)
        for row in connection.execute(select(*columns).where(cases.c.key.in_(part)))
    }
    one = canonical(connection, (row.patient_key for row in found.values()))
    return [
        Linked(row.case_id, one[row.patient_key], row.study_uid, row.duplicate_of)
        if (row := found.get(key))
        else Linked("")
        for key in wanted
    ]


def _row(row: Row[Any], live: int | None) -> AdapterRow:
    return AdapterRow(
        name=row.name,
        sha256=row.sha256,
        label=row.label,
        report_json=row.report_json,
        created_at=row.created_at,
        live=row.id == live,
    )
