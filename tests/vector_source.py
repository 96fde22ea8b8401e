"""A catalog reduced to what ``LiveIndex`` reads of it: real SQLite, shared by threads and processes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from retrieval.adapters.head import MetricHead
from retrieval.errors import NotFoundError
from retrieval.heads import Heads
from retrieval.manifest import Manifest
from retrieval.types import Keys, UnitRows


class SqliteVectors:
    """Keys and tombstone numbers ascend in commit order because SQLite has one writer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reads = 0
        with closing(self._open()) as database, database:
            database.executescript(
                "CREATE TABLE IF NOT EXISTS vectors (key INTEGER PRIMARY KEY AUTOINCREMENT, vector BLOB);"
                "CREATE TABLE IF NOT EXISTS tombstones (seq INTEGER PRIMARY KEY AUTOINCREMENT, key INTEGER UNIQUE);"
                "CREATE TABLE IF NOT EXISTS live (id INTEGER PRIMARY KEY, name TEXT, sha256 TEXT);"
            )

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=60)

    def add(self, vectors: UnitRows) -> Keys:
        keys = []
        with closing(self._open()) as database, database:
            for row in vectors:
                cursor = database.execute("INSERT INTO vectors (vector) VALUES (?)", (row.tobytes(),))
                keys.append(cursor.lastrowid)
        return np.array(keys, np.int64)

    def delete(self, key: int) -> None:
        with closing(self._open()) as database, database:
            database.execute("DELETE FROM vectors WHERE key = ?", (key,))
            database.execute("INSERT INTO tombstones (key) VALUES (?)", (key,))

    def publish(self, manifest: Manifest | None) -> None:
        row = (manifest.name, manifest.sha256) if manifest else ("", "")
        with closing(self._open()) as database, database:
            database.execute("INSERT OR REPLACE INTO live VALUES (1, ?, ?)", row)

    def heads(self) -> Heads:
        with closing(self._open()) as database:
            row = database.execute(
                "SELECT (SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'vectors'),"
                " (SELECT coalesce(max(seq), 0) FROM tombstones), (SELECT name FROM live), (SELECT sha256 FROM live)"
            ).fetchone()
        return Heads(row[0] or 0, row[1], row[2] or "", row[3] or "")

    def vectors(self, after: int, upto: int | None = None, batch: int = 4096) -> Iterator[tuple[Keys, UnitRows]]:
        last = 2**62 if upto is None else upto
        while True:
            with closing(self._open()) as database:
                rows = database.execute(
                    "SELECT key, vector FROM vectors WHERE key > ? AND key <= ? ORDER BY key LIMIT ?",
                    (after, last, batch),
                ).fetchall()
            self.reads += 1
            if not rows:
                return
            after = rows[-1][0]
            vectors = np.frombuffer(b"".join(row[1] for row in rows), np.float32).reshape(len(rows), -1)
            yield np.array([row[0] for row in rows], np.int64), vectors

    def head(self, sha256: str) -> MetricHead:
        raise NotFoundError(f"There is no adapter {sha256} here.")

    def tombstones(self, after: int) -> tuple[Keys, Keys]:
        with closing(self._open()) as database:
            rows = database.execute("SELECT seq, key FROM tombstones WHERE seq > ? ORDER BY seq", (after,)).fetchall()
        self.reads += 1
        return np.array([row[0] for row in rows], np.int64), np.array([row[1] for row in rows], np.int64)
