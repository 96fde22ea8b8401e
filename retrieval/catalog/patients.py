"""Who is the same patient. A header names one, a labels file may name another: both must lead to all the cases.

A header's id is trusted as a link when the labels files gave its cases at most one other id. Where they gave several (a
header that says ANONYMOUS for everybody), the header says nothing, and only the given ids count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable

from sqlalchemy import Connection, select

from retrieval.schema import cases

_ROUNDS = 4  # header to label to header to label: chains longer than this do not occur


def same_patient(connection: Connection, patient_key: str) -> set[str]:
    """All pseudonyms of the patient that this one belongs to, itself included; none for ""."""
    if not patient_key:
        return set()
    known = {patient_key}
    for _ in range(_ROUNDS):
        either = cases.c.patient_key.in_(known) | cases.c.header_patient_key.in_(known)
        headers = set(connection.scalars(select(cases.c.header_patient_key).where(either).distinct())) - {""}
        links = _links(connection, headers)
        found = known | {
            key for header, named in links.items() if ({header} | named) & known for key in {header} | named
        }
        if found == known:
            break
        known = found
    return known


def canonical(connection: Connection, patient_keys: Iterable[str]) -> dict[str, str]:
    """One pseudonym per patient: a header's own becomes the one that a labels file gave its cases, if it is one."""
    wanted = set(patient_keys) - {""}
    links = _links(connection, wanted)
    return {key: next(iter(links.get(key, {key}) - {key}), key) for key in wanted} | {"": ""}


def _links(connection: Connection, headers: Collection[str]) -> dict[str, set[str]]:
    """For each header's id that is a link: the ids its cases are filed under."""
    if not headers:
        return {}
    statement = select(cases.c.header_patient_key, cases.c.patient_key).distinct()
    filed: dict[str, set[str]] = defaultdict(set)
    for header, patient_key in connection.execute(statement.where(cases.c.header_patient_key.in_(headers))):
        filed[header].add(patient_key)
    return {header: keys - {""} for header, keys in filed.items() if len(keys - {header, ""}) <= 1}
