"""What a gallery holds, in figures. Bounded: a label with a value of its own per case must not fill a page."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Connection, func, select

from retrieval.catalog.types import GalleryCounts, LabelCounts, ValueCounts
from retrieval.schema import cases, labels

MOST_VALUES = 100
MOST_LABELS = 100


def total(connection: Connection) -> int:
    return connection.scalar(select(func.count()).select_from(cases)) or 0


def counts(connection: Connection) -> GalleryCounts:
    return GalleryCounts(
        total=total(connection),
        kinds=_by(connection, cases.c.kind),
        modalities=_by(connection, cases.c.modality),
        body_parts=_by(connection, cases.c.body_part),
        sources=_by(connection, cases.c.source),
        labels=_labels(connection),
    )


def modalities(connection: Connection) -> ValueCounts:
    """How many cases there are of each, "" for those of an unknown one."""
    return _by(connection, cases.c.modality)


def _by(connection: Connection, column: Column[Any]) -> ValueCounts:
    size = func.count().label("size")
    rows = connection.execute(select(column, size).group_by(column).order_by(size.desc(), column).limit(MOST_VALUES))
    return tuple((row[0], row[1]) for row in rows)


def _labels(connection: Connection) -> tuple[LabelCounts, ...]:
    size = func.count(labels.c.key.distinct())
    names = connection.execute(
        select(labels.c.name, size, func.count(labels.c.value.distinct()))
        .group_by(labels.c.name)
        .order_by(size.desc(), labels.c.name)
        .limit(MOST_LABELS)
    ).all()
    return tuple(
        LabelCounts(name=row[0], cases=row[1], distinct=row[2], values=_values(connection, row[0])) for row in names
    )


def _values(connection: Connection, name: str) -> ValueCounts:
    size = func.count(labels.c.key.distinct())
    rows = connection.execute(
        select(labels.c.value, size)
        .where(labels.c.name == name)
        .group_by(labels.c.value)
        .order_by(size.desc(), labels.c.value)
        .limit(MOST_VALUES)
    )
    return tuple((row[0], row[1]) for row in rows)
