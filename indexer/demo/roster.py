"""Who is in the phantom set: patients, their studies, and what each picture of a study shows. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from indexer.demo.findings import Finding

Size = Literal["demo", "tiny"]
Format = Literal["dicom", "nifti", "png"]


@dataclass(frozen=True, slots=True)
class Patient:
    """An invented person."""

    number: int
    programme: str
    sex: str
    age: int

    @property
    def patient_id(self) -> str:
        return f"PHANTOM-{self.number:04d}"


@dataclass(frozen=True, slots=True)
class Exam:
    """One case to draw: a picture or a volume. ``side`` is the side imaged, the finding has its own.

    ``kind``: what is drawn; ``study``: the how-manieth study of the patient, from 1; ``image``: its place in it.
    """

    patient: Patient
    study: int
    image: int
    kind: str
    modality: str
    body_part: str
    organ: str
    finding: Finding
    side: str = ""
    view: str = ""
    format: Format = "dicom"


_SIZED = {
    "nodule": (16, 40), "spiculated_mass": (10, 24), "round_mass": (12, 26), "calcifications": (10, 22),
    "liver_cyst": (30, 65), "liver_metastases": (22, 40), "kidney_tumour": (45, 75), "haemangioma": (20, 40),
    "haemorrhage": (30, 55), "subdural_haematoma": (14, 26), "infarct": (40, 60), "tumour": (34, 55),
    "nevus": (4, 8), "melanoma": (7, 11), "basal_cell_carcinoma": (6, 9), "seborrhoeic_keratosis": (7, 10),
}  # fmt: skip
_MIDLINE = {"normal", "cardiomegaly", "emphysema", "demyelination", "steatosis", "liver_cyst", "liver_metastases"}
_PROGRAMMES: dict[str, tuple[str, ...]] = {
    "chest": (
        "normal", "pneumonia", "pleural_effusion", "nodule", "cardiomegaly", "pneumothorax", "normal", "pneumonia",
        "pleural_effusion", "nodule", "cardiomegaly", "pneumothorax", "normal", "pneumonia", "emphysema", "emphysema",
    ),
    "hand": ("fracture", "osteoarthritis") * 3,
    "knee": ("osteoarthritis", "fracture") * 3,
    "breast": ("spiculated_mass", "round_mass", "calcifications", "normal") * 2,
    "liver": ("liver_cyst", "liver_metastases", "steatosis", "normal", "kidney_tumour") * 2,
    "skin": ("nevus", "melanoma", "basal_cell_carcinoma", "seborrhoeic_keratosis") * 2,
    "head_ct": ("haemorrhage", "subdural_haematoma", "infarct", "normal") * 2,
    "brain_mr": ("tumour", "demyelination", "normal") * 2,
}  # fmt: skip
_TINY = 2  # patients of each programme
_ON_ULTRASOUND = {"spiculated_mass": "solid_mass", "round_mass": "cyst", "liver_cyst": "cyst", "steatosis": "steatosis"}
_ON_CT = {"normal", "pneumonia", "pleural_effusion", "nodule", "emphysema"}


def exams(seed: int, size: Size) -> Iterator[Exam]:
    """Every case of the set, patient by patient."""
    number = 0
    for programme, findings in _PROGRAMMES.items():
        for name in findings[:_TINY] if size == "tiny" else findings:
            number += 1
            rng = np.random.default_rng([seed, number])
            sex = "F" if programme == "breast" else str(rng.choice(["F", "M"]))
            patient = Patient(number, programme, sex, int(rng.integers(28, 88)))
            yield from _STUDIES[programme](patient, _finding(name, rng))


def _finding(name: str, rng: np.random.Generator) -> Finding:
    low, high = _SIZED.get(name, (0, 0))
    side = "" if name in _MIDLINE else str(rng.choice(["L", "R"]))
    return Finding(name, side, float(round(rng.uniform(low, high))) if high else None)


def _chest(patient: Patient, finding: Finding) -> Iterator[Exam]:
    shown = finding if finding.name != "emphysema" else Finding()  # not visible on these radiographs
    for study, view in ((1, "PA"), (1, "LL"), (2, "PA")):
        kind = "chest_pa" if view == "PA" else "chest_lateral"
        yield Exam(patient, study, int(view == "LL"), kind, "DX", "CHEST", "lung", shown, view=view)
    if finding.name in _ON_CT:
        yield Exam(patient, 3, 0, "chest_ct", "CT", "CHEST", "lung", finding)


def _joint(patient: Patient, finding: Finding) -> Iterator[Exam]:
    part = patient.programme
    view = "PA" if part == "hand" else "AP"
    other = "R" if finding.side == "L" else "L"
    for study, side in ((1, finding.side), (1, other), (2, finding.side)):
        shown = finding if side == finding.side else Finding()
        image = int(side == other)
        yield Exam(patient, study, image, part, "DX", part.upper(), part, shown, side, view)


def _breast(patient: Patient, finding: Finding) -> Iterator[Exam]:
    views = [(side, view) for side in ("R", "L") for view in ("CC", "MLO")]
    for image, (side, view) in enumerate(views):
        shown = finding if side == finding.side else Finding()
        yield Exam(patient, 1, image, "mammogram", "MG", "BREAST", "breast", shown, side, view)
    echo = _ON_ULTRASOUND.get(finding.name, "normal")
    for image, side in enumerate(("R", "L")):
        shown = Finding(echo, side, finding.size_mm) if side == finding.side and echo != "normal" else Finding()
        yield Exam(patient, 2, image, "breast_ultrasound", "US", "BREAST", "breast", shown, side)


def _liver(patient: Patient, finding: Finding) -> Iterator[Exam]:
    organ = "kidney" if finding.name == "kidney_tumour" else "liver"
    yield Exam(patient, 1, 0, "abdomen_ct", "CT", "ABDOMEN", organ, finding)
    echo = _ON_ULTRASOUND.get(finding.name, "normal")
    shown = Finding(echo, "", None if echo in {"normal", "steatosis"} else finding.size_mm)
    if finding.name != "liver_metastases":
        yield Exam(patient, 2, 0, "liver_ultrasound", "US", "ABDOMEN", "liver", shown)


def _skin(patient: Patient, finding: Finding) -> Iterator[Exam]:
    for study in (1, 2):
        shown = Finding(finding.name, "", finding.size_mm)
        yield Exam(patient, study, 0, "skin", "dermoscopy", "SKIN", "skin", shown, format="png")


def _head_ct(patient: Patient, finding: Finding) -> Iterator[Exam]:
    yield Exam(patient, 1, 0, "CT", "CT", "HEAD", "brain", finding)


def _brain_mr(patient: Patient, finding: Finding) -> Iterator[Exam]:
    for image, contrast in enumerate(("T1", "T2", "FLAIR")):
        form: Format = "nifti" if contrast == "FLAIR" else "dicom"
        yield Exam(patient, 1, image, contrast, "MR", "HEAD", "brain", finding, format=form)


_STUDIES = {
    "chest": _chest,
    "hand": _joint,
    "knee": _joint,
    "breast": _breast,
    "liver": _liver,
    "skin": _skin,
    "head_ct": _head_ct,
    "brain_mr": _brain_mr,
}
