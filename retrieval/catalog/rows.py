"""Rows and dataclasses, turned into each other. Pure; all byte order is little-endian."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Row

from retrieval.errors import StoreError
from retrieval.storable import clean
from retrieval.types import Attributes, Case, CaseFile, CaseKind, Embedding, FrameRef, Keys, Label, UnitRows

FLOAT32 = np.dtype("<f4")
FLOAT16 = np.dtype("<f2")
INT32 = np.dtype("<i4")


def finite(number: float | None) -> float | None:
    """A number that compares; NaN and infinity are unknown, not values."""
    return None if number is None or not math.isfinite(number) else float(number)


def attribute_columns(attributes: Attributes) -> dict[str, Any]:
    """The columns of ``cases`` that hold attributes."""
    year = attributes.study_year
    return {
        "modality": clean(attributes.modality),
        "body_part": clean(attributes.body_part),
        "view": clean(attributes.view),
        "laterality": clean(attributes.laterality),
        "sex": clean(attributes.sex),
        "age": finite(attributes.age),
        "manufacturer": clean(attributes.manufacturer),
        "study_year": year if year is not None and 0 <= year <= 9999 else None,
        "source": clean(attributes.source),
    }


def case_columns(case: Case, key: int, duplicate_of: str, created_at: str) -> dict[str, Any]:
    """A new row of ``cases``."""
    row_spacing, column_spacing = case.spacing or (None, None)
    return {
        "key": key,
        "case_id": clean(case.case_id),
        "kind": case.kind.value,
        **attribute_columns(case.attributes),
        "patient_key": clean(case.patient_key),
        "header_patient_key": clean(case.header_patient_key),
        "study_uid": clean(case.study_uid),
        "series_uid": clean(case.series_uid),
        "content_sha256": case.content_sha256,
        "pixel_sha256": case.pixel_sha256,
        "duplicate_of": duplicate_of,
        "rows": case.rows,
        "columns": case.columns,
        "row_spacing": finite(row_spacing),
        "column_spacing": finite(column_spacing),
        "warnings": json.dumps([clean(w) for w in case.warnings], ensure_ascii=False),
        "created_at": case.created_at or created_at,
    }


def label_columns(labels: Iterable[Label], key: int) -> list[dict[str, Any]]:
    """Rows of ``labels``, each (name, value) once, in the order given."""
    unique = {(clean(label.name), clean(label.value)): finite(label.number) for label in labels}
    return [
        {"key": key, "n": n, "name": name, "value": value, "number": number}
        for n, ((name, value), number) in enumerate(unique.items())
    ]


def file_columns(files: Iterable[CaseFile], key: int) -> list[dict[str, Any]]:
    """Rows of ``files``, in order."""
    return [
        {"key": key, "n": n, "sha256": file.sha256, "bytes": file.bytes, "sealed_path": file.sealed_path}
        for n, file in enumerate(files)
    ]


def embedding_columns(embedding: Embedding, key: int, encoder_id: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A row of ``embeddings`` and one of ``slices``."""
    names = {"key": key, "encoder_id": encoder_id}
    vector = {**names, "vector": embedding.vector.astype(FLOAT32).tobytes()}
    slices = {
        **names,
        "length": len(embedding.slices),
        "frames": np.asarray(embedding.slice_frames or range(len(embedding.slices)), dtype=INT32).tobytes(),
        "vectors": embedding.slices.astype(FLOAT16).tobytes(),
    }
    return vector, slices


def case_of(row: Row[Any], labels: Sequence[Label], report: str, packed_frames: bytes) -> Case:
    """A ``Case`` from its row of ``cases`` and what was read beside it."""
    spacing = None if row.row_spacing is None or row.column_spacing is None else (row.row_spacing, row.column_spacing)
    return Case(
        case_id=row.case_id,
        kind=CaseKind(row.kind),
        attributes=attributes_of(row),
        labels=tuple(labels),
        report=report,
        patient_key=row.patient_key,
        header_patient_key=row.header_patient_key,
        study_uid=row.study_uid,
        series_uid=row.series_uid,
        content_sha256=row.content_sha256,
        pixel_sha256=row.pixel_sha256,
        duplicate_of=row.duplicate_of,
        frames=unpack_frames(packed_frames),
        rows=row.rows,
        columns=row.columns,
        spacing=spacing,
        warnings=tuple(json.loads(row.warnings)),
        key=row.key,
        created_at=row.created_at,
    )


def attributes_of(row: Row[Any]) -> Attributes:
    return Attributes(
        modality=row.modality,
        body_part=row.body_part,
        view=row.view,
        laterality=row.laterality,
        sex=row.sex,
        age=row.age,
        manufacturer=row.manufacturer,
        study_year=row.study_year,
        source=row.source,
    )


def pack_frames(frames: Sequence[FrameRef]) -> bytes:
    """Frames column by column as JSON, deflated: neighbours are alike, so 300 slices take about 2 KB."""
    columns = [
        [frame.file for frame in frames],
        [frame.frame for frame in frames],
        [finite(frame.position_mm) for frame in frames],
        [clean(frame.sop_instance_uid) for frame in frames],
    ]
    return zlib.compress(json.dumps(columns, separators=(",", ":")).encode())


def unpack_frames(packed: bytes) -> tuple[FrameRef, ...]:
    """The inverse of ``pack_frames``; no bytes are no frames."""
    if not packed:
        return ()
    return tuple(FrameRef(*facts) for facts in zip(*json.loads(zlib.decompress(packed)), strict=True))


def stack(keys: Keys, blobs: Sequence[bytes], dim: int) -> UnitRows:
    """Stored vectors as float32 [n, dim]; StoreError when one has another length."""
    joined = b"".join(blobs)
    width = dim * FLOAT32.itemsize
    if len(joined) != width * len(blobs) or any(len(blob) != width for blob in blobs):
        bad = next(key for key, blob in zip(keys, blobs, strict=True) if len(blob) != width)
        raise StoreError(f"The stored vector of key {bad} does not have {dim} float32 numbers: run precedent verify.")
    return np.frombuffer(joined, dtype=FLOAT32).reshape(len(blobs), dim).astype(np.float32, copy=False)


def stored_slices_of(row: Row[Any], dim: int) -> tuple[npt.NDArray[np.float16], tuple[int, ...]]:
    """Slice rows as they are stored; StoreError when there are not as many numbers as the row says."""
    if len(row.vectors) != row.length * dim * FLOAT16.itemsize:
        raise StoreError(f"The stored slices of key {row.key} are not {row.length} x {dim}: run precedent verify.")
    rows = np.frombuffer(row.vectors, dtype=FLOAT16).reshape(row.length, dim)
    return rows, tuple(np.frombuffer(row.frames, dtype=INT32).tolist())


def slices_of(row: Row[Any], dim: int) -> tuple[UnitRows, tuple[int, ...]]:
    """Slice rows widened to float32 and brought back to norm 1, which float16 misses by up to 1e-3."""
    stored, frames = stored_slices_of(row, dim)
    rows = stored.astype(np.float32)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))
    return rows, frames
