"""The phantom set: the same bytes every time, valid files, true geometry and units, and neighbours that make sense."""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter, defaultdict
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
import pydicom
import pytest

from indexer.demo.demo import build_demo_inputs
from indexer.demo.dicom_out import uid
from indexer.demo.findings import Chances, Finding
from indexer.demo.head3d import head
from indexer.demo.phantoms import generate
from indexer.demo.roster import exams
from indexer.demo.wheels import nibabel_files, pydicom_files, wheel_files
from indexer.labels import LabelTable


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("phantoms"), seed=3, size="tiny").parent


@pytest.fixture(scope="module")
def rows(tiny: Path) -> list[dict[str, str]]:
    with (tiny / "labels.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def instances(tiny: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(path) for path in sorted(tiny.rglob("*.dcm"))]


def test_the_same_seed_gives_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    generate(tmp_path / "again", seed=3, size="tiny")
    assert digests(tmp_path / "again") == digests(tiny)
    generate(tmp_path / "other", seed=4, size="tiny")
    other, first = digests(tmp_path / "other"), digests(tiny)
    assert not {name for name in first if other.get(name) == first[name]}


def test_the_demo_set_is_as_large_as_promised() -> None:
    cases = list(exams(7, "demo"))
    volumes = [case for case in cases if case.modality in {"CT", "MR"}]
    assert len({case.patient.patient_id for case in cases}) == 68
    assert (len(cases) - len(volumes), len(volumes)) == (156, 48)
    studies = defaultdict(set)
    for case in cases:
        studies[case.patient.number].add(case.study)
    assert sum(len(of_patient) > 1 for of_patient in studies.values()) >= 45
    findings = Counter(case.finding.name for case in cases if case.finding.name != "normal")
    patients = {name: {c.patient.number for c in cases if c.finding.name == name} for name in findings}
    assert min(len(of_finding) for of_finding in patients.values()) >= 2  # no finding without a precedent


def test_every_row_names_its_case_and_all_match(tiny: Path, rows: list[dict[str, str]]) -> None:
    table = LabelTable.read(tiny / "labels.csv")
    for path in (tiny / row["path"] for row in rows):
        assert path.exists()
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        facts = table.match(inside[0])
        assert facts is not None and facts.patient_id.startswith("PHANTOM-") and facts.attributes.age is not None
    assert table.unmatched() == ()
    sizes = [label for _, facts in table.rows() for label in facts.labels if label.name == "lesion_size_mm"]
    assert sizes and all(label.number is not None and 3 < label.number < 80 for label in sizes)


def test_reports_name_the_finding_and_never_deny_it(rows: list[dict[str, str]]) -> None:
    for row in rows:
        assert row["report"].startswith("Synthetic phantom.")
        finding = row["finding"].replace("_", " ")
        if finding == "normal":
            assert row["report"].endswith("Impression: No abnormality.")
        else:
            assert row["report"].lower().endswith(f"impression: {finding}.")
            assert f"no {finding}" not in row["report"].lower()
            assert not re.search(r"\bNone\b|\{|  ", row["report"])


def test_instances_are_valid_and_of_nobody(instances: list[pydicom.Dataset]) -> None:
    assert len({ds.SOPInstanceUID for ds in instances}) == len(instances)
    for ds in instances:
        assert ds.PatientID.startswith("PHANTOM-") and str(ds.PatientName).startswith("Phantom^")
        for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
            value = ds[name].value
            assert value.is_valid and value.startswith("2.25.")
        assert ds.pixel_array.shape[:2] == (ds.Rows, ds.Columns)
        assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
    assert {ds.PhotometricInterpretation for ds in instances} == {"MONOCHROME1", "MONOCHROME2", "RGB"}
    assert {ds.Modality for ds in instances} == {"DX", "MG", "US", "CT", "MR"}
    assert {ds.ViewPosition for ds in instances if "ViewPosition" in ds} == {"PA", "LL", "AP", "CC", "MLO"}


def test_uids_depend_on_names_alone() -> None:
    assert uid(1, "a") == uid(1, "a")
    assert len({uid(1, "a"), uid(1, "b"), uid(2, "a"), uid("1a"), uid(1, "a", "")}) == 5


def test_inverted_radiographs_have_a_bright_background(instances: list[pydicom.Dataset]) -> None:
    chests = [ds for ds in instances if ds.get("ViewPosition") == "PA" and ds.BodyPartExamined == "CHEST"]
    for ds in chests:
        corner = ds.pixel_array[0, :3].mean() / 4095
        assert corner > 0.9 if ds.PhotometricInterpretation == "MONOCHROME1" else corner < 0.1


def test_series_are_regular_stacks_in_hounsfield_units(instances: list[pydicom.Dataset]) -> None:
    series = defaultdict(list)
    for ds in instances:
        if ds.Modality in {"CT", "MR"}:
            series[ds.SeriesInstanceUID].append(ds)
    assert len(series) >= 8
    for stack in series.values():
        stack.sort(key=lambda ds: float(ds.ImagePositionPatient[2]))
        steps = np.diff([float(ds.ImagePositionPatient[2]) for ds in stack])
        assert steps == pytest.approx(float(stack[0].SliceThickness), rel=1e-3)
        numbers = [ds.InstanceNumber for ds in stack]
        assert numbers == sorted(numbers, reverse=True)  # numbered from the head: position and number disagree
        if stack[0].Modality == "CT":
            hu = np.stack([ds.pixel_array * ds.RescaleSlope + ds.RescaleIntercept for ds in stack])
            assert np.percentile(hu, 1) == pytest.approx(-1000, abs=40)
            assert hu.max() > 250  # bone


def test_nifti_lies_in_the_body_as_the_dicom_series_does(tiny: Path) -> None:
    """T2 (DICOM, LPS) and FLAIR (NIfTI, RAS) of a patient show one head: its masses lie at the same millimetres."""
    path = sorted(tiny.rglob("*.nii.gz"))[0]
    image = nibabel.load(path)
    assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")
    slices = [pydicom.dcmread(file) for file in sorted((path.parent / "mr-1").glob("*.dcm"))]
    slices.sort(key=lambda ds: float(ds.ImagePositionPatient[2]))
    first = slices[0]
    lps = np.array([float(value) for value in first.ImagePositionPatient])
    assert np.asarray(image.affine[:3, 3]) == pytest.approx(lps * [-1, -1, 1], abs=1e-3)
    head_dicom = np.stack([ds.pixel_array for ds in slices]) > 60
    head_nifti = np.asarray(image.dataobj).transpose(2, 1, 0) > 60
    assert (head_dicom == head_nifti).mean() > 0.9


def test_a_lesion_has_its_size_and_side() -> None:
    """A haemorrhage of 50 mm on the left: blood on the right of the image, some 50 mm across."""
    volume = head(Chances.of(1, 5, 1, 0), Finding("haemorrhage", "L", 50.0), "CT", 28, 128)
    healthy = head(Chances.of(1, 5, 1, 0), Finding(), "CT", 28, 128)
    blood = np.asarray(volume.voxels, np.int32) - healthy.voxels > 18
    columns = np.flatnonzero(blood.sum(axis=(0, 1)) > 3)
    assert columns.min() > 64
    assert (columns.max() - columns.min()) * volume.spacing[2] == pytest.approx(50, abs=14)


def _small(path: Path) -> npt.NDArray[np.float64]:
    """A very plain descriptor: 12 x 12 means, standardised. MONOCHROME1 is inverted."""
    ds = pydicom.dcmread(path)
    grey = ds.pixel_array.astype(float)
    grey = grey.mean(axis=2) if grey.ndim == 3 else grey
    grey = grey.max() - grey if ds.PhotometricInterpretation == "MONOCHROME1" else grey
    rows, columns = (n // 12 * 12 for n in grey.shape)
    cells = grey[:rows, :columns].reshape(12, rows // 12, 12, columns // 12).mean(axis=(1, 3)).ravel()
    return np.asarray((cells - cells.mean()) / (cells.std() + 1e-9))


def test_neighbours_of_other_patients_show_the_same_organ_and_view(tiny: Path, rows: list[dict[str, str]]) -> None:
    flat = [row for row in rows if row["path"].endswith(".dcm")]
    vectors = np.stack([_small(tiny / row["path"]) for row in flat])
    similarity = vectors @ vectors.T
    same = 0
    for q, row in enumerate(flat):
        others = [i for i in range(len(flat)) if flat[i]["patient_id"] != row["patient_id"]]
        best = flat[max(others, key=lambda i: similarity[q, i])]
        same += all(best[name] == row[name] for name in ("modality", "body_part", "view"))
    assert same / len(flat) > 0.8


def test_wheels_carry_real_files_with_and_without_pixels() -> None:
    assert wheel_files() == pydicom_files() + nibabel_files()
    assert all(path.exists() for path in wheel_files())
    assert len(pydicom_files()) >= 20 and len(nibabel_files()) >= 5
    single = [path for path in pydicom_files() if path.is_file()]
    with_pixels = ["PixelData" in pydicom.dcmread(path, force=True) for path in single]
    assert any(with_pixels) and not all(with_pixels)


def test_demo_inputs_are_written_once_and_again_after_a_killed_run(tmp_path: Path) -> None:
    phantoms, *real = build_demo_inputs(tmp_path, size="tiny")
    assert phantoms.source == "phantom" and phantoms.labels is not None and phantoms.labels.is_file()
    assert [part.source for part in real] == ["pydicom", "nibabel"]
    (folder,) = phantoms.paths
    victim = sorted(folder.rglob("*.dcm"))[0]
    before = victim.read_bytes()
    victim.write_bytes(b"")
    assert build_demo_inputs(tmp_path, size="tiny")[0] == phantoms
    assert victim.read_bytes() == b""  # complete: not touched again
    (folder / ".complete").unlink()
    build_demo_inputs(tmp_path, size="tiny")
    assert victim.read_bytes() == before
