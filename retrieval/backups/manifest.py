"""What a backup says of itself: ``backup.json``, and beside it the SHA-256 of that, as ``sha256sum -c`` reads it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Self

from retrieval.checksummed import checksum_name, read_checksummed, write_checksummed
from retrieval.errors import StoreError, StoreTooNew, UsageError
from retrieval.manifest import FileFact

FORMAT = 1
MANIFEST = "backup.json"
CHECKSUM = checksum_name(MANIFEST)
CATALOG = "catalog.sqlite3"
KEY = "secret.key"


@dataclass(frozen=True, slots=True)
class BackupManifest:
    """``files``: all but the manifest and its checksum, named relative to the backup with forward slashes."""

    created_at: str  # ISO 8601, UTC: the state is the one of about this moment
    revision: str  # of the catalog's tables
    database: str  # "sqlite" or "postgresql": where the catalog came from
    fingerprint: str  # of the encoder, "" for a gallery without one
    cases: int
    last_key: int
    last_tombstone: int
    generation: str  # the index generation inside, "" when it is to be built anew
    key_inside: bool
    key_fingerprint: str  # by which the right key is known; says nothing of it
    files: tuple[FileFact, ...]
    format: int = FORMAT

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(fact.bytes for fact in self.files)

    def to_bytes(self) -> bytes:
        return (json.dumps(asdict(self), indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """StoreTooNew for a later format, StoreError for anything else that is no manifest."""
        try:
            raw = json.loads(data)
            if isinstance(raw["format"], int) and raw["format"] > FORMAT:
                raise StoreTooNew(
                    f"The backup has format {raw['format']}, this Precedent knows {FORMAT}: upgrade Precedent."
                )
            if set(raw) != {field.name for field in fields(cls)}:
                raise ValueError("keys")
            manifest = cls(**{**raw, "files": tuple(FileFact(**fact) for fact in raw["files"])})
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{MANIFEST} can't be read: the backup is damaged. Use another one.") from error
        for fact in manifest.files:
            path = PurePosixPath(fact.name)
            if path.is_absolute() or ".." in path.parts or path.as_posix() != fact.name:
                raise StoreError(f"{MANIFEST} names a file outside the backup: it was not written by precedent backup.")
        return manifest


def write_manifest(place: Path, manifest: BackupManifest) -> None:
    """Write manifest and checksum, fsynced."""
    write_checksummed(place, MANIFEST, manifest.to_bytes(), 0o600)


def read_backup(source: Path) -> BackupManifest:
    """The manifest of a backup, once its checksum has matched. The files are not looked at.

    UsageError when ``source`` is no backup, StoreError when its manifest is damaged, StoreTooNew for a later format.
    """
    try:
        data = read_checksummed(source, MANIFEST)
    except OSError as error:
        raise UsageError(
            f"'{source}' is no backup: expected a directory made by precedent backup, with {MANIFEST} and {CHECKSUM}."
        ) from error
    if data is None:
        raise StoreError(f"{MANIFEST} does not have the SHA-256 in {CHECKSUM}: the backup is damaged. Use another one.")
    return BackupManifest.parse(data)
