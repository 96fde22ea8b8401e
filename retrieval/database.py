"""One database, two ways in: ``read`` (a consistent snapshot) and ``write`` (under the one writer lock).

Every write transaction takes the writer lock before its first statement: BEGIN IMMEDIATE on SQLite, an advisory lock on
PostgreSQL, which is let go only after the commit is visible. So commits happen one after the other, and whatever the
counters in ``gallery`` hand out appears in ascending order.

Driver errors are translated here, at the border (``driver_errors``); nothing above knows the driver's exceptions.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from retrieval.compaction import compact_postgres, compact_sqlite, owns_database
from retrieval.driver_errors import BUSY_SECONDS, translated
from retrieval.errors import MissingExtra, UsageError

PAGE_BYTES = 16384  # seven 512-d vectors a page; with SQLite's 4096 each would have a page of its own
WRITER_LOCK = 0x70726563  # any number will do, as long as every writer uses the same

# A server that vanished without a word: noticed within this, on either side, rather than after hours.
TCP_LIMITS = {
    "connect_timeout": 5,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # milliseconds; the others are seconds
}


def now() -> str:
    """The time as ISO 8601, UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Database:
    """An engine with the transaction rules of this project. Safe from several threads; not across a fork."""

    def __init__(self, url: str) -> None:
        self.url = parse_url(url)
        self.engine = _engine(self.url)
        self._held = threading.local()

    @property
    def place(self) -> str:
        """The database in words, without a password."""
        return str(self.path) if self.path else self.url.render_as_string(hide_password=True)

    @property
    def path(self) -> Path | None:
        """The SQLite file, or None for a server."""
        return Path(self.url.database or "") if self.is_sqlite else None

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A read transaction: on SQLite all its statements see one state, on PostgreSQL each its own.

        Within ``one_state``, that transaction.
        """
        held: Connection | None = getattr(self._held, "connection", None)
        with translated():
            if held is not None:
                yield held
                return
            with self.engine.connect() as connection:
                yield connection

    @contextmanager
    def one_state(self) -> Iterator[None]:
        """Everything that this thread reads within sees one state of the database, on PostgreSQL too.

        Cheaper than reads one by one as well. Not to be held for long: nothing deleted meanwhile can be vacuumed.
        Within another it is that one, which is let go where it began.
        """
        if getattr(self._held, "connection", None) is not None:
            yield
            return
        with translated(), self.engine.connect() as connection:
            if not self.is_sqlite:
                connection.execution_options(isolation_level="REPEATABLE READ")
            self._held.connection = connection
            try:
                yield
            finally:
                self._held.connection = None

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A write transaction under the writer lock. Committed and durable on a clean exit, undone otherwise."""
        with translated(), self.engine.connect() as connection:
            lock(connection)
            yield connection
            connection.commit()

    def compact(self) -> None:
        """Give the space of deleted rows back, so that no live file holds their bytes any more.

        ConflictError when somebody reads a state from before for longer than ``BUSY_SECONDS``, as a backup does: the
        bytes are kept for that reader.
        """
        with translated(), self.engine.connect() as connection:
            (compact_sqlite if self.is_sqlite else compact_postgres)(connection)

    @property
    def owned(self) -> bool:
        """Whether ``compact`` reaches all of it: a role of a server may not own the database."""
        if self.is_sqlite:
            return True
        with self.read() as connection:
            return owns_database(connection)

    def close(self) -> None:
        self.engine.dispose()


def lock(connection: Connection) -> None:
    """Take the writer lock, as the first statement of a transaction."""
    if connection.dialect.name == "sqlite":
        connection.execution_options(precedent_begin="BEGIN IMMEDIATE").begin()
        return
    connection.execute(
        # A server may be set to acknowledge before the log is on disk; an acknowledged case must survive a power cut.
        text(
            "SELECT pg_advisory_xact_lock(:number), CASE WHEN current_setting('synchronous_commit') = 'off' "
            "THEN set_config('synchronous_commit', 'on', true) END"
        ),
        {"number": WRITER_LOCK},
    )


def parse_url(url: str) -> URL:
    """A SQLite file or a PostgreSQL URL; anything else is a UsageError."""
    expected = "Expected sqlite:///FILE or postgresql://USER@HOST/NAME as the database URL"
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise UsageError(f"{expected}, got something that is no URL.") from error
    if parsed.get_backend_name() == "sqlite":
        if not parsed.database or parsed.database == ":memory:" or parsed.database.startswith("file:"):
            raise UsageError(f"{expected}; a gallery needs a plain file, not a database in memory.")
        return parsed.set(drivername="sqlite")
    if parsed.drivername in {"postgresql", "postgres", "postgresql+psycopg"}:
        return parsed.set(drivername="postgresql+psycopg")
    raise UsageError(f"{expected}, got {parsed.drivername}.")


def _engine(url: URL) -> Engine:
    # hide_parameters: an exception's text must not carry a patient's data into a log
    options: dict[str, Any] = {"hide_parameters": True, "pool_size": 8, "max_overflow": 32}
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS}, **options)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    try:
        unstated = {name: value for name, value in TCP_LIMITS.items() if name not in url.query}
        engine = create_engine(url, pool_pre_ping=True, connect_args=unstated, **options)
    except (ImportError, NoSuchModuleError) as error:
        raise MissingExtra("psycopg", "postgres") from error
    event.listen(engine, "connect", _prepare_postgres)
    event.listen(engine, "before_cursor_execute", _choose_format)
    return engine


def _prepare_sqlite(raw: Any, _: object) -> None:
    raw.isolation_level = None  # transactions begin where _begin_sqlite says, not where the driver guesses
    for pragma in (
        f"page_size = {PAGE_BYTES}",  # counts only while the file is empty
        f"busy_timeout = {BUSY_SECONDS * 1000}",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "secure_delete = ON",  # a deleted report is overwritten, not just forgotten
        "cache_size = -65536",
    ):
        raw.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    statement = connection.get_execution_options().get("precedent_begin", "BEGIN")
    if statement:
        connection.exec_driver_sql(statement)


def _prepare_postgres(raw: Any, _: object) -> None:
    with raw.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = '{BUSY_SECONDS}s'")
        # The server too must notice when the machine of a writer is gone, or the writer lock would stay with it.
        cursor.execute("SET tcp_keepalives_idle = 15; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3")
    raw.commit()


def _choose_format(_: Connection, cursor: Any, __: str, ___: Any, context: Any, ____: bool) -> None:
    """With ``precedent_binary``, results travel as bytes rather than as text: half the size for vectors."""
    if context is not None and context.execution_options.get("precedent_binary"):
        cursor.format = 1  # psycopg.pq.Format.BINARY
