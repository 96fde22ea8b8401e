"""Every odd, damaged and hostile file of the corpora ends in frames, in "no pixels" or in a reason."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import psutil
import pytest

from indexer.limits import Limits
from indexer.sandbox import Sandbox
from indexer.sources import Frame, Rejection, Scan, Source, Wanted
from tests.shared_data import labels

# Formats that are not read (MINC, FreeSurfer, PAR/REC) and tables (CIFTI).
NOT_READ = (".mnc", ".PAR", ".mgz", ".dconn.nii")
SECONDS = 10.0


def outcomes(files: list[Path], limits: Limits) -> dict[Path, str]:
    """frames, no pixels, or the reason; after a check that nothing was lost and no worker grew past its limit."""
    ends: dict[Path, str] = {}
    frames: Counter[Path] = Counter()
    declared: dict[Path, int] = {}
    most = 0
    with Sandbox(2, limits) as sandbox:

        def scanned() -> list[Wanted]:
            wanted = []
            for answer in sandbox.scan(Source(path) for path in files):
                if isinstance(answer, Rejection):
                    ends[answer.source.path] = reason(answer)
                elif answer.frames:
                    declared[answer.source.path] = answer.frames
                    wanted.append(Wanted(answer.source, answer.format))
                else:
                    ends[answer.source.path] = "no pixels"
            return wanted

        for answer in sandbox.read(scanned()):
            most = max(most, *(child.memory_info().rss for child in psutil.Process().children(recursive=True)), 0)
            if isinstance(answer, Rejection):
                ends[answer.source.path] = reason(answer)
            else:
                assert isinstance(answer, Frame)
                frames[answer.wanted.source.path] += 1
    for path in declared:
        if path not in ends:
            assert frames[path] == declared[path]
            ends[path] = "frames"
    assert most <= limits.memory_bytes
    return ends


def reason(rejection: Rejection) -> str:
    assert rejection.stage
    assert rejection.reason.endswith(".")
    assert len(rejection.sha256) == 64
    assert rejection.source.path.name not in rejection.reason  # a file name can hold a patient's
    return f"{rejection.stage}: {rejection.reason}"


@pytest.fixture(scope="module")
def corpus(shared: Path) -> dict[str, tuple[str, str]]:
    """path -> (label, outcome) for every file."""
    root = shared / "corpora"
    told = {row["path"]: row["label"] for row in labels(shared, "corpora")}
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.name != "labels.csv")
    ends = outcomes(files, Limits(seconds=SECONDS))
    assert set(ends) == set(files)
    return {str(path.relative_to(root)): (told.get(str(path.relative_to(root)), ""), ends[path]) for path in files}


def test_every_file_has_an_outcome(corpus: dict[str, tuple[str, str]]) -> None:
    assert len(corpus) >= 784
    kinds = Counter(outcome.partition(":")[0] for _, outcome in corpus.values())
    assert kinds["frames"] > 400
    assert not any("task_seconds" in outcome or "killed by" in outcome for _, outcome in corpus.values())


def test_sound_dicom_is_not_refused(corpus: dict[str, tuple[str, str]]) -> None:
    """Of the files whose pixels pydicom decodes, only fuzzed ones with a broken header are refused."""
    refused = [
        path
        for path, (label, outcome) in corpus.items()
        if label.startswith("read=ok;pixels=ok") and outcome not in ("frames", "no pixels")
    ]
    assert [path for path in refused if "dicom-fuzzing-corpus" not in path] == []
    assert len(refused) <= 12


def test_sound_volumes_are_not_refused(corpus: dict[str, tuple[str, str]]) -> None:
    """Of the files SimpleITK or nibabel reads, only other formats and what is no image are refused."""
    refused = {
        path: outcome
        for path, (label, outcome) in corpus.items()
        if ("sitk=ok" in label or "nib=ok" in label) and outcome != "frames" and not path.endswith(NOT_READ)
    }
    unexplained = {
        path: outcome
        for path, outcome in refused.items()
        if "expected two axes longer than 1" not in outcome and "which is missing" not in outcome
    }
    assert unexplained == {}


def test_what_crashes_or_fails_elsewhere_has_a_reason(corpus: dict[str, tuple[str, str]]) -> None:
    failing = {path: outcome for path, (label, outcome) in corpus.items() if "sitk=crash" in label}
    assert failing
    assert all(outcome == "frames" or ": " in outcome for outcome in failing.values())


def test_scans_of_the_same_file_are_equal(shared: Path, sandbox: Sandbox) -> None:
    paths = sorted((shared / "volumes" / "files").iterdir())[:6]
    first, second = (list(sandbox.scan(Source(path) for path in paths)) for _ in range(2))
    assert first == second
    assert all(isinstance(scan, Scan) for scan in first)
