"""Writing cases. Every function works inside a write transaction that the caller opened (``Database.write``)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Connection, Table, delete, func, insert, select, update

from retrieval.catalog.reads import chunks, read_case, read_cases
from retrieval.catalog.rows import (
    attribute_columns,
    case_columns,
    embedding_columns,
    file_columns,
    label_columns,
    pack_frames,
)
from retrieval.catalog.types import Outcome
from retrieval.database import now
from retrieval.schema import (
    cases,
    embeddings,
    files,
    frames,
    gallery,
    labels,
    reports,
    slices,
    thumbnails,
    tombstones,
)
from retrieval.storable import clean
from retrieval.types import Attributes, Case, CaseFile, EmbeddedCase, Label


@dataclass(frozen=True, slots=True)
class Stored:
    """What a new arrival is compared with."""

    key: int
    content_sha256: str
    files: frozenset[str]


def commit_cases(
    connection: Connection, encoder_id: int, batch: Sequence[EmbeddedCase], *, replace: bool
) -> list[Outcome]:
    """One outcome per case, in order. The cases' shapes have been checked."""
    outcomes: list[Outcome] = []
    for part in _distinct(batch):
        outcomes += _commit_part(connection, encoder_id, part, replace)
    return outcomes


def _distinct(batch: Sequence[EmbeddedCase]) -> Iterator[list[EmbeddedCase]]:
    """Cut the batch so that no part names a case twice: the second must see what the first left."""
    part: dict[str, EmbeddedCase] = {}
    for embedded in batch:
        if embedded.case.case_id in part or len(part) == 1000:
            yield list(part.values())
            part = {}
        part[embedded.case.case_id] = embedded
    if part:
        yield list(part.values())


def _commit_part(connection: Connection, encoder_id: int, part: Sequence[EmbeddedCase], replace: bool) -> list[Outcome]:
    stored = _stored(connection, [embedded.case.case_id for embedded in part])
    same = [e for e in part if (s := stored.get(e.case.case_id)) and s.content_sha256 == e.case.content_sha256]
    outcomes = {o.case_id: o for o in _refresh(connection, [e.case for e in same], stored)}
    fresh: list[EmbeddedCase] = []
    for embedded in part:
        case_id = embedded.case.case_id
        if case_id in outcomes:
            continue
        old = stored.get(case_id)
        if old is None or replace or _has_grown(old, embedded):
            fresh.append(embedded)
        else:
            outcomes[case_id] = _conflict(embedded.case, old)
    replaced = [stored[e.case.case_id].key for e in fresh if e.case.case_id in stored]
    absorbed = [key for e in fresh for key in _absorbed(connection, e)]
    delete_keys(connection, sorted({*replaced, *absorbed}))
    for outcome in _insert(connection, encoder_id, fresh, stored):
        outcomes[outcome.case_id] = outcome
    return [outcomes[embedded.case.case_id] for embedded in part]


def _absorbed(connection: Connection, new: EmbeddedCase) -> list[int]:
    """Cases on file that are only a part of this volume: a slice indexed alone, pieces of a stack whose gap was filled.

    Told by their files, so only where every file is one frame.
    """
    if len(new.files) < 2 or len(new.files) != len(new.case.frames):
        return []
    shas = {file.sha256 for file in new.files}
    found: dict[int, set[str]] = defaultdict(set)
    for part in chunks(sorted(shas)):
        touched = select(files.c.key).where(files.c.sha256.in_(part))
        for key, sha256 in connection.execute(select(files.c.key, files.c.sha256).where(files.c.key.in_(touched))):
            found[key].add(sha256)
    inside = [key for key, of_case in found.items() if of_case < shas]
    return [case.key for case in read_cases(connection, inside).values() if len(case.frames) == len(found[case.key])]


