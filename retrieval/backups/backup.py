"""Making a backup while the gallery is in use."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from retrieval.backups.catalog_copy import copy_catalog, finish_copy, snapshot
from retrieval.backups.manifest import CATALOG, KEY, BackupManifest, write_manifest
from retrieval.backups.staging import entries, staging, sync_directories
from retrieval.catalog import Catalog
from retrieval.catalog.generations import read_heads
from retrieval.database import now
from retrieval.errors import CorruptIndex, UsageError
from retrieval.generations import check_generation, generations_folder
from retrieval.heads import Heads
from retrieval.manifest import FileFact
from retrieval.privacy import Secret
from retrieval.schema import REVISION
from retrieval.storage import storing, sync_directory

_NO_LINKS = {errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP}


@dataclass(frozen=True, slots=True)
class KeptFiles:
    """A folder of the data directory whose files the cases of a catalog refer to; ``names`` tells by which names."""

    folder: str
    names: Callable[[Catalog], set[str]]


@dataclass(frozen=True, slots=True)
class Backup:
    """A finished backup. ``gone``: kept files that cases refer to and that were lost before."""

    path: Path
    manifest: BackupManifest
    gone: int = 0


def backup(
    catalog: Catalog, home: Path, target: Path, secret: Secret, kept: KeptFiles, *, with_key: bool = False
) -> Backup:
    """Write one state of a gallery to the directory ``target``, which appears when all of it is on disk.

    Searching, writing, deleting and rebuilding go on meanwhile. ``with_key`` puts the key in: without it the backup
    can't be restored unless the key is at hand from elsewhere; with it, it is as sensitive as the store.

    Raises UsageError when ``target`` is there already or its parent is not, StoreError when the database is damaged or
    the disk fails, StorageFull. Then, and when the process is killed, there is no ``target``.
    """
    check_target(target)
    with storing("The backup can't be written"), staging(target.parent) as place, staging(home) as pins:
        _pin_folder(home / kept.folder, pins / kept.folder)  # what is deleted from now on is still there to copy
        with snapshot(catalog.database) as connection:
            _pin_folder(home / kept.folder, pins / kept.folder)  # what came between that and the snapshot
            at, heads = now(), read_heads(connection)
            _pin_generation(home, heads, pins)
            copy_catalog(connection, place / CATALOG)
        with Catalog.open(f"sqlite:///{place / CATALOG}") as copied:
            wanted = kept.names(copied)
            binding, cases = copied.binding(), copied.count()
        finish_copy(place / CATALOG)
        gone = _copy_kept(pins / kept.folder, place / kept.folder, wanted)
        generation = heads.generation if _copy_generation(pins, place, heads) else ""
        if with_key:
            shutil.copy(home / KEY, place / KEY)
        manifest = BackupManifest(
            created_at=at,
            revision=REVISION,
            database="sqlite" if catalog.database.is_sqlite else "postgresql",
            fingerprint=binding.fingerprint if binding else "",
            cases=cases,
            last_key=heads.last_key,
            last_tombstone=heads.last_tombstone,
            generation=generation,
            key_inside=with_key,
            key_fingerprint=secret.fingerprint,
            files=tuple(_sealed(place)),
        )
        _publish(place, manifest, target)
    return Backup(target, manifest, gone)


def check_target(target: Path) -> None:
    """UsageError unless ``target`` can be made: its parent is there, and in its place nothing or an empty directory."""
    if not target.parent.is_dir():
        raise UsageError(f"The folder '{target.parent}' does not exist: make it first, or see if its disk is mounted.")
    if os.path.lexists(target) and (target.is_symlink() or not target.is_dir() or entries(target)):
        raise UsageError(f"'{target}' is there already: expected the name of a new directory for the backup.")


def _pin_folder(folder: Path, to: Path) -> None:
    """Give every file of a folder a second name, so that it outlives its first; those that have one are passed over."""
    to.mkdir(exist_ok=True)
    for path in entries(folder):
        if path.name.startswith(".") or not path.is_file():
            continue
        _pin(path, to / path.name)


def _sealed(place: Path) -> Iterable[FileFact]:
    """Fsync and hash every file, by name."""
    for path in sorted(path for path in place.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            yield FileFact(path.relative_to(place).as_posix(), file.tell(), digest)


def _pin(path: Path, to: Path) -> None:
    try:
        os.link(path, to, follow_symlinks=False)
    except (FileExistsError, FileNotFoundError):  # pinned before, or deleted in this moment
        return
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copyfile(path, to)  # a file system without links: slower, but as safe


def _pin_generation(home: Path, heads: Heads, pins: Path) -> None:
    root = generations_folder(pins)
    root.mkdir()
    if heads.generation:
        _pin_folder(generations_folder(home) / heads.generation, root / heads.generation)


def _copy_generation(pins: Path, place: Path, heads: Heads) -> bool:
    """Whether the live generation is in the backup. One that is damaged is left out: it is built anew from SQL."""
    if not heads.generation:
        return False
    source, root = generations_folder(pins) / heads.generation, generations_folder(place)
    try:
        (root / heads.generation).mkdir(parents=True)
        for path in entries(source):
            shutil.copyfile(path, root / heads.generation / path.name)
        check_generation(root, heads.generation, heads.manifest_sha256)
    except CorruptIndex:
        shutil.rmtree(root)
        return False
    return True


def _copy_kept(source: Path, to: Path, wanted: set[str]) -> int:
    """Copy the files that the catalog refers to; how many of them are gone."""
    gone = 0
    for name in sorted(wanted):
        to.mkdir(exist_ok=True)
        try:
            shutil.copyfile(source / name, to / name)
        except FileNotFoundError:
            gone += 1
    return gone


def _publish(place: Path, manifest: BackupManifest, target: Path) -> None:
    write_manifest(place, manifest)
    sync_directories(place)
    place.rename(target)
    try:
        sync_directory(target.parent)
    except OSError:  # whether it would be there after a power cut is unknown: so it is not there
        shutil.rmtree(target, ignore_errors=True)
        raise
