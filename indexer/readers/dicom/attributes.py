"""What is kept of a DICOM header: coded facts that pass an allow-list of values, so that no free text gets through.

A tag is not enough: names are typed into body parts and manufacturers. So every kept text is matched against the
words it may consist of, and is dropped when any word is unknown.
"""

from __future__ import annotations

import re
from datetime import date

from pydicom.dataset import Dataset

from indexer.readers.dicom import values
from indexer.readers.dicom.words import ANATOMY, VIEWS, WEIGHTINGS
from retrieval.types import Attributes

_CODE = re.compile(r"[A-Z][A-Z0-9]{1,7}\Z")
_AGE = re.compile(r"(\d{3})([DWMY])\Z")
_DATE = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})\Z")
_PER_YEAR = {"Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25}

_MAKERS = (
    ("siemens", "Siemens"), ("philips", "Philips"), ("toshiba", "Toshiba"), ("canon", "Canon"), ("hitachi", "Hitachi"),
    ("fuji", "Fujifilm"), ("hologic", "Hologic"), ("lorad", "Hologic"), ("agfa", "Agfa"), ("carestream", "Carestream"),
    ("kodak", "Kodak"), ("konica", "Konica Minolta"), ("samsung", "Samsung"), ("shimadzu", "Shimadzu"),
    ("esaote", "Esaote"), ("united imaging", "United Imaging"), ("uih", "United Imaging"), ("neusoft", "Neusoft"),
    ("mindray", "Mindray"), ("acuson", "Siemens"), ("sonosite", "SonoSite"), ("bruker", "Bruker"), ("varian", "Varian"),
    ("elekta", "Elekta"), ("marconi", "Marconi"), ("picker", "Picker"), ("heidelberg", "Heidelberg Engineering"),
    ("zeiss", "Zeiss"), ("topcon", "Topcon"), ("leica", "Leica"), ("imatron", "Imatron"), ("planmeca", "Planmeca"),
    ("medison", "Samsung"), ("swissray", "Swissray"), ("sectra", "Sectra"), ("hyperfine", "Hyperfine"),
)  # fmt: skip
_GENERAL_ELECTRIC = re.compile(r"(ge|g\.e\.|general electric)\b", re.IGNORECASE)
_SEQUENCES = {"SE": "spin echo", "IR": "inversion recovery", "GR": "gradient echo", "EP": "echo planar"}


def attributes_of(header: Dataset) -> Attributes:
    """The allow-listed attributes; anything not understood is left empty."""
    return Attributes(
        modality=modality_of(header),
        body_part=_worded(values.text(header, "BodyPartExamined").upper(), ANATOMY),
        view=_worded(values.text(header, "ViewPosition").upper(), VIEWS),
        laterality=_laterality(header),
        sex=_one_of(values.text(header, "PatientSex").upper(), "FMO"),
        age=_age(header),
        manufacturer=_maker(values.text(header, "Manufacturer")),
        study_year=_year(header),
    )


def modality_of(header: Dataset) -> str:
    """The code of the modality (PS3.3 C.7.3.1.1.1), or "" for what is none."""
    found = values.text(header, "Modality").upper()
    return found if _CODE.match(found) else ""


def declared_labels(header: Dataset) -> tuple[tuple[str, str], ...]:
    """Coded facts offered as labels: MR ``sequence`` and ``contrast weighting``, CT ``contrast`` agent yes."""
    labels = []
    codes = [_SEQUENCES[each] for each in values.texts(header, "ScanningSequence") if each in _SEQUENCES]
    if codes:
        labels.append(("sequence", " + ".join(dict.fromkeys(codes))))
    weighting = values.text(header, "AcquisitionContrast").upper()
    if weighting in WEIGHTINGS:
        labels.append(("weighting", weighting.lower().replace("_", " ")))
    agent = values.text(header, "ContrastBolusAgent").upper()  # free text: only whether it is there is kept
    if agent:
        labels.append(("contrast", "no" if agent in {"NO", "NONE", "N", "0", "NO CONTRAST"} else "yes"))
    return tuple(labels)


def _worded(found: str, words: frozenset[str]) -> str:
    """``found`` when it consists of known words alone (separators collapsed to one space), else ""."""
    split = [each for each in re.split(r"[^A-Z]+", found) if each]
    if not split or any(character.isdigit() for character in found):
        return ""
    whole = "".join(split)
    if whole in words:
        return whole
    return " ".join(split) if all(each in words for each in split) else ""


def _one_of(found: str, allowed: str) -> str:
    return found if len(found) == 1 and found in allowed else ""


def _laterality(header: Dataset) -> str:
    for keyword in ("ImageLaterality", "Laterality", "FrameLaterality"):
        if found := _one_of(values.text(header, keyword).upper(), "LRB"):
            return found
    return ""


def _maker(found: str) -> str:
    lower = found.lower()
    if _GENERAL_ELECTRIC.match(found):
        return "GE"
    return next((name for word, name in _MAKERS if word in lower), "")


def _age(header: Dataset) -> float | None:
    """Years, from PatientAge, else from the birth date at the study, which is then dropped; 0 to 120 only."""
    if stated := _AGE.match(values.text(header, "PatientAge").upper()):
        return _sane(round(int(stated[1]) / _PER_YEAR[stated[2]], 2))
    born, then = _date(values.text(header, "PatientBirthDate")), _date(values.text(header, "StudyDate"))
    return _sane(float(int((then - born).days / 365.25))) if born and then else None


def _sane(years: float) -> float | None:
    return years if 0 <= years <= 120 else None


def _date(found: str) -> date | None:
    if not (parts := _DATE.match(found)):
        return None
    try:
        return date(int(parts[1]), int(parts[2]), int(parts[3]))
    except ValueError:
        return None


def _year(header: Dataset) -> int | None:
    """The year of the study; the day and month are not kept."""
    found = _date(values.text(header, "StudyDate"))
    return found.year if found and 1950 <= found.year <= 2100 else None