def _stored(connection: Connection, case_ids: Sequence[str]) -> dict[str, Stored]:
    rows = connection.execute(
        select(cases.c.key, cases.c.case_id, cases.c.content_sha256).where(cases.c.case_id.in_(case_ids))
    ).all()
    if not rows:
        return {}
    hashes: dict[int, set[str]] = defaultdict(set)
    keys = [row.key for row in rows]
    for key, sha256 in connection.execute(select(files.c.key, files.c.sha256).where(files.c.key.in_(keys))):
        hashes[key].add(sha256)
    return {row.case_id: Stored(row.key, row.content_sha256, frozenset(hashes[row.key])) for row in rows}


def _has_grown(old: Stored, new: EmbeddedCase) -> bool:
    """A series whose stored files are all there again, with others: more of it has arrived."""
    return bool(old.files) and old.files <= {file.sha256 for file in new.files}


def _conflict(case: Case, old: Stored) -> Outcome:
    reason = (
        f"Case {case.case_id} is on file with other content. Nothing was changed: if these are further parts of it, "
        "index all its parts together in one command; to put the new content in its place, ask for replace: "
        f"sha256 {old.content_sha256} is on file, {case.content_sha256} is not."
    )
    return Outcome(case.case_id, "conflict", old.key, reason=reason)


def _refresh(connection: Connection, same: Sequence[Case], stored: dict[str, Stored]) -> Iterator[Outcome]:
    """Cases whose files are unchanged: take over labels, report, attributes and patient where those differ."""
    on_file = read_cases(connection, [stored[case.case_id].key for case in same])
    for case in same:
        old = on_file[stored[case.case_id].key]
        patient_key = clean(case.patient_key) or old.patient_key  # an id that was not given does not undo the link
        if _facts(case, patient_key) == _facts(old, old.patient_key):
            yield Outcome(case.case_id, "unchanged", old.key, old.duplicate_of)
            continue
        write_facts(connection, old.key, case.attributes, case.labels, case.report, patient_key)
        yield Outcome(case.case_id, "updated", old.key, old.duplicate_of)


def _facts(case: Case, patient_key: str) -> tuple[Any, ...]:
    named = {(row["name"], row["value"], row["number"]) for row in label_columns(case.labels, 0)}
    return attribute_columns(case.attributes), named, clean(case.report), patient_key


def _insert(
    connection: Connection, encoder_id: int, fresh: Sequence[EmbeddedCase], stored: dict[str, Stored]
) -> list[Outcome]:
    if not fresh:
        return []
    outcomes: list[Outcome] = []
    originals = _originals(connection, [e.case.pixel_sha256 for e in fresh])
    last = _count_up(connection, gallery.c.last_key, len(fresh))
    at = now()
    rows: dict[Table, list[dict[str, Any]]] = defaultdict(list)
    for key, embedded in enumerate(fresh, start=last - len(fresh) + 1):
        case = embedded.case
        duplicate_of = originals.setdefault(case.pixel_sha256, case.case_id) if case.pixel_sha256 else case.case_id
        duplicate_of = "" if duplicate_of == case.case_id else duplicate_of
        rows[cases].append(case_columns(case, key, duplicate_of, at))
        _append_parts(rows, embedded, key, encoder_id)
        outcomes.append(Outcome(case.case_id, "updated" if case.case_id in stored else "added", key, duplicate_of))
    for table, values in rows.items():
        if values:
            connection.execute(insert(table), values)
    return outcomes


def _append_parts(rows: dict[Table, list[dict[str, Any]]], embedded: EmbeddedCase, key: int, encoder_id: int) -> None:
    case = embedded.case
    vector, matrix = embedding_columns(embedded.embedding, key, encoder_id)
    rows[embeddings].append(vector)
    rows[slices].append(matrix)
    rows[labels] += label_columns(case.labels, key)
    rows[files] += file_columns(embedded.files, key)
    if case.frames:
        rows[frames].append({"key": key, "packed": pack_frames(case.frames)})
    if case.report:
        rows[reports].append({"key": key, "text": clean(case.report)})
    if embedded.thumbnail:
        rows[thumbnails].append({"key": key, "jpeg": embedded.thumbnail})


