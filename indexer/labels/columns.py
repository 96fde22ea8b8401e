"""What the columns of a labels file mean: which say where a row belongs, which fill attributes, which are labels."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from indexer.labels.files import SEPARATOR
from retrieval.errors import UsageError
from retrieval.types import Attributes, Label

PATH = "path"
UIDS = ("sop_uid", "series_uid", "study_uid")  # finest first
ATTRIBUTES = ("modality", "body_part", "view", "laterality", "sex", "age", "manufacturer", "source")
_ALIASES = {
    "filepath": PATH, "file": PATH, "filename": PATH, "imagepath": PATH,
    "sopuid": "sop_uid", "sopinstanceuid": "sop_uid",
    "seriesuid": "series_uid", "seriesinstanceuid": "series_uid", "seriesid": "series_uid",
    "studyuid": "study_uid", "studyinstanceuid": "study_uid",
    "patientid": "patient_id", "patient": "patient_id", "subjectid": "patient_id",
    "studyid": "study_id", "accession": "study_id", "accessionnumber": "study_id",
    "reporttext": "report", "radiologyreport": "report",
    "patientage": "age", "ageyears": "age", "patientsex": "sex", "gender": "sex",
    "bodypart": "body_part", "bodypartexamined": "body_part",
    "viewposition": "view", "imagelaterality": "laterality",
}  # fmt: skip
_CANONICAL = {name.replace("_", ""): name for name in (PATH, *UIDS, "patient_id", "study_id", "report", *ATTRIBUTES)}
_BLANK = {"", "nan", "n/a", "null"}  # how tables spell "no value"; "none" and "na" may be real labels
_UNKNOWN = _BLANK | {"na", "none", "unknown", "unk", "u", "-", "?"}
_SEXES = {"f": "F", "female": "F", "w": "F", "woman": "F", "m": "M", "male": "M", "man": "M", "o": "O", "other": "O"}
_SIDES = {"l": "L", "left": "L", "r": "R", "right": "R", "b": "B", "both": "B", "bilateral": "B"}
_DICOM_AGE = re.compile(r"(\d{1,3})([YMWD])", re.IGNORECASE)
_AGE_UNITS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
MAX_AGE = 150.0


@dataclass(frozen=True, slots=True)
class Columns:
    """Where each known column stands in a row (special name -> index), and which columns are labels (name, index)."""

    special: dict[str, int]
    labels: tuple[tuple[str, int], ...]

    def cell(self, cells: Sequence[str], name: str) -> str:
        """The cell of a special column, "" where the table lacks it or says so in one of the usual ways."""
        index = self.special.get(name)
        text = "" if index is None else cells[index].strip()
        return "" if text.lower() in _BLANK else text


def understand(header: Sequence[str], table: str) -> Columns:
    """Sort the columns of a header; a ``UsageError`` names what is doubled, nameless or missing."""
    special: dict[str, int] = {}
    labels: dict[str, int] = {}
    for index, name in enumerate(header):
        if not name:
            raise UsageError(f"Column {index + 1} of {table} has no name: give every column one.")
        meaning = _meaning(name)
        taken = special if meaning else labels
        if (meaning or name) in taken:
            first = header[taken[meaning or name]]
            raise UsageError(
                f"The columns '{first}' and '{name}' of {table} mean the same: keep or rename one of them."
            )
        taken[meaning or name] = index
    if not {PATH, *UIDS} & special.keys():
        raise UsageError(
            f"Expected a column 'path' or one of study_uid, series_uid, sop_uid in {table}; got: {', '.join(header)}."
        )
    return Columns(special, tuple(labels.items()))


def _meaning(name: str) -> str:
    bare = re.sub(r"[\s_\-]", "", name).lower()
    return _CANONICAL.get(bare) or _ALIASES.get(bare) or ""


def label_values(cell: str) -> tuple[str, ...]:
    """The values of one label cell, in order, each once."""
    parts = (part.strip() for part in cell.split(SEPARATOR))
    return tuple(dict.fromkeys(part for part in parts if part.lower() not in _BLANK))


def number(text: str) -> float | None:
    """The finite number a text stands for, or None. 1_000, which ``float`` accepts, is no number."""
    if "_" in text:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def labels_of(cells: Sequence[str], columns: Columns, numeric: frozenset[str]) -> tuple[Label, ...]:
    """The labels of a row; ``numeric`` names the columns where every value of the table is a number."""
    return tuple(
        Label(name, value, number(value) if name in numeric else None)
        for name, index in columns.labels
        for value in label_values(cells[index])
    )


def attributes_of(cells: Sequence[str], columns: Columns, line: int, table: str) -> Attributes:
    """The attributes a row states, unknown where it is silent. Values that can't be understood are a ``UsageError``."""
    return Attributes(
        modality=columns.cell(cells, "modality"),
        body_part=columns.cell(cells, "body_part").upper(),
        view=columns.cell(cells, "view"),
        laterality=_one_of(columns.cell(cells, "laterality"), _SIDES, "laterality", line, table),
        sex=_one_of(columns.cell(cells, "sex"), _SEXES, "sex", line, table),
        age=_age(columns.cell(cells, "age"), line, table),
        manufacturer=columns.cell(cells, "manufacturer"),
        source=columns.cell(cells, "source"),
    )


def _one_of(text: str, spellings: dict[str, str], column: str, line: int, table: str) -> str:
    if text.lower() in _UNKNOWN:
        return ""
    if text.lower() not in spellings:
        allowed = ", ".join(sorted({*spellings.values()}))
        raise UsageError(f"Line {line} of {table}: expected one of {allowed} or nothing in the column '{column}'.")
    return spellings[text.lower()]


def _age(text: str, line: int, table: str) -> float | None:
    """Years, from a plain number or a DICOM age string: ``045Y``, ``006M``, ``012W``, ``003D`` (PS3.5 6.2)."""
    if text.lower() in _UNKNOWN:
        return None
    if dicom := _DICOM_AGE.fullmatch(text):
        return int(dicom[1]) * _AGE_UNITS[dicom[2].upper()]
    years = number(text)
    if years is None or not 0 <= years <= MAX_AGE:
        raise UsageError(
            f"Line {line} of {table}: expected years between 0 and {MAX_AGE:.0f}, a DICOM age such as 045Y, "
            "or nothing in the column 'age'."
        )
    return years
