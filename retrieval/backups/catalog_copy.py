"""One state of the catalog as one SQLite file, from SQLite or PostgreSQL, and from such a file into PostgreSQL.

Writers go on meanwhile: SQLite's write-ahead log and PostgreSQL's REPEATABLE READ both keep the state of the first
read for as long as the transaction lasts. Tables and columns are those of ``retrieval.schema``, whatever it holds.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Connection, Integer, Table, delete, func, select, text

from retrieval.database import Database
from retrieval.driver_errors import driver_error, translated
from retrieval.errors import StoreError
from retrieval.revisions import prepare, revision
from retrieval.schema import REVISION, gallery, metadata

PAGES = 1024  # copied in one step: 16 MiB, so that Ctrl-C is heard
ROWS = 1000


@contextmanager
def snapshot(database: Database) -> Iterator[Connection]:
    """A connection all of whose reads see the state of the moment this begins."""
    with translated(), database.engine.connect() as connection:
        if not database.is_sqlite:
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
        connection.execute(select(gallery.c.last_key)).one()
        yield connection


def copy_catalog(connection: Connection, path: Path) -> None:
    """Write what a ``snapshot`` sees to a new SQLite file, mode 0600. ``finish_copy`` comes when it was read."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    if connection.dialect.name == "sqlite":
        source: Any = connection.connection.driver_connection
        with _sqlite(path) as target:
            source.backup(target, pages=PAGES)
        return
    with closing(Database(f"sqlite:///{path}")) as made:
        prepare(made, create=True)
    with _sqlite(path) as target:
        target.execute("PRAGMA journal_mode = DELETE")
        target.execute("PRAGMA synchronous = OFF")  # it is fsynced whole before anything depends on it
        target.execute("BEGIN")
        for table in reversed(metadata.sorted_tables):
            target.execute(f"DELETE FROM {_quoted(table.name)}")  # noqa: S608 (a name of our own)
        for table in metadata.sorted_tables:
            _out_of_postgres(connection, table, target)
        target.execute("COMMIT")


def finish_copy(path: Path) -> None:
    """Make it one file again, without a log beside, and see that its pages are sound; StoreError when they are not."""
    with _sqlite(path) as copy:
        copy.execute("PRAGMA journal_mode = DELETE")
        found = copy.execute("PRAGMA quick_check(1)").fetchall()
    if found != [("ok",)]:
        raise StoreError(
            "The copy of the catalog is damaged, so the database most likely is too: keep your older backups and run "
            "precedent verify --scrub."
        )


def is_vacant(database: Database) -> bool:
    """Whether a PostgreSQL database may be restored into: no gallery is in it, or one that never held anything."""
    with database.read() as connection:
        stored = revision(connection)
        if not stored:
            return True
        if stored != REVISION or connection.scalar(select(gallery.c.last_key)):
            return False
        others = [table for table in metadata.sorted_tables if table is not gallery]
        return not any(connection.execute(select(table).limit(1)).first() for table in others)


def load_catalog(path: Path, database: Database) -> None:
    """Put a catalog file of our own revision into a vacant PostgreSQL database, in one transaction."""
    prepare(database, create=True)
    with _sqlite(path) as source, database.write() as connection:
        connection.execute(delete(gallery))
        for table in metadata.sorted_tables:
            _into_postgres(source, table, connection)
            _go_on_counting(connection, table)


def vacate(database: Database) -> None:
    """Take out again what ``load_catalog`` has put in."""
    with database.write() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(delete(table))
        connection.execute(gallery.insert().values(id=1, last_key=0, last_tombstone=0, last_edit=0))


def _out_of_postgres(connection: Connection, table: Table, target: sqlite3.Connection) -> None:
    columns = ", ".join(_quoted(column.name) for column in table.columns)
    marks = ", ".join("?" for _ in table.columns)
    with _copying(connection, f"COPY {_quoted(table.name)} ({columns}) TO STDOUT (FORMAT BINARY)") as stream:
        stream.set_types(_types(connection, table))
        target.executemany(f"INSERT INTO {_quoted(table.name)} ({columns}) VALUES ({marks})", stream.rows())  # noqa: S608


def _into_postgres(source: sqlite3.Connection, table: Table, connection: Connection) -> None:
    columns = ", ".join(_quoted(column.name) for column in table.columns)
    rows = source.execute(f"SELECT {columns} FROM {_quoted(table.name)}")  # noqa: S608 (names of our own tables)
    with _copying(connection, f"COPY {_quoted(table.name)} ({columns}) FROM STDIN (FORMAT BINARY)") as stream:
        stream.set_types(_types(connection, table))
        while batch := rows.fetchmany(ROWS):
            for row in batch:
                stream.write_row(row)


def _go_on_counting(connection: Connection, table: Table) -> None:
    """The server numbers new rows of some tables itself: it must not begin at 1 again."""
    numbered: Column[int] | None = table.autoincrement_column if isinstance(table.c[0].type, Integer) else None
    if numbered is None:
        return
    highest = connection.scalar(select(func.max(numbered)))
    if highest:
        name = connection.scalar(text("SELECT pg_get_serial_sequence(:table, :column)"), _named(table, numbered))
        if name:
            connection.execute(text("SELECT setval(:name, :highest)"), {"name": name, "highest": highest})


def _named(table: Table, column: Column[int]) -> dict[str, str]:
    return {"table": _quoted(table.name), "column": column.name}


@contextmanager
def _copying(connection: Connection, statement: str) -> Iterator[Any]:
    """PostgreSQL's COPY, which moves rows as bytes."""
    import psycopg

    raw: Any = connection.connection.driver_connection
    try:
        with raw.cursor() as cursor, cursor.copy(statement) as stream:
            yield stream
    except psycopg.Error as error:
        raise driver_error(error) from error


def _types(connection: Connection, table: Table) -> list[str]:
    """Names of PostgreSQL's types of a table's columns, as ``bigint``."""
    stated = [column.type.compile(dialect=connection.dialect) for column in table.columns]
    return [name.partition(" COLLATE")[0].lower() for name in stated]


def _quoted(name: str) -> str:
    return f'"{name}"'


@contextmanager
def _sqlite(path: Path) -> Iterator[sqlite3.Connection]:
    """A plain connection: transactions where they are written, no foreign keys, errors as sentences."""
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise driver_error(error) from error