def _originals(connection: Connection, pixel_sha256s: Sequence[str]) -> dict[str, str]:
    """For each pixel hash on file, the id of the oldest case that has it."""
    found: dict[str, str] = {}
    wanted = sorted({sha256 for sha256 in pixel_sha256s if sha256})
    for part in chunks(wanted):
        oldest = select(func.min(cases.c.key)).where(cases.c.pixel_sha256.in_(part)).group_by(cases.c.pixel_sha256)
        rows = connection.execute(select(cases.c.pixel_sha256, cases.c.case_id).where(cases.c.key.in_(oldest)))
        found.update((row[0], row[1]) for row in rows)
    return found


def _count_up(connection: Connection, counter: Column[int], by: int) -> int:
    """Raise a counter of ``gallery``, whose row only the holder of the writer lock changes; its new value."""
    value: int = connection.execute(update(gallery).values({counter: counter + by}).returning(counter)).scalar_one()
    return value


def write_facts(
    connection: Connection,
    key: int,
    attributes: Attributes | None,
    new_labels: Sequence[Label] | None,
    report: str | None,
    patient_key: str | None,
) -> None:
    """Replace what is not None."""
    if attributes is not None:
        connection.execute(update(cases).where(cases.c.key == key).values(attribute_columns(attributes)))
    if new_labels is not None:
        connection.execute(delete(labels).where(labels.c.key == key))
        if rows := label_columns(new_labels, key):
            connection.execute(insert(labels), rows)
    if report is not None:
        connection.execute(delete(reports).where(reports.c.key == key))
        if report:
            connection.execute(insert(reports), {"key": key, "text": clean(report)})
    if patient_key is not None:
        connection.execute(update(cases).where(cases.c.key == key).values(patient_key=clean(patient_key)))
    _count_up(connection, gallery.c.last_edit, 1)


def update_case(
    connection: Connection,
    case_id: str,
    attributes: Attributes | None,
    new_labels: Sequence[Label] | None,
    report: str | None,
    patient_key: str | None,
) -> Case:
    write_facts(connection, read_case(connection, case_id).key, attributes, new_labels, report, patient_key)
    return read_case(connection, case_id)


def move_files(connection: Connection, case_id: str, moved: Sequence[CaseFile]) -> None:
    key = read_case(connection, case_id).key
    for n, file in enumerate(moved):
        same = (files.c.key == key) & (files.c.n == n) & (files.c.sha256 == file.sha256)
        connection.execute(update(files).where(same).values(sealed_path=file.sealed_path))


def delete_keys(connection: Connection, keys: Sequence[int]) -> None:
    """Remove cases with all that hangs on them (foreign keys cascade), and leave a tombstone each."""
    if not keys:
        return
    first = _count_up(connection, gallery.c.last_tombstone, len(keys)) - len(keys) + 1
    at = now()
    connection.execute(
        insert(tombstones), [{"seq": seq, "key": key, "at": at} for seq, key in enumerate(keys, start=first)]
    )
    for part in chunks(keys):
        gone = connection.scalars(delete(cases).where(cases.c.key.in_(part)).returning(cases.c.case_id)).all()
        _adopt(connection, gone)


def _adopt(connection: Connection, gone: Sequence[str]) -> None:
    """Cases that were duplicates of a deleted one: the oldest becomes the original of the others."""
    rows = connection.execute(
        select(cases.c.key, cases.c.case_id, cases.c.duplicate_of)
        .where(cases.c.duplicate_of.in_(gone))
        .order_by(cases.c.key)
    ).all()
    heirs: dict[str, str] = {}
    for row in rows:
        heir = heirs.setdefault(row.duplicate_of, row.case_id)
        value = "" if heir == row.case_id else heir
        connection.execute(update(cases).where(cases.c.key == row.key).values(duplicate_of=value))
