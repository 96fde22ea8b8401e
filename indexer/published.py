"""Vectors that others have published: a folder as clip-retrieval writes it, with a table of what is known of each row.

``img_emb/*.npy`` and ``metadata/*.parquet``, shard by shard in the order of their names, row for row. Columns mean what
they mean in a labels file: ``patient_id``, ``report``, attributes, and every other column is a label.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.labels.columns import PATH, UIDS, Columns, attributes_of, label_values, labels_of, number, understand
from indexer.labels.files import RawTable, Row, open_table
from retrieval.catalog import Binding
from retrieval.encoders import Pooling, open_encoder
from retrieval.encoders.bound import binding_of
from retrieval.encoders.vectors import named_vectors_spec
from retrieval.errors import StoreError, UsageError
from retrieval.privacy import Secret
from retrieval.types import Case, CaseKind, EmbeddedCase, Embedding, UnitRows
from retrieval.vectors.manifest import METADATA, VECTORS
from retrieval.vectors.npy import open_npy

BATCH = 500
_NAMES = (PATH, "case_id", "key", "id", "url")  # columns that can tell one row from another, the best first


@dataclass(frozen=True, slots=True)
class _Shard:
    vectors: Path
    table: Path


@dataclass(frozen=True, slots=True)
class PublishedVectors:
    """Such a folder, its encoder known by ``name`` alone. ``numeric``: label columns of numbers alone."""

    name: str
    shards: tuple[_Shard, ...]
    dim: int
    count: int
    numeric: frozenset[str]
    secret: Secret

    @classmethod
    def open(cls, folder: Path, name: str, secret: Secret) -> PublishedVectors:
        """UsageError for a folder of another layout, StoreError naming a file that can't be read."""
        shards = _shards(folder)
        arrays = [open_npy(shard.vectors, shard.vectors.name) for shard in shards]
        if len(dims := {array.shape[1] for array in arrays}) > 1:
            raise StoreError(f"The files of {VECTORS} have rows of {sorted(dims)} numbers: expected one encoder's.")
        count = sum(len(array) for array in arrays)
        if not count:
            raise UsageError(f"There are no vectors in {VECTORS}: nothing to import.")
        return cls(name, shards, dims.pop(), count, _numeric(shards), secret)

    @property
    def binding(self) -> Binding:
        card = open_encoder(named_vectors_spec(self.name, self.dim)).card
        return binding_of(card, Pooling())

    def check(self) -> None:
        seen: set[str] = set()
        for batch in self.batches():
            for each in batch:
                if each.case.case_id in seen:
                    raise StoreError(
                        "Two rows of the tables have the same name (or, without a column of names, cannot be told "
                        "apart): expected each case once."
                    )
                seen.add(each.case.case_id)

    def batches(self) -> Iterator[list[EmbeddedCase]]:
        first = 0
        for shard in self.shards:
            vectors = open_npy(shard.vectors, shard.vectors.name)
            table, columns, named_by = _read(shard.table)
            held: list[Row] = []
            start = 0
            for row in table.rows:
                held.append(row)
                if len(held) == BATCH:
                    yield self._cases(shard, vectors, start, held, columns, named_by, first + start)
                    start, held = start + len(held), []
            if held:
                yield self._cases(shard, vectors, start, held, columns, named_by, first + start)
            if start + len(held) != len(vectors):
                raise StoreError(
                    f"{shard.table.name} has {start + len(held)} rows and {shard.vectors.name} has {len(vectors)}: "
                    "expected as many of one as of the other."
                )
            first += len(vectors)

    def _cases(
        self,
        shard: _Shard,
        vectors: npt.NDArray[Any],
        start: int,
        rows: Sequence[Row],
        columns: Columns,
        named_by: str,
        first: int,
    ) -> list[EmbeddedCase]:
        if start + len(rows) > len(vectors):
            raise StoreError(
                f"{shard.table.name} has more rows than {shard.vectors.name} ({len(vectors)}): expected as many of one "
                "as of the other."
            )
        units = _units(vectors[start : start + len(rows)], shard.vectors.name, start)
        return [
            EmbeddedCase(
                self._case(row, vector, columns, shard.table.name, columns.cell(row.cells, named_by) or str(first + n)),
                Embedding(vector, vector[None, :], (0,)),
            )
            for n, (row, vector) in enumerate(zip(rows, units, strict=True))
        ]

    def _case(self, row: Row, vector: npt.NDArray[np.float32], columns: Columns, table: str, named: str) -> Case:
        cell = columns.cell
        return Case(
            case_id=hashlib.sha256(f"{self.name}\0{named}".encode()).hexdigest()[:16],
            kind=CaseKind.IMAGE,
            attributes=attributes_of(row.cells, columns, row.line, table),
            labels=labels_of(row.cells, columns, self.numeric),
            report=cell(row.cells, "report"),
            patient_key=self.secret.patient_key(cell(row.cells, "patient_id")),
            study_uid=self.secret.patient_key(cell(row.cells, "study_uid") or cell(row.cells, "study_id"), "study"),
            content_sha256=hashlib.sha256(vector.tobytes()).hexdigest(),
        )


