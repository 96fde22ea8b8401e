"""Estimating by neighbours where the truth and its noise are known."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from retrieval import Gallery
from retrieval.errors import UsageError
from retrieval.evidence.estimate import estimate
from retrieval.evidence.estimating import estimating_fit
from retrieval.evidence.intervals import Centre
from retrieval.evidence.plain import estimate_json
from retrieval.types import Label
from tests.adapter_cases import open_small
from tests.evidence_cases import angles, asked, on_file, unlike

COUNT = 600


def truth_at(angle: np.ndarray) -> np.ndarray:
    return 50 + 30 * np.cos(angle)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    """Two cases to a patient; noise of 2 on one half of the circle, of 8 on the other."""
    at, rng = angles(COUNT, seed=1), np.random.default_rng(2)
    noise = np.where(np.sin(at) > 0, 2.0, 8.0)
    numbers = truth_at(at) + noise * rng.standard_normal(COUNT)
    labels = [[Label("size", f"{n:.3f}", float(n)), Label("kind", "round")] for n in numbers]
    with open_small(tmp_path_factory.mktemp("numbers") / "home") as opened:
        opened.add(on_file(at, labels, each=2))
        opened.add(on_file(angles(6, 3), [[Label("few", str(n), float(n))] for n in range(6)], first=9000))
        yield opened


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_intervals_hold_as_many_as_they_say(gallery: Gallery, level: float) -> None:
    at, rng = angles(250, seed=4), np.random.default_rng(5)
    numbers = truth_at(at) + np.where(np.sin(at) > 0, 2.0, 8.0) * rng.standard_normal(250)
    found = [estimate(gallery, asked(angle), label="size", level=level) for angle in at]
    told = [(one, number) for one, number in zip(found, numbers, strict=True) if not one.neighbours.no_confident_match]
    assert len(told) >= 0.95 * len(found)
    inside = [one.low <= number <= one.high for one, number in told]  # type: ignore[operator]
    assert np.mean(inside) == pytest.approx(level, abs=3 * np.sqrt(level * (1 - level) / 250) + 0.01)
    errors = np.abs([one.number - number for one, number in zip(found, truth_at(at), strict=True)])
    assert errors.mean() < 2.5
    quality = found[0].quality
    assert quality is not None
    assert quality.coverage == pytest.approx(level, abs=0.06)
    assert quality.error < 0.4 * quality.error_of_mean


def test_intervals_are_wider_where_neighbours_disagree(gallery: Gallery) -> None:
    quiet, loud = (estimate(gallery, asked(angle), label="size") for angle in (np.pi / 2, -np.pi / 2))
    assert quiet.scale == "spread"
    assert loud.high - loud.low > 1.5 * (quiet.high - quiet.low)  # type: ignore[operator]


def test_the_number_is_the_neighbours_own(gallery: Gallery) -> None:
    found = estimate(gallery, asked(1.0), label="size", k=9)
    hits = gallery.search(asked(1.0), k=9).hits
    numbers = np.array([next(said.number for said in hit.case.labels if said.name == "size") for hit in hits])
    weights = np.exp(np.array([hit.similarity for hit in hits]) / found.way.temperature)
    weights /= weights.sum()
    order = np.argsort(numbers)
    median = numbers[order][np.cumsum(weights[order]) >= 0.5][0]
    assert found.number == pytest.approx(weights @ numbers if found.centre is Centre.MEAN else median)
    assert found.spread == pytest.approx(np.sqrt(weights @ (numbers - weights @ numbers) ** 2))
    assert [vote.case_id for vote in found.voters] == [hit.case.case_id for hit in hits]


def test_held_out_coverage_against_numpy(gallery: Gallery) -> None:
    fit = estimating_fit(gallery, "size")
    held_out = fit.held_out
    assert held_out is not None
    inside = []
    for fold in range(5):
        here, errors = held_out.folds == fold, np.sort(held_out.others[fold])
        half = errors[int(np.ceil((len(errors) + 1) * 0.9)) - 1] * held_out.unit[here]
        inside += (np.abs(held_out.truth[here] - held_out.predicted[here]) <= half).tolist()
    quality = held_out.quality(0.9)
    assert quality is not None and quality.coverage == pytest.approx(np.mean(inside))
    assert len(inside) == COUNT


def test_a_query_unlike_all_on_file_has_no_interval(gallery: Gallery) -> None:
    found = estimate(gallery, unlike(), label="size")
    assert found.neighbours.no_confident_match and (found.low, found.high) == (None, None)
    assert any("no confident match" in note for note in found.notes)


def test_too_few_are_told(gallery: Gallery) -> None:
    few = estimate(gallery, asked(0.0), label="few")
    assert few.low is None and few.quality is None and "too few patients to leave some out" in few.notes[0]
    sure = estimate(gallery, asked(0.0), label="size", level=0.9999)
    assert sure.high is None and "9999 cases" in sure.notes[0]
    assert estimate_json(sure)["low"] is None


@pytest.mark.parametrize(
    ("asked_for", "sentence"),
    [
        ({"label": "kind"}, "it can be classified, not estimated"),
        ({"label": "length"}, "label on file"),
        ({"label": "size", "level": 1.0}, "level above 0 and below 1"),
        ({"label": "size", "k": 5000}, "k must be from 1"),
    ],
)
def test_what_can_not_be_estimated_is_told(gallery: Gallery, asked_for: dict[str, object], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        estimate(gallery, asked(0.0), **asked_for)  # type: ignore[arg-type]
