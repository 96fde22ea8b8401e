"""What an export says of itself: ``precedent-vectors.json``, and beside it the SHA-256 of that."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Self

from retrieval.catalog import Binding
from retrieval.checksummed import checksum_name, read_checksummed, write_checksummed
from retrieval.errors import StoreError, StoreTooNew, UsageError
from retrieval.manifest import FileFact

FORMAT = 1
MANIFEST = "precedent-vectors.json"
CHECKSUM = checksum_name(MANIFEST)
VECTORS, METADATA = "img_emb", "metadata"
SLICES, SLICE_METADATA = "slice_emb", "slice_metadata"


@dataclass(frozen=True, slots=True)
class VectorManifest:
    """``dtype``: of the cases' vectors; those of slices are float16. ``files``: all but the manifest and its checksum.

    ``shards``: the endings of the file names, as ``("0",)`` or ``("00", ..., "11")``: sorted as text they are in order.
    """

    version: str  # of Precedent
    created_at: str  # ISO 8601, UTC
    binding: Binding
    dtype: str  # "float32" or "float16"
    cases: int
    slices: int  # 0 where they were left out
    reports: bool
    uids: bool
    shards: tuple[str, ...]
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
                    f"The export has format {raw['format']}, this Precedent knows {FORMAT}: upgrade Precedent."
                )
            if set(raw) != {field.name for field in fields(cls)}:
                raise ValueError("keys")
            parts = {
                "binding": Binding(**raw["binding"]),
                "shards": tuple(raw["shards"]),
                "files": tuple(FileFact(**fact) for fact in raw["files"]),
            }
            manifest = cls(**{**raw, **parts})
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{MANIFEST} can't be read: the export is damaged. Export again.") from error
        if {fact.name for fact in manifest.files} != set(file_names(manifest.shards, slices=manifest.slices > 0)):
            raise StoreError(f"{MANIFEST} names other files than its shards have: the export is damaged. Export again.")
        return manifest


def shard_path(folder: str, shard: str) -> str:
    """The file of a shard, relative to the export: ``img_emb/img_emb_0.npy``, ``metadata/metadata_0.parquet``."""
    ending = "npy" if folder in (VECTORS, SLICES) else "parquet"
    return f"{folder}/{folder}_{shard}.{ending}"


def file_names(shards: tuple[str, ...], *, slices: bool) -> list[str]:
    folders = (VECTORS, METADATA, *((SLICES, SLICE_METADATA) if slices else ()))
    return [shard_path(folder, shard) for folder in folders for shard in shards]


def is_export(folder: Path) -> bool:
    """Whether a folder was written by ``precedent export``, damaged or not."""
    return (folder / MANIFEST).exists() or (folder / CHECKSUM).exists()


def write_manifest(place: Path, manifest: VectorManifest) -> None:
    """Write manifest and checksum, fsynced."""
    write_checksummed(place, MANIFEST, manifest.to_bytes())


def read_manifest(folder: Path) -> VectorManifest:
    """The manifest of an export, once its checksum has matched; the files are not looked at.

    UsageError when the folder is no export, StoreError when its manifest is damaged, StoreTooNew for a later format.
    """
    try:
        data = read_checksummed(folder, MANIFEST)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(
            f"'{folder}' is no export of Precedent: expected {MANIFEST} and {CHECKSUM} in it. For vectors from "
            "elsewhere say what made them: --encoder-name NAME."
        ) from error
    if data is None:
        raise StoreError(f"{MANIFEST} does not match its checksum: it was damaged or edited. Export again.")
    return VectorManifest.parse(data)