def _shards(folder: Path) -> tuple[_Shard, ...]:
    vectors = sorted((folder / VECTORS).glob("*.npy"))
    tables = sorted((folder / METADATA).glob("*.parquet"))
    if not vectors or len(vectors) != len(tables):
        raise UsageError(
            f"Expected as many {VECTORS}/*.npy as {METADATA}/*.parquet in '{folder}', as clip-retrieval writes them; "
            f"got {len(vectors)} and {len(tables)}."
        )
    for array, table in zip(vectors, tables, strict=True):
        if _number(array) != _number(table):
            raise UsageError(
                f"In the order of their names {array.name} would go with {table.name}: give both the same number."
            )
    return tuple(_Shard(*pair) for pair in zip(vectors, tables, strict=True))


def _number(path: Path) -> str:
    return path.stem.rpartition("_")[2]


def _read(path: Path) -> tuple[RawTable, Columns, str]:
    """The table, its columns, and which special column names a row ("" for none)."""
    raw = open_table(path)
    header = list(raw.header)
    lower = [name.lower() for name in header]
    naming = next((n for name in _NAMES for n, each in enumerate(lower) if each.replace("image_", "") == name), None)
    if naming is not None:
        header[naming] = PATH
    if "caption" in lower and "report" not in lower:
        header[lower.index("caption")] = "report"
    columns = understand([*header] if naming is not None else [*header, PATH], path.name)
    if naming is None:  # rows are then known by their place
        columns = Columns({name: n for name, n in columns.special.items() if name != PATH}, columns.labels)
    named_by = PATH if naming is not None else next((uid for uid in UIDS if uid in columns.special), "")
    return raw, columns, named_by


def _numeric(shards: Sequence[_Shard]) -> frozenset[str]:
    """The label columns that hold numbers and nothing else, over all shards."""
    numeric: set[str] = set()
    other: set[str] = set()
    for shard in shards:
        table, columns, _ = _read(shard.table)
        for row in table.rows:
            for name, index in columns.labels:
                for value in label_values(row.cells[index]) if name not in other else ():
                    (numeric if number(value) is not None else other).add(name)
    return frozenset(numeric - other)


def _units(rows: npt.NDArray[Any], name: str, start: int) -> UnitRows:
    """Published vectors at length 1, float32: their length says nothing here."""
    wide = np.asarray(rows, dtype=np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(lengths[:, 0]) & (lengths[:, 0] > 0)))
    if bad.size:
        raise StoreError(
            f"Row {start + int(bad[0])} of {name} is zero or holds NaN or infinity: it points nowhere, so it can't be "
            "compared."
        )
    return np.ascontiguousarray(wide / lengths, dtype=np.float32)
