"""Reading cases and what hangs on them. Every function works inside a transaction that the caller opened."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from sqlalchemy import ColumnElement, Connection, func, select

from retrieval.catalog.patients import canonical, same_patient
from retrieval.catalog.rows import case_of
from retrieval.catalog.types import Labelled
from retrieval.errors import NotFoundError, UsageError
from retrieval.filters import Filter, to_sql
from retrieval.schema import cases, files, frames, labels, reports, thumbnails
from retrieval.types import Case, CaseFile, GroupBy, Keys, Label

T = TypeVar("T")
CHUNK = 1000  # values in one IN list; SQLite takes at most 32,766 in a statement
CASE = (
    select(cases, func.coalesce(reports.c.text, "").label("report"), frames.c.packed)
    .outerjoin(reports, reports.c.key == cases.c.key)
    .outerjoin(frames, frames.c.key == cases.c.key)
)


def chunks(values: Sequence[T], size: int = CHUNK) -> Iterator[Sequence[T]]:
    """Consecutive parts of at most ``size``."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def read_case(connection: Connection, case_id: str) -> Case:
    found = read_where(connection, cases.c.case_id == case_id)
    if not found:
        raise NotFoundError(f"No case {case_id} in this gallery: expected the id of a case on file.")
    return found[0]


def read_cases(connection: Connection, keys: Iterable[int]) -> dict[int, Case]:
    """The cases of those keys that exist, in the order of the keys."""
    wanted = [int(key) for key in keys]
    found = {case.key: case for part in chunks(wanted) for case in read_where(connection, cases.c.key.in_(part))}
    return {key: found[key] for key in wanted if key in found}


def read_where(connection: Connection, where: ColumnElement[bool], limit: int | None = None) -> list[Case]:
    """Whole cases by ascending key."""
    rows = connection.execute(CASE.where(where).order_by(cases.c.key).limit(limit)).all()
    named = labels_of(connection, [row.key for row in rows])
    return [case_of(row, named.get(row.key, ()), row.report, row.packed or b"") for row in rows]


def labels_of(connection: Connection, keys: Sequence[int]) -> dict[int, list[Label]]:
    """By key, in the order they were given."""
    found: dict[int, list[Label]] = defaultdict(list)
    for part in chunks(keys):
        rows = connection.execute(select(labels).where(labels.c.key.in_(part)).order_by(labels.c.key, labels.c.n))
        for row in rows:
            found[row.key].append(Label(row.name, row.value, row.number))
    return found


def list_cases(connection: Connection, condition: Filter | None, after_key: int, limit: int) -> list[Case]:
    where = cases.c.key > after_key
    return read_where(connection, where if condition is None else where & to_sql(condition), limit)


def select_keys(connection: Connection, condition: Filter | None) -> Keys:
    statement = select(cases.c.key).order_by(cases.c.key)
    if condition is not None:
        statement = statement.where(to_sql(condition))
    return as_keys(row[0] for row in connection.execute(statement))


def first_key_since(connection: Connection, since: str) -> int:
    first = connection.scalar(select(func.min(cases.c.key)).where(cases.c.created_at >= since))
    return (connection.scalar(select(func.max(cases.c.key))) or 0) + 1 if first is None else int(first)


def keys_of_patient(connection: Connection, patient_key: str) -> Keys:
    """Sorted; empty for "", since cases of unknown patients have nothing in common."""
    if not patient_key:
        return as_keys(())
    known = same_patient(connection, patient_key)
    statement = select(cases.c.key).where(cases.c.patient_key.in_(known)).order_by(cases.c.key)
    return as_keys(connection.scalars(statement))


def keys_of_study(connection: Connection, study_uid: str) -> Keys:
    """Sorted; empty for ""."""
    if not study_uid:
        return as_keys(())
    return as_keys(connection.scalars(select(cases.c.key).where(cases.c.study_uid == study_uid).order_by(cases.c.key)))


def groups(connection: Connection, keys: Keys, by: GroupBy) -> list[str]:
    if by is GroupBy.NONE:
        return [""] * len(keys)
    column = cases.c.patient_key if by is GroupBy.PATIENT else cases.c.study_uid
    wanted = keys.tolist()
    found: dict[int, str] = {}
    for part in chunks(wanted):
        rows = connection.execute(select(cases.c.key, column).where(cases.c.key.in_(part)))
        found.update((row[0], row[1]) for row in rows)
    one = canonical(connection, found.values()) if by is GroupBy.PATIENT else {}
    return [one.get(group, group) for group in (found.get(key, "") for key in wanted)]


def thumbnail(connection: Connection, case_id: str) -> bytes:
    statement = select(cases.c.key, thumbnails.c.jpeg).outerjoin(thumbnails, thumbnails.c.key == cases.c.key)
    row = connection.execute(statement.where(cases.c.case_id == case_id)).first()
    if row is None or row.jpeg is None:
        what = f"case {case_id} in this gallery" if row is None else f"thumbnail for case {case_id}"
        raise NotFoundError(f"No {what}: expected the id of a case that was stored with one.")
    return bytes(row.jpeg)


def files_of(connection: Connection, case_id: str) -> tuple[CaseFile, ...]:
    key = connection.scalar(select(cases.c.key).where(cases.c.case_id == case_id))
    if key is None:
        raise NotFoundError(f"No case {case_id} in this gallery: expected the id of a case on file.")
    rows = connection.execute(select(files).where(files.c.key == key).order_by(files.c.n))
    return tuple(CaseFile(row.sha256, row.bytes, row.sealed_path) for row in rows)


def known_files(connection: Connection, sha256s: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for part in chunks(list(dict.fromkeys(sha256s))):
        statement = select(files.c.sha256, cases.c.case_id).join(cases, cases.c.key == files.c.key)
        for sha256, case_id in connection.execute(
            statement.where(files.c.sha256.in_(part)).order_by(cases.c.key, files.c.n)
        ):
            if case_id not in found[sha256]:
                found[sha256].append(case_id)
    return dict(found)


def content_of(connection: Connection, case_ids: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in chunks(list(case_ids)):
        rows = connection.execute(select(cases.c.case_id, cases.c.content_sha256).where(cases.c.case_id.in_(part)))
        found.update((row[0], row[1]) for row in rows)
    return found


def labelled(connection: Connection, name: str) -> Labelled:
    if not name:
        raise UsageError("Expected the name of a label, got nothing.")
    statement = (
        select(labels.c.key, cases.c.patient_key, labels.c.value, labels.c.number)
        .join(cases, cases.c.key == labels.c.key)
        .where(labels.c.name == name)
        .order_by(labels.c.key, labels.c.n)
    )
    by_key: dict[int, list[Any]] = defaultdict(list)
    for row in connection.execute(statement):
        by_key[row.key].append(row)
    one = canonical(connection, (rows[0].patient_key for rows in by_key.values()))
    return Labelled(
        keys=as_keys(by_key),
        patient_keys=[one[rows[0].patient_key] for rows in by_key.values()],
        values=[tuple(row.value for row in rows) for rows in by_key.values()],
        numbers=[next((row.number for row in rows if row.number is not None), None) for rows in by_key.values()],
    )


def as_keys(values: Iterable[int]) -> Keys:
    return np.fromiter(values, dtype=np.int64)
