"""Generations on disk: ``HOME/generations/<name>/`` with the index's files and ``manifest.json``.

Written once and never changed. The order of a publication is what makes it survive a power cut:

1. the files are written into a hidden directory beside, and each is fsynced;
2. ``manifest.json`` is written last and fsynced, then the hidden directory is;
3. the directory is renamed to its name, and ``generations/`` is fsynced;
4. only then does the caller commit the SQL row that names it with the manifest's hash.

Steps 1 to 4 and ``sweep`` are done under one lock (``publishing``), so that nobody sweeps away what is about to be
named. A reader takes no lock, and trusts nothing that this chain of hashes does not vouch for: SQL row -> manifest ->
files.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from io import BufferedReader
from pathlib import Path

from retrieval.errors import ConflictError, CorruptIndex, StorageFull, StoreError
from retrieval.indexes import index_type
from retrieval.indexes.base import VectorIndex
from retrieval.indexes.outside import discard
from retrieval.manifest import MANIFEST_FILE, Facts, FileFact, Manifest
from retrieval.storage import make_directory, sync_directory

FOLDER = "generations"
NAME = re.compile(r"g(\d{6,9})-[0-9a-f]{6}")
BUILDING = re.compile(r"\.building-[0-9a-f]{12}")
LOCK_FILE = ".lock"
EMBEDDING_LOCK_FILE = ".embedding-lock"

_log = logging.getLogger(__name__)


def generations_folder(home: Path) -> Path:
    return home / FOLDER


def next_name(root: Path) -> str:
    """A name not used before in this directory, such as ``g000003-1a2b3c``: names sort by age."""
    numbers = [int(match[1]) for path in _entries(root) if (match := NAME.fullmatch(path.name))]
    return f"g{max(numbers, default=0) + 1:06d}-{secrets.token_hex(3)}"


@contextmanager
def publishing(root: Path) -> Iterator[None]:
    """Hold the right to write and sweep generations, as one process of all; ConflictError when another has it.

    The kernel lets go of it when the holder dies, so no stale lock can be left behind.
    """
    with _held(root, LOCK_FILE, "The index is being rebuilt by another process: wait for it to end."):
        yield


@contextmanager
def embedding_anew(root: Path) -> Iterator[None]:
    """Hold the right to embed the gallery anew. It may take hours, in which generations are published all the same."""
    with _held(root, EMBEDDING_LOCK_FILE, "The gallery is being embedded anew by another process: wait for it to end."):
        yield


@contextmanager
def _held(root: Path, name: str, taken: str) -> Iterator[None]:
    with _translated():
        make_directory(root)
        lock = open(root / name, "ab")  # noqa: SIM115 - closed below
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConflictError(taken) from error
        yield


def write(root: Path, fill: Callable[[Path], Facts]) -> Manifest:
    """Publish a directory that ``fill`` puts the index's files into; on return it has survived a power cut.

    To be called while ``publishing``. ``fill`` gets an empty directory. Whatever it raises, or a failed write, leaves
    nothing behind; StorageFull when the disk is full. The manifest's ``sha256`` is what ``open_generation`` wants.
    """
    with _translated():
        building = root / f".building-{secrets.token_hex(6)}"
        building.mkdir()
    try:
        with _translated():
            return _finish(root, building, fill(building))
    except BaseException:
        _remove(building)
        raise


def _finish(root: Path, building: Path, facts: Facts) -> Manifest:
    name = next_name(root)
    manifest = Manifest(name, facts, _seal(building), datetime.now(UTC).isoformat(timespec="seconds"))
    with open(building / MANIFEST_FILE, "wb") as file:
        file.write(manifest.to_bytes())
        file.flush()
        os.fsync(file.fileno())
    sync_directory(building)
    building.rename(root / name)
    try:
        sync_directory(root)
    except OSError:
        _remove(root / name)
        raise
    return manifest


def open_generation(root: Path, name: str, manifest_sha256: str) -> tuple[Manifest, VectorIndex]:
    """The live generation, after every byte of it has been checked. CorruptIndex says what is damaged."""
    manifest = check_generation(root, name, manifest_sha256)
    facts = manifest.facts
    index = index_type(facts.backend).open(root / name)
    if (index.dim, len(index), index.options) != (facts.dim, facts.count, facts.options):
        raise CorruptIndex(
            f"Generation {name} should hold {facts.count} vectors of dim {facts.dim} as "
            f"{facts.options or facts.backend}, got {len(index)} of dim {index.dim} as {index.options or index.name}: "
            "rebuild the index."
        )
    return manifest, index


def check_generation(root: Path, name: str, manifest_sha256: str) -> Manifest:
    """The manifest, once its hash and the hash of each file have matched. CorruptIndex otherwise."""
    directory = root / name
    manifest = read_manifest(root, name, manifest_sha256)
    expected = {MANIFEST_FILE, *(fact.name for fact in manifest.files)}
    found = {path.name for path in _entries(directory)}
    if found != expected:
        wrong = ", ".join(sorted(found ^ expected))
        raise CorruptIndex(f"Generation {name} has missing or foreign files ({wrong}): rebuild the index.")
    with ThreadPoolExecutor(max_workers=4) as pool:
        for damaged in pool.map(lambda fact: _damage(directory, fact), manifest.files):
            if damaged:
                raise CorruptIndex(f"In generation {name} {damaged}: rebuild the index.")
    return manifest


def read_manifest(root: Path, name: str, manifest_sha256: str) -> Manifest:
    """The manifest, once its hash has matched the one in SQL."""
    if not NAME.fullmatch(name):
        raise CorruptIndex(f"Expected a generation named like g000003-1a2b3c, got '{name}': rebuild the index.")
    try:
        data = (root / name / MANIFEST_FILE).read_bytes()
    except OSError as error:
        raise CorruptIndex(f"Generation {name} is missing or has no manifest: rebuild the index.") from error
    found = hashlib.sha256(data).hexdigest()
    if found != manifest_sha256:
        raise CorruptIndex(
            f"The manifest of generation {name} has SHA-256 {found[:12]}, the database says {manifest_sha256[:12]}: "
            "rebuild the index."
        )
    return Manifest.parse(data, name)


def stamp(root: Path, name: str) -> tuple[tuple[str, int, int, int], ...]:
    """(name, inode, bytes, nanoseconds of its last change) of each file of a generation, by name.

    A generation never changes, so a stamp that does is damage: seen at the price of a few system calls, where hashing
    would read every byte again. A mapped file that was cut short would otherwise end the process that searches it.
    """
    try:
        found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in os.scandir(root / name)]
    except OSError:
        return ()
    return tuple(sorted((each, status.st_ino, status.st_size, status.st_mtime_ns) for each, status in found))


def sweep(root: Path, keep: Collection[str]) -> list[str]:
    """Remove generations not in ``keep`` and what dead builders left; returns the names removed.

    To be called while ``publishing``. A process that still has a removed generation mapped goes on reading it. What
    is not ours stays, and so does what can't be removed now, for the next time.
    """
    removed = []
    for path in sorted(_entries(root)):
        old = NAME.fullmatch(path.name) and path.name not in keep
        if path.is_symlink() or not (old or BUILDING.fullmatch(path.name)):
            continue
        doomed = path
        if old:  # renamed first, so that no half-removed directory carries a generation's name
            doomed = root / f".building-{secrets.token_hex(6)}"
            try:
                path.rename(doomed)
            except OSError as error:
                _log.warning("%s can't be removed now (%s).", path.name, error.strerror)
                continue
        _remove(doomed)
        removed.append(path.name)
    return removed


def _remove(directory: Path) -> None:
    """With what the index has elsewhere; if that can't be reached the directory stays, for the next ``sweep``."""
    if discard(directory):
        shutil.rmtree(directory, ignore_errors=True)


