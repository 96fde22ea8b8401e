"""The real sets: every file has one outcome, a second run adds nothing, neighbours make sense, patients stay apart.

The short version takes a few files of each set; the slow one takes all of them, the volumes and the corpora.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from indexer.events import Event, FileDone
from indexer.labels import LabelTable
from indexer.pipeline import Options, index
from indexer.query import read_query
from indexer.report import CaseStatus, FileStatus, Report
from indexer.sandbox import Sandbox
from indexer.walk import walk
from retrieval.filters import parse
from retrieval.gallery import Gallery
from retrieval.types import Case, GroupBy, SamePatient
from retrieval.verify import verify
from tests.processes import answer, run
from tests.studies import open_gallery

SUNNYBROOK = "mri2d_cardiac_sunnybrook"
SETS = (
    "cxr_kermany", "cxr_nih", "derm_ham10000", "medpix2", "micro_bccd", "mri2d_brain_tumor", SUNNYBROOK, "oct_mini",
    "us_busi", "xray_knee_kl",
)  # fmt: skip
FEW = 30
LOOKS_APART = {"derm_ham10000", "micro_bccd", "us_busi", "xray_knee_kl", "cxr_kermany", "cxr_nih", "mri2d_brain_tumor"}


@dataclass
class Told:
    """What a run said of each file."""

    files: list[FileDone] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        if isinstance(event, FileDone):
            self.files.append(event)


def index_whole(
    gallery: Gallery, sandbox: Sandbox, paths: list[Path], labels: Path | None, source: str
) -> tuple[Report, list[FileDone]]:
    """Index and check what must hold of every run: each walked file is told once, each failed one with a reason."""
    told = Told()
    table = LabelTable.read(labels) if labels else None
    report = index(gallery, sandbox, paths, Options(labels=table, source=source), told)
    assert Counter(event.source for event in told.files) == Counter(dict.fromkeys(walk(paths), 1))
    assert sum(report.files.values()) == len(told.files)
    for event in told.files:
        if event.status is FileStatus.FAILED:
            assert event.rejection and event.rejection.stage and len(event.rejection.sha256) == 64
        if event.status in {FileStatus.FAILED, FileStatus.SKIPPED, FileStatus.NO_PIXELS}:
            assert event.reason.endswith("."), event
        else:
            assert event.case_id
    return report, told.files


def rows_of(shared: Path, name: str) -> list[dict[str, str]]:
    with (shared / "data" / name / "labels.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def files_of(shared: Path, name: str, few: int | None = None) -> list[Path]:
    """The set's images, the first ``few`` evenly spread over its rows."""
    rows = rows_of(shared, name)
    step = max(1, len(rows) // few) if few else 1
    return [shared / "data" / name / row["path"] for row in rows[::step]][:few]


def distinct(files: list[Path]) -> int:
    """Some sets hold one picture under several names; it is one case."""
    return len({hashlib.sha256(path.read_bytes()).digest() for path in files})


def same_set_share(gallery: Gallery, sandbox: Sandbox, files: list[Path], name: str) -> float:
    """Share of the five nearest of each file, other patients' alone, that come from the file's own set."""
    shares = []
    for path in files:
        query = read_query(gallery, sandbox, [path])
        assert query.query.key, "the file is on file"
        hits = gallery.search(query.query, k=5).hits
        assert len(hits) == 5
        own = query.case.patient_key
        assert all(hit.case.key != query.query.key and (not own or hit.case.patient_key != own) for hit in hits)
        shares.append(sum(hit.case.attributes.source == name for hit in hits) / 5)
    return sum(shares) / len(shares)


def precision(gallery: Gallery, cases: list[Case], same_patient: SamePatient) -> float:
    """P@5 by ``label`` among the cases of the same set."""
    among = parse({"source": cases[0].attributes.source})
    right = asked = 0
    for case in cases:
        found = gallery.similar_to(case.case_id, k=5, filters=among, same_patient=same_patient, group=GroupBy.NONE).hits
        right += sum(label_of(hit.case) == label_of(case) for hit in found)
        asked += len(found)
    return right / asked


def label_of(case: Case) -> str:
    return next(label.value for label in case.labels if label.name == "label")


def cases_of(gallery: Gallery, source: str) -> list[Case]:
    return gallery.catalog.list_cases(parse({"source": source}), limit=100_000)


# the short version


@pytest.fixture(scope="module")
def few(shared: Path, sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    """All of oct_mini, a few files of every other set, two series of volumes."""
    with open_gallery(tmp_path_factory.mktemp("few") / "home") as gallery:
        for name in SETS:
            files = files_of(shared, name, None if name == "oct_mini" else FEW)
            report, _ = index_whole(gallery, sandbox, files, shared / "data" / name / "labels.csv", name)
            assert report.ok and report.cases[CaseStatus.ADDED] == distinct(files)
        for folder in series_of(shared)[:2]:
            report, _ = index_whole(gallery, sandbox, [folder], None, "volumes")
            assert report.ok and report.cases[CaseStatus.ADDED] >= 1
        yield gallery


def series_of(shared: Path) -> list[Path]:
    """Folders of DICOM series of at most 40 files, smallest first."""
    folders = Counter(path.parent for path in (shared / "volumes" / "dicom").rglob("*") if path.is_file())
    return [
        folder for folder, count in sorted(folders.items(), key=lambda each: (each[1], each[0])) if 4 <= count <= 40
    ]


def test_a_few_files_of_every_set(few: Gallery, shared: Path, sandbox: Sandbox) -> None:
    assert all(label_of(case) for name in SETS for case in cases_of(few, name))
    before = len(few)
    for name in SETS:
        files = files_of(shared, name, None if name == "oct_mini" else FEW)
        report, _ = index_whole(few, sandbox, files, shared / "data" / name / "labels.csv", name)
        assert report.cases == {CaseStatus.UNCHANGED: len(files)} and report.frames == 0
    assert len(few) == before
    assert verify(few.catalog, few.settings.home).ok


def test_neighbours_of_a_few_come_from_their_own_set(few: Gallery, shared: Path, sandbox: Sandbox) -> None:
    shares = {name: same_set_share(few, sandbox, files_of(shared, name, FEW)[::3], name) for name in SETS}
    assert sum(shares.values()) / len(shares) > 0.7, shares  # measured 0.92; by chance 0.1
    assert all(shares[name] > 0.6 for name in LOOKS_APART), shares  # measured 0.86 and more


def test_no_patient_of_a_few_meets_itself(few: Gallery) -> None:
    known = [case for name in SETS for case in cases_of(few, name) if case.patient_key]
    assert len(known) > 200
    for case in known:
        hits = few.similar_to(case.case_id, k=20).hits
        keys = [hit.case.patient_key for hit in hits if hit.case.patient_key]
        assert case.patient_key not in keys and len(set(keys)) == len(keys)


# everything


@pytest.fixture(scope="module")
def everything(shared: Path, sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    """Every set and every volume in one gallery."""
    with open_gallery(tmp_path_factory.mktemp("everything") / "home") as gallery:
        for name in SETS:
            folder = shared / "data" / name
            report, _ = index_whole(gallery, sandbox, [folder], folder / "labels.csv", name)
            assert report.ok and report.files[FileStatus.SKIPPED] == 1  # the table itself
            assert report.files[FileStatus.INDEXED] + report.files[FileStatus.UNCHANGED] == len(rows_of(shared, name))
            assert report.cases[CaseStatus.ADDED] == distinct(files_of(shared, name))
        report, _ = index_whole(gallery, sandbox, [shared / "volumes"], shared / "volumes" / "labels.csv", "volumes")
        assert report.ok
        assert report.files[FileStatus.INDEXED] >= 560
        yield gallery


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_everything_again_adds_nothing(everything: Gallery, shared: Path, sandbox: Sandbox) -> None:
    before, heads = len(everything), everything.catalog.heads()
    for name in SETS:
        folder = shared / "data" / name
        report, _ = index_whole(everything, sandbox, [folder], folder / "labels.csv", name)
        assert not report.cases[CaseStatus.ADDED] and report.frames == 0
    report, _ = index_whole(everything, sandbox, [shared / "volumes"], shared / "volumes" / "labels.csv", "volumes")
    assert not report.cases[CaseStatus.ADDED] and not report.cases[CaseStatus.UPDATED]
    after = replace(
        everything.catalog.heads(), last_edit=heads.last_edit
    )  # two rows of one picture may differ in labels
    assert len(everything) == before and after == heads
    assert verify(everything.catalog, everything.settings.home).ok


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_neighbours_come_from_the_same_set(everything: Gallery, shared: Path, sandbox: Sandbox) -> None:
    shares = {name: same_set_share(everything, sandbox, files_of(shared, name, 40), name) for name in SETS}
    assert sum(shares.values()) / len(shares) > 0.75, shares  # measured 0.93; by chance 0.1
    assert all(shares[name] > 0.7 for name in LOOKS_APART), shares  # measured 0.93 and more


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_sunnybrook_falls_when_the_same_patient_is_excluded(everything: Gallery) -> None:
    cases = cases_of(everything, SUNNYBROOK)
    with_patient = precision(everything, cases, SamePatient.INCLUDE)
    without = precision(everything, cases, SamePatient.EXCLUDE)
    assert with_patient > 0.85  # measured 0.97
    assert without < with_patient - 0.4  # measured 0.31


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_odd_file_of_the_corpora_has_an_outcome(shared: Path, tmp_path: Path) -> None:
    home, told = tmp_path / "home", tmp_path / "failures.jsonl"
    report = answer("index", shared / "corpora", "--failures", told, home=home, code=1, seconds=1500)
    walked = sum(1 for _ in walk([shared / "corpora"]))
    assert sum(report["files"].values()) == walked >= 784
    assert report["files"]["failed"] == len(told.read_text().splitlines()) > 50
    assert all(failure["reason"].endswith(".") and failure["stage"] for failure in report["failures"])
    assert answer("verify", home=home)["ok"]
    again = answer("index", shared / "corpora", home=home, code=1, seconds=1500)
    assert again["cases"]["added"] == 0 and again["files"]["failed"] == report["files"]["failed"]
    run("search", shared / "corpora" / "labels.csv", home=home, code=1)
