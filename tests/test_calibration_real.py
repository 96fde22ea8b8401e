"""Probabilities of neighbours on real pictures, of patients that no choice was made on: as often right as they say.

Galleries are embedded with the default encoder, from test parts that it has never seen; each fifth of the patients is
asked of the other four. The expected calibration error is worked out here, anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from indexer.labels import LabelTable
from indexer.limits import Limits
from indexer.pipeline import Options, index
from indexer.sandbox import Sandbox
from retrieval.evidence.classify import classify
from retrieval.gallery import Gallery
from retrieval.settings import Settings
from retrieval.types import Case, EmbeddedCase, Query
from tests.shared_data import labels

pytestmark = pytest.mark.slow
SETS = ("cxr_kermany", "mri2d_brain_tumor")
FIFTHS, TARGET = 5, 0.05


@dataclass(frozen=True)
class Told:
    """Of every query and value of all sets: the probability, the neighbours' share, and whether it is true, [n]."""

    probabilities: npt.NDArray[np.float64]
    shares: npt.NDArray[np.float64]
    true: npt.NDArray[np.bool_]


def value_of(case: Case) -> str:
    return next(said.value for said in case.labels if said.name == "label")


def embedded(shared: Path, name: str, home: Path) -> list[EmbeddedCase]:
    """The test part of a set, with the one label that is asked for."""
    folder = shared / "data" / name
    if not (folder / "labels.csv").is_file():
        pytest.skip(f"the shared set {name} is not here")
    paths = [folder / row["path"] for row in labels(shared / "data", name) if row["split"] == "test"]
    settings = Settings(home=home)
    with Gallery.open(settings, create=True) as gallery, Sandbox(2, Limits.of(settings)) as sandbox:
        assert index(gallery, sandbox, paths, Options(labels=LabelTable.read(folder / "labels.csv"))).ok
        cases = gallery.catalog.list_cases(limit=10_000)
        return [
            EmbeddedCase(
                replace(case, key=0, labels=tuple(said for said in case.labels if said.name == "label")),
                gallery.catalog.embedding(case.case_id)[1],
            )
            for case in cases
        ]


@contextmanager
def gallery_of(cases: Sequence[EmbeddedCase], home: Path) -> Iterator[Gallery]:
    with Gallery.open(Settings(home=home), create=True) as gallery:
        for start in range(0, len(cases), 64):
            gallery.add(cases[start : start + 64])
        yield gallery


@pytest.fixture(scope="module")
def told(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Told:
    rows: list[tuple[float, float, bool]] = []
    for name in SETS:
        homes = tmp_path_factory.mktemp(name)
        cases = embedded(shared, name, homes / "all")
        patients = sorted({each.case.patient_key or each.case.case_id for each in cases})
        drawn = np.random.default_rng(11).permutation(len(patients)) % FIFTHS
        fifth = {patient: int(n) for patient, n in zip(patients, drawn, strict=True)}
        part = [fifth[each.case.patient_key or each.case.case_id] for each in cases]
        for n in range(FIFTHS):
            known = [each for each, of in zip(cases, part, strict=True) if of != n]
            asked = [each for each, of in zip(cases, part, strict=True) if of == n]
            with gallery_of(known, homes / str(n)) as gallery:
                for each in asked:
                    found = classify(
                        gallery, Query(each.embedding, patient_key=each.case.patient_key), label="label"
                    )  # fmt: skip
                    assert found.quality is not None and sum(v.probability for v in found.values) == pytest.approx(1)
                    rows += [
                        (value.probability, value.votes.share, value.value == value_of(each.case))
                        for value in found.values
                    ]
    probabilities, shares, true = zip(*rows, strict=True)
    return Told(np.array(probabilities), np.array(shares), np.array(true))


def expected_calibration_error(probabilities: npt.NDArray[np.float64], true: npt.NDArray[np.bool_]) -> float:
    """Ten bins of equal width: the mean distance between what is said and what is so, weighted by how many are said."""
    bins = np.clip(np.ceil(probabilities * 10).astype(int) - 1, 0, 9)
    return sum(
        abs(probabilities[bins == n].mean() - true[bins == n].mean()) * (bins == n).mean() for n in np.unique(bins)
    )


def test_the_error_by_hand() -> None:
    """Two at 0.25, of which one is so, and two at 0.95, of which both are."""
    said, so = np.array([0.25, 0.25, 0.95, 0.95]), np.array([True, False, True, True])
    assert expected_calibration_error(said, so) == pytest.approx(0.5 * 0.25 + 0.5 * 0.05)


def test_probabilities_are_right_as_often_as_they_say(told: Told) -> None:
    assert len(told.true) > 1200
    assert expected_calibration_error(told.probabilities, told.true) <= TARGET


def test_nor_are_they_right_by_saying_little(told: Told) -> None:
    """Base rates are calibrated too. These tell the true value from the others, and beat base rates by far."""
    base = np.full(len(told.true), told.true.mean())
    brier = [float(np.mean((said - told.true) ** 2)) for said in (told.probabilities, base)]
    assert brier[0] < 0.6 * brier[1]
    pairs = told.probabilities[told.true][:, None] - told.probabilities[~told.true][None, :]
    assert np.mean(pairs > 0) + np.mean(pairs == 0) / 2 > 0.85


def test_what_is_surer_or_less_sure_would_be_found_out(told: Told) -> None:
    logits = np.log(np.clip(told.probabilities, 1e-6, 1 - 1e-6) / np.clip(1 - told.probabilities, 1e-6, 1))
    for factor in (0.4, 3.0):
        assert expected_calibration_error(1 / (1 + np.exp(-factor * logits)), told.true) > TARGET
    assert expected_calibration_error(told.probabilities, np.roll(told.true, 1)) > TARGET