def _seal(directory: Path) -> tuple[FileFact, ...]:
    """Fsync and hash every file."""
    facts = []
    for path in sorted(directory.iterdir()):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            facts.append(FileFact(path.name, file.tell(), digest))
    return tuple(facts)


def _damage(directory: Path, fact: FileFact) -> str:
    """What is wrong with a file, or ""."""
    try:
        with _regular(directory / fact.name) as file:
            size = os.fstat(file.fileno()).st_size
            if size != fact.bytes:
                return f"{fact.name} has {size} bytes instead of {fact.bytes}"
            if hashlib.file_digest(file, "sha256").hexdigest() != fact.sha256:
                return f"{fact.name} does not have the SHA-256 its manifest states"
    except OSError:
        return f"{fact.name} can't be read"
    return ""


def _regular(path: Path) -> BufferedReader:
    # O_NOFOLLOW: a link could point to a file that changes after the check
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb")


def _entries(directory: Path) -> Iterator[Path]:
    try:
        yield from directory.iterdir()
    except FileNotFoundError:
        return


@contextmanager
def _translated() -> Iterator[None]:
    """Operating system errors as our own."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise StorageFull(
                "No space is left for a new index generation: free some and try again. The live one is untouched."
            ) from error
        raise StoreError(
            f"A new index generation can't be written ({error.strerror or type(error).__name__}): check the data "
            "directory. The live one is untouched."
        ) from error
