"""Rewriting a database so that no live file of it holds the bytes of deleted rows."""

from __future__ import annotations

import time

from sqlalchemy import Connection, text

from retrieval.driver_errors import BUSY_SECONDS
from retrieval.errors import ConflictError

OLD_READER = (
    "Somebody reads a state of the database from before the deletion, a backup perhaps, and what was deleted is kept "
    "on disk for that: try again when it is over."
)
# Rows no longer visible to anybody are what VACUUM leaves out; it keeps the others without a word.
_OLDER = text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
    "AND greatest(age(backend_xmin), age(backend_xid)) >= age(CAST(CAST(:began AS xid8) AS xid))"
)
# What the planner of the server remembers of our tables: some of the values that were in them.
_REMEMBERED = text(
    "SELECT format('%I.%I', space.nspname, class.relname), format('%I', attribute.attname), "
    "format_type(attribute.atttypid, attribute.atttypmod) "
    "FROM pg_stats seen JOIN pg_namespace space ON space.nspname = seen.schemaname "
    "JOIN pg_class class ON class.relnamespace = space.oid AND class.relname = seen.tablename "
    "JOIN pg_attribute attribute ON attribute.attrelid = class.oid AND attribute.attname = seen.attname "
    "WHERE class.relkind = 'r' AND seen.schemaname = current_schema()"
)


def compact_sqlite(connection: Connection) -> None:
    """ConflictError when a reader of an earlier state holds the log for longer than ``BUSY_SECONDS``."""
    connection.execution_options(precedent_begin="")
    connection.exec_driver_sql("VACUUM")
    if connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()[0]:
        raise ConflictError(OLD_READER)


def compact_postgres(connection: Connection) -> None:
    """The tables, and what the planner sampled of them; raises as ``compact_sqlite`` does."""
    connection.execution_options(isolation_level="AUTOCOMMIT")
    connection.exec_driver_sql("ANALYZE")  # samples of before are replaced by samples of what is left
    _forget_the_empty(connection)
    _await_old_readers(connection)
    connection.exec_driver_sql("VACUUM (FULL)")  # of the system's tables too, where the samples were


def owns_database(connection: Connection) -> bool:
    """Of a server: whether this role may rewrite the system's tables too; else VACUUM leaves them out."""
    owner = "SELECT pg_has_role(datdba, 'USAGE') FROM pg_database WHERE datname = current_database()"
    return bool(connection.scalar(text(owner)))


def _forget_the_empty(connection: Connection) -> None:
    """ANALYZE keeps its samples of a table that has become empty; a column whose type is stated anew loses them."""
    for table, column, kind in connection.execute(_REMEMBERED).all():
        if not connection.exec_driver_sql(f"SELECT EXISTS (SELECT FROM {table})").scalar():  # noqa: S608, quoted by %I
            connection.exec_driver_sql(f"ALTER TABLE {table} ALTER COLUMN {column} TYPE {kind}")


def _await_old_readers(connection: Connection) -> None:
    began = connection.scalar(text("SELECT pg_current_xact_id()::text"))
    until = time.monotonic() + BUSY_SECONDS
    while connection.scalar(_OLDER, {"began": began}):
        if time.monotonic() > until:
            raise ConflictError(OLD_READER)
        time.sleep(0.1)
