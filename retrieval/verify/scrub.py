"""Reads every stored byte of the database, slowly: what a disk has lost shows before it is needed.

``verify`` compares what the tables say; this asks whether their pages can be read and hang together, those of reports
and thumbnails included, which nothing else looks at.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field

from sqlalchemy import LargeBinary, Table, Text, func, select

from retrieval.database import Database
from retrieval.errors import StoreError, UsageError
from retrieval.schema import metadata
from retrieval.verify import Check

ROWS = 1000


@dataclass(slots=True)
class Pace:
    """Works for ``share`` of the time, from just above 0 to 1, and sleeps for the rest."""

    share: float = 1.0
    _since: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        if not 0.0 < self.share <= 1.0:
            raise UsageError(f"Expected a share of the time above 0 and up to 1, got {self.share:g}.")

    def rest(self) -> None:
        """To be called between small pieces of work."""
        worked = time.monotonic() - self._since
        if self.share < 1.0:
            time.sleep(worked * (1.0 - self.share) / self.share)
        self._since = time.monotonic()


def scrub_database(database: Database, pace: Pace) -> Check:
    """How many tables have pages that can't be read or are not what they should be."""
    damaged = [table.name for table in metadata.sorted_tables if not _is_sound(database, table, pace)]
    named = f" ({', '.join(damaged)}): restore them from a backup" if damaged else ""
    return Check("database-damaged", len(damaged), f"{len(damaged)} tables of the database are damaged{named}.")


def _is_sound(database: Database, table: Table, pace: Pace) -> bool:
    try:
        if database.is_sqlite:
            with database.read() as connection:
                found = connection.exec_driver_sql(f"PRAGMA integrity_check('{table.name}')").scalars().all()
            pace.rest()
            return found == ["ok"]
        _read(database, table, pace)
    except StoreError:
        with suppress(StoreError), database.read() as connection:
            connection.execute(select(1)).one()
            return False  # the database answers, but not for this table
        raise
    return True


def _read(database: Database, table: Table, pace: Pace) -> None:
    """The server reads every value whole for its hash, and checks each page of a cluster that has checksums."""
    whole = select(
        *(func.md5(column) if isinstance(column.type, (Text, LargeBinary)) else column for column in table.c)
    )
    with database.read() as connection:
        rows = connection.execution_options(stream_results=True, yield_per=ROWS).execute(whole)
        for _ in rows.partitions():
            pace.rest()
