"""Reading an export of Precedent, a batch at a time, with everything that can be wrong with it told by name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval.catalog import Binding
from retrieval.errors import StoreError
from retrieval.types import Case, EmbeddedCase, Embedding, UnitRows
from retrieval.vectors import manifest as layout
from retrieval.vectors.manifest import VectorManifest, read_manifest, shard_path
from retrieval.vectors.npy import open_npy
from retrieval.vectors.tables import case_of

BATCH = 500
TOLERANCE = {"float32": 1e-3, "float16": 2e-3}  # of the norm of a row


@dataclass(frozen=True, slots=True)
class ExportedVectors:
    """A folder written by ``precedent export``."""

    folder: Path
    manifest: VectorManifest

    @classmethod
    def open(cls, folder: Path) -> ExportedVectors:
        """See ``read_manifest`` for what is raised."""
        return cls(folder, read_manifest(folder))

    @property
    def binding(self) -> Binding:
        return self.manifest.binding

    @property
    def count(self) -> int:
        return self.manifest.cases

    def check(self) -> None:
        """Sizes and hashes of all files, then every row: counts, length, norms, NaN, ids that occur once."""
        for fact in self.manifest.files:
            self._check_file(fact.name, fact.bytes, fact.sha256)
        ids: set[str] = set()
        slices = 0
        for batch in self.batches():
            for each in batch:
                if each.case.case_id in ids:
                    raise StoreError(f"Case {each.case.case_id} is in the export twice: export again.")
                ids.add(each.case.case_id)
                slices += len(each.embedding.slices) if self.manifest.slices else 0
        if (len(ids), slices) != (self.manifest.cases, self.manifest.slices):
            raise StoreError(
                f"The export holds {len(ids)} cases and {slices} slices, {layout.MANIFEST} says {self.manifest.cases} "
                f"and {self.manifest.slices}: export again."
            )

    def batches(self) -> Iterator[list[EmbeddedCase]]:
        for shard in self.manifest.shards:
            yield from self._shard(shard)

    def _check_file(self, name: str, size: int, sha256: str) -> None:
        try:
            with (self.folder / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                found = file.tell()
        except FileNotFoundError as error:
            raise StoreError(f"{name} is missing from the export: copy it again from where it came from.") from error
        if (found, digest) != (size, sha256):
            raise StoreError(
                f"{name} is not the file that was exported ({found} bytes, expected {size}; or its SHA-256 differs): "
                "it was damaged or edited. Copy it again from where it came from."
            )

    def _shard(self, shard: str) -> Iterator[list[EmbeddedCase]]:
        name = shard_path(layout.VECTORS, shard)
        vectors = open_npy(self.folder / name, name)
        table = open_parquet(self.folder, shard_path(layout.METADATA, shard))
        check_shape(vectors, table.metadata.num_rows, name, self.binding.dim)
        slices = _Slices.open(self.folder, shard, self.binding.dim) if self.manifest.slices else None
        start = 0
        for records in table.iter_batches(batch_size=BATCH):
            rows = unit(vectors[start : start + len(records)], name, start, TOLERANCE[self.manifest.dtype])
            cases = [self._case(row, shard) for row in records.to_pylist()]
            yield [
                EmbeddedCase(case, slices.take(case, row) if slices else Embedding(row, row[None, :], (0,)))
                for case, row in zip(cases, rows, strict=True)
            ]
            start += len(records)

    def _case(self, row: dict[str, Any], shard: str) -> Case:
        try:
            return case_of(row)
        except (KeyError, TypeError, ValueError) as error:
            name = shard_path(layout.METADATA, shard)
            raise StoreError(f"{name} has other columns or values than an export has: export again.") from error


class _Slices:
    """The slices of a shard, which come in the order of its cases."""

    def __init__(self, rows: npt.NDArray[Any], ids: Any, frames: Any, name: str) -> None:
        self._rows, self._ids, self._frames, self._name = rows, ids, frames, name
        self._at = 0

    @classmethod
    def open(cls, folder: Path, shard: str, dim: int) -> _Slices:
        name = shard_path(layout.SLICES, shard)
        rows = open_npy(folder / name, name)
        table = open_parquet(folder, shard_path(layout.SLICE_METADATA, shard)).read()
        check_shape(rows, table.num_rows, name, dim)
        return cls(rows, table.column("case_id"), table.column("frame").to_numpy(), name)

    def take(self, case: Case, vector: npt.NDArray[np.float32]) -> Embedding:
        """The slices of the next case of the table."""
        start = self._at
        while self._at < len(self._rows) and self._ids[self._at].as_py() == case.case_id:
            self._at += 1
        if start == self._at:
            raise StoreError(f"{self._name} has no slices of case {case.case_id} where they should be: export again.")
        rows = checked(self._rows[start : self._at], self._name, start, TOLERANCE["float16"])
        frames = tuple(int(frame) for frame in self._frames[start : self._at])
        return Embedding(vector, rows, frames)


def open_parquet(folder: Path, name: str) -> Any:
    """A Parquet file; StoreError naming it when it is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(folder / name)
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{name} can't be read as Parquet: it is missing, damaged or of another kind.") from error


def check_shape(rows: npt.NDArray[Any], count: int, name: str, dim: int) -> None:
    if rows.shape != (count, dim):
        raise StoreError(
            f"{name} has {rows.shape[0]} rows of {rows.shape[1]} numbers, expected {count} (as its table has) of {dim}."
        )


def checked(rows: npt.NDArray[Any], name: str, start: int, tolerance: float) -> UnitRows:
    """The rows as float32, when all are finite and of length 1 within ``tolerance``; else StoreError."""
    wide = np.ascontiguousarray(rows, dtype=np.float32)
    norms = np.sqrt(np.einsum("nd,nd->n", wide, wide, dtype=np.float64))
    if (bad := np.flatnonzero(~np.isfinite(norms))).size:
        raise StoreError(f"Row {start + int(bad[0])} of {name} holds NaN or infinity: these vectors can't be searched.")
    if (bad := np.flatnonzero(np.abs(norms - 1) > tolerance)).size:
        length = float(norms[bad[0]])
        raise StoreError(f"Row {start + int(bad[0])} of {name} has length {length:.4g}, expected 1: it was altered.")
    return wide


def unit(rows: npt.NDArray[Any], name: str, start: int, tolerance: float) -> UnitRows:
    """As ``checked``; what has been through float16 is brought back to length 1."""
    wide = checked(rows, name, start, tolerance)
    if rows.dtype.itemsize < 4:
        wide = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return wide
