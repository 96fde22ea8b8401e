"""Errors of sqlite3 and psycopg as our own sentences, without the driver's text, which may quote stored data."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from retrieval.errors import DatabaseAway, StorageFull, StoreError

BUSY_SECONDS = 30  # somebody else's transaction is waited for
AWAY = "The database server can't be reached or closed the connection: check it, then try again."
NO_CONNECTION = (
    "The database server has no connection left for us: raise its max_connections, run fewer services, or try again."
)
STARTING = "The database server is starting or stopping: try again in a moment."
REFUSED_ENTRANCE = (
    "The database server does not let us in: check the user, the password and the name of the database in the URL."
)
CANCELLED = "The database server cancelled the operation, for its time limit or its administrator; nothing was kept."
SQLITE_SENTENCES = {
    sqlite3.SQLITE_BUSY: f"The database was busy for {BUSY_SECONDS} seconds: another process is writing. Try again.",
    sqlite3.SQLITE_LOCKED: "The database is locked by another statement. Try again.",
    sqlite3.SQLITE_CORRUPT: "The database file is damaged: restore it from your backup.",
    sqlite3.SQLITE_NOTADB: "The database file is not an SQLite database: restore it from your backup.",
    sqlite3.SQLITE_READONLY: "The database can't be written: check the owner, mode and space of the data directory.",
    sqlite3.SQLITE_CANTOPEN: "The database file can't be opened: check its directory, its mode and its space.",
    sqlite3.SQLITE_IOERR: (  # also of a sync that found no space: SQLite does not tell the two apart
        "The disk under the database failed or has no space left (input/output error): check it, then try again."
    ),
}
STATE_SENTENCES = {"55P03": SQLITE_SENTENCES[sqlite3.SQLITE_BUSY], "57014": CANCELLED}
ENTRANCE_STATES = {"53300": NO_CONNECTION, "57P03": STARTING}
# What a server says while it lets nobody in comes without a code, only in words; in another language it is just away.
ENTRANCE_SENTENCES = (
    ("connection slots", NO_CONNECTION),
    ("too many", NO_CONNECTION),
    ("starting up", STARTING),
    ("shutting down", STARTING),
    ("recovery mode", STARTING),
)
NOT_ADMITTED = ("authentication failed", "no pg_hba.conf entry", "does not exist", "no password supplied")


@contextmanager
def translated() -> Iterator[None]:
    """Turn driver errors into our own sentences, without the driver's text, which may quote stored data."""
    try:
        yield
    except DBAPIError as error:
        raise driver_error(error.orig, lost=error.connection_invalidated) from error
    except PoolTimeout as error:
        raise StoreError("All database connections are in use: try again, or run more workers.") from error


def driver_error(cause: BaseException | None, *, lost: bool = False) -> StoreError:
    """An error of sqlite3 or psycopg as our own; ``lost``: the connection went with it."""
    if isinstance(cause, sqlite3.Error):
        extended = getattr(cause, "sqlite_errorcode", 0)
        code = extended & 0xFF  # the low byte is the primary code
        if code == sqlite3.SQLITE_FULL or extended == sqlite3.SQLITE_IOERR_SHMSIZE:
            return _full()  # the second: no room for the few KB of shared memory that readers need as well
        return StoreError(SQLITE_SENTENCES.get(code, _refused(cause)))
    state = getattr(cause, "sqlstate", None) or ""
    if state == "53100":
        return _full()
    if state in ENTRANCE_STATES:
        return DatabaseAway(ENTRANCE_STATES[state])
    if state in STATE_SENTENCES:
        return StoreError(STATE_SENTENCES[state])
    if lost or state[:2] in {"08", "57"}:
        return DatabaseAway(AWAY)
    if not state and _is_of_the_connection(cause):
        return _not_connected(str(cause))
    return StoreError(_refused(cause, state))


def _is_of_the_connection(cause: BaseException | None) -> bool:
    """Of the kinds that drivers raise for it, by name: the library need not be installed."""
    return any(kind.__name__ in {"OperationalError", "InterfaceError"} for kind in type(cause).__mro__)


def _not_connected(told: str) -> StoreError:
    """Why there is no connection. ``told``, the driver's words, holds no stored data, but names the server."""
    if any(words in told for words in NOT_ADMITTED):
        return StoreError(REFUSED_ENTRANCE)
    return DatabaseAway(next((sentence for words, sentence in ENTRANCE_SENTENCES if words in told), AWAY))


def _full() -> StorageFull:
    return StorageFull(
        "No space is left for the database, or its disk failed: check it, free some and try again. What was "
        "acknowledged before is safe."
    )


def _refused(cause: BaseException | None, state: str = "") -> str:
    kind = type(cause).__name__
    return f"The database refused the operation ({kind}{' ' + state if state else ''}); nothing of it was kept."
