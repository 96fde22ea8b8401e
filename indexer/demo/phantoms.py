"""The phantom set: drawn, written, and described in one labels file. No file of it is in the repository."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from indexer.demo import body3d, bones_xray, chest_xray, head3d, mammogram, skin, ultrasound
from indexer.demo.dicom_out import write_nifti, write_picture, write_png, write_series
from indexer.demo.findings import Chances, Finding, Picture, Volume
from indexer.demo.reports import report
from indexer.demo.roster import Exam, Size, exams

_PICTURES: dict[str, Callable[[Chances, Finding, int], Picture]] = {
    "chest_pa": chest_xray.chest_pa,
    "chest_lateral": chest_xray.chest_lateral,
    "hand": bones_xray.hand,
    "knee": bones_xray.knee,
    "breast_ultrasound": ultrasound.breast_ultrasound,
    "liver_ultrasound": ultrasound.liver_ultrasound,
    "skin": skin.lesion,
}
_CONTRASTS = ("CT", "T1", "T2", "FLAIR")  # kinds of heads
_BODIES: dict[str, Callable[[Chances, Finding, int, int], Volume]] = {
    "chest_ct": body3d.chest,
    "abdomen_ct": body3d.abdomen,
}
_COLUMNS = (
    "path", "patient_id", "study_id", "modality", "body_part", "view", "laterality", "age", "sex",
    "organ", "finding", "lesion_size_mm", "sequence", "report",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Resolution:
    """Columns of a picture, slices and columns of a volume."""

    picture: int
    slices: int
    volume: int


_RESOLUTIONS: dict[Size, _Resolution] = {"demo": _Resolution(288, 24, 128), "tiny": _Resolution(96, 6, 48)}


def generate(folder: Path, seed: int = 7, size: Size = "demo") -> Path:
    """Write the set under ``folder`` and give the path of its ``labels.csv``.

    ``demo``: 68 patients, 156 pictures and 48 volumes. ``tiny``: two patients of each kind, small images. The
    same seed and size give the same bytes. Files that are there already are written again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "labels.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(_COLUMNS)
        for exam in exams(seed, size):
            path = _write(folder, exam, seed, _RESOLUTIONS[size])
            rows.writerow(_row(exam, path.relative_to(folder).as_posix()))
    return table


def _write(folder: Path, exam: Exam, seed: int, resolution: _Resolution) -> Path:
    """Draw one case and write it; gives its file, or the folder of its series."""
    place = folder / exam.patient.patient_id / f"study-{exam.study}"
    name = f"{exam.modality.lower()}-{exam.image + 1}"
    chances = Chances.of(seed, exam.patient.number, exam.study, exam.image)
    if exam.kind in _BODIES or exam.kind in _CONTRASTS:
        return _write_volume(place, name, exam, _volume(exam, chances, resolution), seed)
    picture = _picture(exam, chances, resolution.picture)
    if exam.format == "png":
        write_png(place / f"{name}.png", picture)
        return place / f"{name}.png"
    write_picture(place / f"{name}.dcm", exam, picture, seed)
    return place / f"{name}.dcm"


def _write_volume(place: Path, name: str, exam: Exam, volume: Volume, seed: int) -> Path:
    if exam.format == "nifti":
        write_nifti(place / f"{name}.nii.gz", volume)
        return place / f"{name}.nii.gz"
    write_series(place / name, exam, volume, seed)
    return place / name


def _picture(exam: Exam, chances: Chances, columns: int) -> Picture:
    if exam.kind == "mammogram":
        return mammogram.mammogram(chances, exam.finding, exam.view, exam.side, columns)
    if exam.kind in {"hand", "knee"}:  # these are drawn as the side imaged, be it healthy or not
        finding = Finding(exam.finding.name, exam.side, exam.finding.size_mm)
        return _PICTURES[exam.kind](chances, finding, columns)
    return _PICTURES[exam.kind](chances, exam.finding, columns)


def _volume(exam: Exam, chances: Chances, resolution: _Resolution) -> Volume:
    if exam.kind in _CONTRASTS:
        return head3d.head(chances, exam.finding, exam.kind, resolution.slices, resolution.volume)
    return _BODIES[exam.kind](chances, exam.finding, resolution.slices, resolution.volume)


def _row(exam: Exam, path: str) -> tuple[str, ...]:
    patient, finding = exam.patient, exam.finding
    return (
        path,
        patient.patient_id,
        f"{patient.patient_id}-{exam.study}",
        exam.modality,
        exam.body_part,
        exam.view,
        exam.side or finding.side,
        str(patient.age),
        patient.sex,
        exam.organ,
        finding.name,
        "" if finding.size_mm is None else f"{finding.size_mm:g}",
        exam.kind if exam.modality == "MR" else "",
        report(exam),
    )
