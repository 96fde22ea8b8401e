"""After a deletion: no live file of the engine holds the bytes of what was deleted. Plain deletion leaves a tombstone
and is fast; this rewrites the database and the index, and takes its time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select

from retrieval.backups.staging import PREFIX, sweep_unfinished
from retrieval.building import Progress
from retrieval.catalog import Catalog
from retrieval.catalog.reads import chunks
from retrieval.errors import ConflictError, StoreError
from retrieval.generations import BUILDING, FOLDER, NAME, generations_folder, publishing, read_manifest, sweep
from retrieval.manifest import FileFact, Manifest
from retrieval.publish import publish
from retrieval.schema import cases, metadata
from retrieval.storage import storing
from retrieval.types import Keys
from retrieval.verify.index import strangers


@dataclass(frozen=True, slots=True)
class TableRows:
    """How many rows of a table there are."""

    table: str
    rows: int


@dataclass(frozen=True, slots=True)
class Compacted:
    """``generation``: the new index, None when there is none. ``removed``: files of the index that are gone."""

    generation: Manifest | None
    removed: tuple[FileFact, ...]
    bytes_before: int  # of the database
    bytes_after: int


def rows_of(catalog: Catalog, keys: Keys) -> tuple[TableRows, ...]:
    """What is stored of these cases, table by table."""
    found = []
    with catalog.database.read() as connection:
        for table in metadata.sorted_tables:
            if table is not cases and not any(key.column is cases.c.key for key in table.foreign_keys):
                continue
            counted = (
                connection.scalar(select(func.count()).select_from(table).where(table.c.key.in_(part))) or 0
                for part in chunks(keys.tolist())
            )
            found.append(TableRows(table.name, sum(counted)))
    return tuple(found)


def check_alone(home: Path) -> None:
    """ConflictError while a backup is made: it holds a second name of the files it is about to copy."""
    with storing("The data directory can't be read"):
        sweep_unfinished(home)
        if any(home.glob(f"{PREFIX}*")):
            raise ConflictError("A backup of this gallery is being made, and keeps what is deleted: wait for its end.")


def compact(catalog: Catalog, home: Path, *, progress: Progress | None = None) -> Compacted:
    """Build the index anew without an earlier one to go back to, then rewrite the database.

    Raises as ``retrieval.publish.publish`` and ``Database.compact`` do; then call it again.
    """
    check_alone(home)
    before, files = database_bytes(catalog), _index_files(catalog, home)
    generation = _rebuilt(catalog, home, progress)
    _check_gone(catalog, home)
    catalog.compact()
    check_alone(home)
    left = {f"{FOLDER}/{generation.name}/"} if generation else set()
    removed = tuple(fact for fact in files if not any(fact.name.startswith(name) for name in left))
    return Compacted(generation, removed, before, database_bytes(catalog))


def database_bytes(catalog: Catalog) -> int:
    """Size of the database on disk: SQLite's file and log, or what the server says."""
    database = catalog.database
    if database.path is not None:
        log = database.path.with_name(f"{database.path.name}-wal")
        return database.path.stat().st_size + (log.stat().st_size if log.exists() else 0)
    with database.read() as connection:
        return connection.scalar(select(func.pg_database_size(func.current_database()))) or 0


def _rebuilt(catalog: Catalog, home: Path, progress: Progress | None) -> Manifest | None:
    live = next((row for row in catalog.generations() if row.state == "live"), None)
    if live is not None:
        return publish(catalog, home, live.backend, keep_previous=False, progress=progress)
    if generations_folder(home).is_dir():
        with publishing(generations_folder(home)):
            sweep(generations_folder(home), ())
    return None


def _check_gone(catalog: Catalog, home: Path) -> None:
    """StoreError when an earlier index is still there: its directory could not be removed, or what it has elsewhere."""
    left = strangers(generations_folder(home), catalog.generations())
    if ours := [path.name for path in left if NAME.fullmatch(path.name) or BUILDING.fullmatch(path.name)]:
        raise StoreError(
            f"{len(ours)} earlier indexes could not be removed ({', '.join(ours[:3])}): check the data directory, and "
            "the server where the index is kept on one."
        )


def _index_files(catalog: Catalog, home: Path) -> list[FileFact]:
    """Files of every generation, as their manifests state them; of one that can't be read, nothing can be said."""
    found = []
    for row in catalog.generations():
        try:
            manifest = read_manifest(generations_folder(home), row.name, row.manifest_sha256)
        except StoreError:
            continue
        found += [FileFact(f"{FOLDER}/{row.name}/{fact.name}", fact.bytes, fact.sha256) for fact in manifest.files]
    return found
