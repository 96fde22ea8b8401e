"""Scans of a whole folder, put aside on disk until every file of every series has been seen.

A series may lie scattered over an archive, so it can be assembled only when the walk is over; keeping a million
headers in memory instead would make memory grow with the archive. SQLite's private temporary database vanishes with
the process, however it ends, and what it holds is sealed: raw patient ids and paths never reach the disk in clear.
"""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from indexer.sources import Scan
from retrieval.errors import StorageFull, StoreError
from retrieval.privacy import Secret


class Spool:
    """Append scans under a group key, then read them back group by group, in the order the groups were first seen."""

    def __init__(self, secret: Secret) -> None:
        self._secret = secret
        self._database = sqlite3.connect("")
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute("CREATE TABLE spool (n INTEGER PRIMARY KEY, part TEXT NOT NULL, scan BLOB NOT NULL)")
        self._database.execute("CREATE INDEX spool_part ON spool (part)")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def put(self, group: str, scan: Scan) -> None:
        """Keep one scan. StorageFull when the temporary folder has no space left."""
        sealed = self._secret.seal(pickle.dumps(scan))
        try:
            self._database.execute("INSERT INTO spool (part, scan) VALUES (?, ?)", (group, sealed))
        except sqlite3.Error as error:
            raise _translated(error) from error

    def groups(self) -> Iterator[list[Scan]]:
        """The scans of one group at a time."""
        for group, _ in self._rows("SELECT part, MIN(n) AS first FROM spool GROUP BY part ORDER BY first"):
            rows = self._rows("SELECT scan FROM spool WHERE part = ? ORDER BY n", group)
            yield [self._restore(sealed) for (sealed,) in rows]

    def _rows(self, statement: str, *values: object) -> Iterator[tuple[Any, ...]]:
        try:
            yield from self._database.execute(statement, values)
        except sqlite3.Error as error:
            raise _translated(error) from error

    def _restore(self, sealed: bytes) -> Scan:
        scan: Scan = pickle.loads(self._secret.unseal(sealed))  # noqa: S301 - authenticated: our own bytes, sealed above
        return scan


def _translated(error: sqlite3.Error) -> StoreError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}:
        return StorageFull(
            "Headers wait in the temporary folder until the walk is over, and it is full or can't be written: free "
            "space there or set TMPDIR to a larger one, then run the same command again."
        )
    return StoreError(f"The temporary database failed ({type(error).__name__}): run the same command again.")
