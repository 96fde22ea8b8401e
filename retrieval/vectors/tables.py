"""A case as a row of ``metadata_N.parquet``, and back. pyarrow is imported where it is used: it is slow to load."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import asdict, dataclass, fields
from typing import Any

from retrieval.types import Attributes, Case, CaseKind, FrameRef, Label

_PLAIN = ("case_id", "report", "content_sha256", "pixel_sha256", "rows", "columns", "created_at")


@dataclass(frozen=True, slots=True)
class Disguise:
    """What is left out of an export, and what pseudonyms stand for patients (and studies) within it.

    ``salt``: random bytes of this one export, thrown away afterwards. The same patient has the same pseudonym in all of
    it, and another one in the next export.
    """

    salt: bytes
    reports: bool = True
    uids: bool = False

    def pseudonym(self, purpose: str, text: str) -> str:
        """32 hex digits, "" for ""."""
        return hmac.new(self.salt, f"{purpose}\0{text}".encode(), hashlib.sha256).hexdigest()[:32] if text else ""

    def uid(self, text: str) -> str:
        return text if self.uids else self.pseudonym("uid", text)


def metadata_schema() -> Any:
    import pyarrow as pa

    label = pa.struct([("name", pa.string()), ("value", pa.string()), ("number", pa.float64())])
    frame = pa.struct(
        [("file", pa.int32()), ("frame", pa.int32()), ("position_mm", pa.float64()), ("sop_instance_uid", pa.string())]
    )
    attributes = [
        (field.name, {"age": pa.float64(), "study_year": pa.int32()}.get(field.name, pa.string()))
        for field in fields(Attributes)
    ]
    texts = ("report", "patient_key", "header_patient_key", "study_uid", "series_uid", "content_sha256", "pixel_sha256")
    return pa.schema(
        [
            ("case_id", pa.string()),
            ("kind", pa.string()),
            *attributes,
            ("labels", pa.list_(label)),
            *((name, pa.string()) for name in texts),
            ("frames", pa.list_(frame)),
            ("rows", pa.int32()),
            ("columns", pa.int32()),
            ("spacing", pa.list_(pa.float64())),
            ("warnings", pa.list_(pa.string())),
            ("created_at", pa.string()),
        ]
    )


def slice_schema() -> Any:
    """Row for row with the slices: whose each is, and which of the case's frames."""
    import pyarrow as pa

    return pa.schema([("case_id", pa.string()), ("frame", pa.int32())])


def row_of(case: Case, disguise: Disguise) -> dict[str, Any]:
    """The case as a row of the table. Never in it: source paths, thumbnails, keys."""
    return {
        **{name: getattr(case, name) for name in _PLAIN},
        "report": case.report if disguise.reports else "",
        "kind": case.kind.value,
        **asdict(case.attributes),
        "labels": [asdict(label) for label in case.labels],
        "patient_key": disguise.pseudonym("patient", case.patient_key),
        "header_patient_key": disguise.pseudonym("patient", case.header_patient_key),
        "study_uid": disguise.uid(case.study_uid),
        "series_uid": disguise.uid(case.series_uid),
        "frames": [
            {**asdict(frame), "sop_instance_uid": frame.sop_instance_uid if disguise.uids else ""}
            for frame in case.frames
        ],
        "spacing": list(case.spacing) if case.spacing else None,
        "warnings": list(case.warnings),
    }


def case_of(row: dict[str, Any]) -> Case:
    """The inverse of ``row_of``. Raises KeyError, TypeError or ValueError for a row of another table."""
    spacing = row["spacing"]
    return Case(
        **{name: row[name] for name in _PLAIN},
        kind=CaseKind(row["kind"]),
        attributes=Attributes(**{field.name: row[field.name] for field in fields(Attributes)}),
        labels=tuple(Label(**label) for label in row["labels"]),
        patient_key=row["patient_key"],
        header_patient_key=row["header_patient_key"],
        study_uid=row["study_uid"],
        series_uid=row["series_uid"],
        frames=tuple(FrameRef(**frame) for frame in row["frames"]),
        spacing=(spacing[0], spacing[1]) if spacing else None,
        warnings=tuple(row["warnings"]),
    )
