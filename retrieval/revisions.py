"""Making a database, and bringing an older one to the tables of ``retrieval.schema``, through Alembic."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, String, Table, insert, inspect, text

from retrieval.database import Database, lock
from retrieval.driver_errors import translated
from retrieval.errors import StoreError, StoreTooNew
from retrieval.schema import REVISION, VERSION_TABLE, gallery, metadata
from retrieval.storage import make_directory, storing

if TYPE_CHECKING:
    from alembic.config import Config


def prepare(database: Database, *, create: bool) -> None:
    """See that the database is at ``REVISION``: make it (only with ``create``), upgrade it, or say why not."""
    path = database.path
    if path is not None and not path.exists():
        if not create:
            raise _no_gallery(database)
        with storing("The data directory can't be made"):
            make_directory(path.parent)
    with database.read() as connection:
        stored = revision(connection)
    if stored == REVISION:
        return
    if not stored and not create:
        raise _no_gallery(database)
    if stored or not _make(database):
        upgrade(database)


def revision(connection: Connection) -> str:
    """The Alembic revision a database is at, "" when it holds no gallery."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return ""
    return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar() or ""  # noqa: S608 (a constant)


def _make(database: Database) -> bool:
    """The tables of a new gallery at once, a tenth of the time of all migrations; False when there is one by now.

    All in one transaction under the writer lock. What is declared is what migrations make: a test compares the two.
    """
    with database.write() as connection:
        if revision(connection):
            return False  # another process was first
        metadata.create_all(connection)
        connection.execute(insert(gallery).values(id=1, last_key=0, last_tombstone=0))
        version = _version_table()
        version.create(connection)
        connection.execute(insert(version).values(version_num=REVISION))
    return True


def _version_table() -> Table:
    """As Alembic makes it."""
    key = PrimaryKeyConstraint(name=f"{VERSION_TABLE}_pkc")
    return Table(VERSION_TABLE, MetaData(), Column("version_num", String(32), primary_key=True), key)


def upgrade(database: Database, target: str = "head", config: Config | None = None) -> None:
    """Run migrations up to ``target``, all of them in one transaction or not at all."""
    from alembic import command

    _migrate(database, config or configuration(), lambda config: command.upgrade(config, target))


def downgrade(database: Database, target: str, config: Config | None = None) -> None:
    """Run migrations down to ``target``; "base" removes everything."""
    from alembic import command

    _migrate(database, config or configuration(), lambda config: command.downgrade(config, target))


def _migrate(database: Database, config: Config, step: Callable[[Config], None]) -> None:
    with translated(), database.engine.connect() as connection:
        try:
            if database.is_sqlite:
                # Rebuilding a table drops the old one; with foreign keys on, the rows that refer to it would go too.
                connection.connection.cursor().execute("PRAGMA foreign_keys = OFF")
            lock(connection)
            _check_known(database, revision(connection), config)  # under the lock: another process may have been first
            config.attributes["connection"] = connection
            step(config)
            _check_references(connection)
            connection.commit()
        finally:
            connection.invalidate()  # the next connection has foreign keys on again


def _check_known(database: Database, stored: str, config: Config) -> None:
    from alembic.script import ScriptDirectory

    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if stored and stored not in known:
        raise StoreTooNew(
            f"The gallery at {database.place} is at revision {stored}, this Precedent knows up to {REVISION}: "
            "it was written by a newer Precedent. Upgrade this one."
        )


def configuration() -> Config:
    """Alembic's configuration for the packaged ``migrations``, wherever it is installed."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "migrations:")
    return config


def _check_references(connection: Connection) -> None:
    if connection.dialect.name != "sqlite":
        return
    if connection.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
        raise StoreError("The migration would have left rows that refer to nothing, so it was undone. Report this.")


def _no_gallery(database: Database) -> StoreError:
    return StoreError(f"No gallery at {database.place}: run precedent index to make one.")
