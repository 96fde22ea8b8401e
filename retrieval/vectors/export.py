"""Writing an export: one state of the gallery, a batch at a time, under a hidden name until all of it is on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.backups.backup import check_target
from retrieval.backups.staging import staging, sync_directories
from retrieval.catalog import Catalog
from retrieval.database import now
from retrieval.errors import StoreError, UsageError
from retrieval.manifest import FileFact
from retrieval.storage import storing, sync_directory
from retrieval.types import Keys
from retrieval.vectors import manifest as layout
from retrieval.vectors.manifest import VectorManifest, shard_path, write_manifest
from retrieval.vectors.npy import NpyWriter
from retrieval.vectors.tables import Disguise, metadata_schema, row_of, slice_schema

SHARD = 100_000  # cases in a file
BATCH = 500  # cases held at a time
DTYPES = ("float32", "float16")

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Exported:
    """A finished export."""

    path: Path
    manifest: VectorManifest


def export_vectors(
    catalog: Catalog,
    target: Path,
    *,
    dtype: str = "float32",
    reports: bool = True,
    slices: bool = True,
    uids: bool = False,
    shard: int = SHARD,
    progress: Progress | None = None,
) -> Exported:
    """Write the cases on file, as of this moment, to the directory ``target``, which appears when all of it is on disk.

    The vectors are the encoder's, as stored, whatever adapter is live. float32 comes back to the bit; "float16" halves
    the size and rounds each number to 11 significant bits. ``shard``: cases in a file. Patients (and, unless ``uids``,
    studies and series) get pseudonyms of this export alone. ``progress`` is told (cases done, of how many).

    Raises UsageError when ``target`` is there already, its parent is not, or nothing is on file; StoreError,
    StorageFull. Then, and when the process is killed, there is no ``target``.
    """
    check_target(target)
    if dtype not in DTYPES:
        raise UsageError(f"Expected float32 or float16 as the type of the numbers, got '{dtype}'.")
    if shard < 1:
        raise UsageError(f"A file takes at least 1 case, got {shard}.")
    disguise = Disguise(os.urandom(32), reports=reports, uids=uids)
    with storing("The export can't be written"), staging(target.parent) as place:
        with catalog.one_state():
            keys, at = catalog.select(), now()
            if not len(keys):
                raise UsageError("Nothing is on file, so there are no vectors to export: run precedent index first.")
            names = shard_names(-(-len(keys) // shard))
            rows = 0
            for n, name in enumerate(names):
                writer = _Shard(catalog, place, name, disguise, dtype, slices)
                told = _told(progress, n * shard, len(keys))
                rows += writer.write(keys[n * shard : (n + 1) * shard], told)
        files = tuple(_sealed(place, names, slices=rows > 0))
        manifest = VectorManifest(
            version=version("precedent"),
            created_at=at,
            binding=catalog.embedded_with(),
            dtype=dtype,
            cases=len(keys),
            slices=rows,
            reports=reports,
            uids=uids,
            shards=names,
            files=files,
        )
        write_manifest(place, manifest)
        sync_directories(place)
        place.rename(target)
        sync_directory(target.parent)
    return Exported(target, manifest)


def shard_names(count: int) -> tuple[str, ...]:
    """Numbers of equal width, so that the order of the names is that of the rows for whoever sorts them as text."""
    width = len(str(count - 1))
    return tuple(f"{n:0{width}}" for n in range(count))


def _told(progress: Progress | None, before: int, total: int) -> Callable[[int], None]:
    return lambda done: progress(before + done, total) if progress else None


@dataclass(frozen=True, slots=True)
class _Shard:
    """The files of one shard, written row for row."""

    catalog: Catalog
    place: Path
    name: str
    disguise: Disguise
    dtype: str
    slices: bool

    def write(self, keys: Keys, told: Callable[[int], None]) -> int:
        """How many slices there were."""
        dim = self.catalog.embedded_with().dim
        with ExitStack() as stack:
            vectors = stack.enter_context(NpyWriter(self._path(layout.VECTORS), dim, self.dtype))
            table = stack.enter_context(_parquet(self._path(layout.METADATA), metadata_schema()))
            if self.slices:
                slices = stack.enter_context(NpyWriter(self._path(layout.SLICES), dim, np.float16))
                slice_table = stack.enter_context(_parquet(self._path(layout.SLICE_METADATA), slice_schema()))
            for start in range(0, len(keys), BATCH):
                batch = keys[start : start + BATCH]
                ids = self._cases(batch, vectors, table)
                if self.slices:
                    self._slices(batch, ids, slices, slice_table)
                told(start + len(batch))
            return slices.rows if self.slices else 0

    def _path(self, folder: str) -> Path:
        path = self.place / shard_path(folder, self.name)
        path.parent.mkdir(exist_ok=True)
        return path

    def _cases(self, keys: Keys, vectors: NpyWriter, table: Any) -> list[str]:
        import pyarrow as pa

        found, rows = self.catalog.vectors_of(keys)
        cases = self.catalog.cases(keys)
        if not np.array_equal(found, keys) or len(cases) != len(keys):
            raise StoreError("Some cases have no vector of the gallery's encoder: run precedent verify --repair first.")
        vectors.append(rows)
        told = [row_of(case, self.disguise) for case in cases.values()]
        table.write_table(pa.Table.from_pylist(told, schema=metadata_schema()))
        return [row["case_id"] for row in told]

    def _slices(self, keys: Keys, ids: list[str], slices: NpyWriter, table: Any) -> None:
        import pyarrow as pa

        stored = self.catalog.stored_slices(keys)
        told = []
        for key, case_id in zip(keys.tolist(), ids, strict=True):
            if key not in stored:
                raise StoreError(f"Case {case_id} has no slices on file: run precedent verify first.")
            rows, frames = stored[key]
            slices.append(rows)
            told += [{"case_id": case_id, "frame": frame} for frame in frames]
        table.write_table(pa.Table.from_pylist(told, schema=slice_schema()))


def _parquet(path: Path, schema: Any) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetWriter(path, schema)


def _sealed(place: Path, names: tuple[str, ...], *, slices: bool) -> Iterator[FileFact]:
    """Fsync and hash every file."""
    for name in layout.file_names(names, slices=slices):
        with (place / name).open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            yield FileFact(name, file.tell(), digest)
