"""From a backup to a gallery in a new data directory."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import update

from retrieval.backups.catalog_copy import finish_copy, is_vacant, load_catalog, vacate
from retrieval.backups.manifest import CATALOG, KEY, BackupManifest, read_backup
from retrieval.backups.staging import entries, staging, sync_directories
from retrieval.catalog import Catalog
from retrieval.database import Database, now, parse_url
from retrieval.errors import StoreError, UsageError
from retrieval.jobs import JobState
from retrieval.manifest import FileFact
from retrieval.privacy import Secret
from retrieval.publish import publish
from retrieval.schema import jobs
from retrieval.storage import make_directory, storing, sync_directory
from retrieval.verify import VerifyReport, verify

CHUNK = 1 << 20
CUT_OFF = "This job was going on when the backup was made that the gallery was restored from. Start it again."


@dataclass(frozen=True, slots=True)
class Restored:
    """``report``: what ``verify`` says of the restored gallery. ``rebuilt``: the index was built anew from SQL."""

    home: Path
    manifest: BackupManifest
    report: VerifyReport
    rebuilt: bool


def restore(source: Path, home: Path, url: str = "", *, key: Path | None = None) -> Restored:
    """Make the data directory ``home`` from a backup, and check the whole of it.

    ``home`` must be absent or empty. ``url``: of a PostgreSQL database that holds no gallery, "" for SQLite in
    ``home``. ``key``: a copy of the key file, for a backup without it. An older backup is upgraded.

    Raises UsageError when there is no room for it or no key; StoreError naming the file that is damaged; StoreTooNew;
    StorageFull. Then there is no gallery at ``home``, nor when the process is killed: the key, without which none
    opens, is moved there last. What ``verify`` finds wrong is no reason to throw a gallery away: it is in the report.
    """
    manifest = read_backup(source)
    _check_home(home)
    given = _given_key(manifest, key)
    with (
        _server(url) as server,
        storing("The backup can't be restored"),
        _made(home),
        staging(home) as place,
    ):
        for fact in manifest.files:
            _copy(source, place, fact)
        if given is not None:
            _write(place / KEY, given.key)
        with _filled(place, server):
            with Catalog.open(url or _sqlite_url(place)) as catalog:
                _interrupt_jobs(catalog)
                rebuilt = _settle_index(catalog, place, manifest)
                report = verify(catalog, place)
            _move_in(place, home)
    return Restored(home, manifest, report, rebuilt)


def _check_home(home: Path) -> None:
    if home.is_symlink() or (home.exists() and not home.is_dir()) or entries(home):
        raise UsageError(f"'{home}' is not empty: expected a new data directory to restore into, as --home NEW.")


def _given_key(manifest: BackupManifest, path: Path | None) -> Secret | None:
    """The key that was stated, if it is the right one; None when the backup has its own."""
    if path is None:
        if manifest.key_inside:
            return None
        raise UsageError(
            "This backup was made without its key: state the copy of secret.key that was kept apart, with --key FILE."
        )
    with storing("The key file can't be read"):
        secret = Secret.open(path)
    if secret.fingerprint != manifest.key_fingerprint:
        raise UsageError(
            f"'{path}' is the key of another gallery: expected {manifest.key_fingerprint}, got {secret.fingerprint}."
        )
    return None if manifest.key_inside else secret


@contextmanager
def _server(url: str) -> Iterator[Database | None]:
    """The PostgreSQL database to restore into, seen to be vacant; None for SQLite."""
    if not url:
        yield None
        return
    if parse_url(url).get_backend_name() == "sqlite":
        raise UsageError(
            "A backup is restored into SQLite inside the data directory: take the database URL away, and move the file "
            "afterwards."
        )
    with closing(Database(url)) as database:
        if not is_vacant(database):
            raise UsageError(
                f"The database {database.place} holds a gallery: expected an empty one. If a restore was cut off "
                "there, drop and create it first."
            )
        yield database


@contextmanager
def _made(home: Path) -> Iterator[None]:
    """The directory, made for its owner only if it was not there, and then removed again should this fail."""
    missing = not home.exists()
    if missing:
        make_directory(home, 0o700)
    try:
        yield
    except BaseException:
        if missing and not any(home.iterdir()):
            home.rmdir()
        raise


def _copy(source: Path, place: Path, fact: FileFact) -> None:
    """Copy a file of the backup, hashing it on the way; StoreError naming it when it is not what it was."""
    damaged = f"In the backup {fact.name} is damaged: use another backup, or another copy of this one."
    target, digest, size = place / fact.name, hashlib.sha256(), 0
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = open(os.open(source / fact.name, os.O_RDONLY | os.O_NOFOLLOW), "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise StoreError(f"{damaged} It can't be opened ({error.strerror}).") from error
    with file, open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += copy.write(chunk)
        copy.flush()
        os.fsync(copy.fileno())
    if size != fact.bytes:
        raise StoreError(f"{damaged} Expected {fact.bytes:,} bytes, got {size:,}.")
    if digest.hexdigest() != fact.sha256:
        raise StoreError(f"{damaged} It does not have the SHA-256 that was noted.")


@contextmanager
def _filled(place: Path, server: Database | None) -> Iterator[None]:
    """The catalog brought to our own revision and, for a server, loaded there; taken out again should this fail."""
    path = place / CATALOG
    Catalog.open(_sqlite_url(place)).close()
    finish_copy(path)
    if server is None:
        yield
        return
    load_catalog(path, server)
    path.unlink()
    try:
        yield
    except BaseException:
        vacate(server)
        raise


def _interrupt_jobs(catalog: Catalog) -> None:
    """What was running is not running here."""
    going = jobs.c.state.in_([JobState.QUEUED.value, JobState.RUNNING.value])
    values = {"state": JobState.INTERRUPTED.value, "message": CUT_OFF, "updated_at": now()}
    with catalog.database.write() as connection:
        connection.execute(update(jobs).where(going).values(values))


def _settle_index(catalog: Catalog, place: Path, manifest: BackupManifest) -> bool:
    """Forget generations that are not in the backup; build the live one anew if it is one of them."""
    rows = catalog.generations()
    live = next((row for row in rows if row.state == "live"), None)
    catalog.drop_generations([row.name for row in rows if row is not live])
    catalog.purge()  # vectors of another encoder that were kept to roll back to
    if live is None or live.name == manifest.generation:
        return False
    publish(catalog, place, live.backend, keep_previous=False)
    return True


def _move_in(place: Path, home: Path) -> None:
    """Everything into the data directory, the key last: without it no gallery opens."""
    (place / "generations").mkdir(exist_ok=True)
    for path in place.glob(f"{CATALOG}*"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_directories(place)
    moved = []
    try:
        for path in sorted(place.iterdir(), key=lambda path: (path.name == KEY, path.name)):
            moved.append(path.rename(home / path.name))
            sync_directory(home)
    except OSError:
        for path in reversed(moved):  # the key first, so that nothing is taken for a gallery
            _remove(path)
        raise


def _remove(path: Path) -> None:
    """As far as that is possible now."""
    with suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _write(path: Path, data: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sqlite_url(place: Path) -> str:
    return f"sqlite:///{(place / CATALOG).resolve()}"
