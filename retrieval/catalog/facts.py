"""What is told of many cases at once, without their reports, labels and frames. In a transaction of the caller."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from retrieval.catalog.patients import canonical
from retrieval.catalog.reads import chunks
from retrieval.schema import cases
from retrieval.types import Keys


@dataclass(frozen=True, slots=True)
class CaseFacts:
    """A row of the catalog in short. ``patient``: one pseudonym per patient; "" or None: unknown."""

    key: int
    case_id: str
    patient: str
    study_uid: str
    duplicate_of: str
    modality: str
    body_part: str
    sex: str
    age: float | None
    source: str
    created_at: str


def read_facts(connection: Connection, keys: Keys) -> dict[int, CaseFacts]:
    """Of those keys that exist."""
    columns = (
        cases.c.key, cases.c.case_id, cases.c.patient_key, cases.c.study_uid, cases.c.duplicate_of, cases.c.modality,
        cases.c.body_part, cases.c.sex, cases.c.age, cases.c.source, cases.c.created_at,
    )  # fmt: skip
    rows = [
        row
        for part in chunks(keys.tolist())
        for row in connection.execute(select(*columns).where(cases.c.key.in_(part)))
    ]
    one: dict[str, str] = {}
    for named in chunks(sorted({row.patient_key for row in rows})):
        one |= canonical(connection, named)
    return {row.key: CaseFacts(row.key, row.case_id, one[row.patient_key], *row[3:]) for row in rows}
