"""Votes, base rates, thresholds and calibration errors against hand-computed cases and a few lines of NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.errors import UsageError
from retrieval.evidence.intervals import Centre, centre_of, least_for, quantile, spread_of
from retrieval.evidence.operating import (
    Answer,
    OperatingPoint,
    at_sensitivity,
    at_specificity,
    judged,
    reached,
    youden,
)
from retrieval.evidence.reliability import (
    by_chance,
    calibration_error,
    confidence_error,
    error_by_chance,
    mean_calibration_error,
    reliability_bins,
)
from retrieval.evidence.votes import EQUAL, rates_of, vote_table, votes_on, weights_of
from retrieval.types import Case, CaseKind, Hit, Label


def hit(rank: int, similarity: float, **labels: str | list[str]) -> Hit:
    said = [
        Label(name, value)
        for name, values in labels.items()
        for value in (values if isinstance(values, list) else [values])
    ]
    return Hit(rank, Case(f"case-{rank}", CaseKind.IMAGE, labels=tuple(said)), similarity, 0.0)


def test_a_patient_counts_once_in_the_base_rate() -> None:
    # ann: one of two cases has a; bob: both; two unknown patients: one a, one b; without the label nobody counts
    keys = ["ann", "ann", "bob", "bob", "", "", "eve"]
    values = [("a",), ("b",), ("a",), ("a",), ("a",), ("b",), ()]
    rates = rates_of("finding", keys, values)
    assert (rates.cases, rates.patients) == (6, 4)
    assert rates.of("a").rate == pytest.approx((0.5 + 1 + 1 + 0) / 4)
    assert rates.of("b").rate == pytest.approx((0.5 + 0 + 0 + 1) / 4)
    assert (rates.of("a").cases, rates.of("a").patients) == (4, 3)
    assert rates.of("unheard of").rate == 0.0


def test_equal_votes_by_hand() -> None:
    hits = [hit(1, 0.9, finding="a"), hit(2, 0.8, finding=["a", "b"]), hit(3, 0.7), hit(4, 0.6, finding="b")]
    rates = rates_of("finding", ["p", "q", "r", "s"], [("a",), ("a",), ("a",), ("b",)])
    votes = votes_on(hits, rates)
    assert votes.voters == 3
    a, b = votes.values
    assert (a.value, a.count, a.case_ids) == ("a", 2, ("case-1", "case-2"))
    assert a.share == pytest.approx(2 / 3) and a.base_rate == 0.75 and a.lift == pytest.approx(2 / 3 / 0.75)
    assert (b.value, b.count, b.case_ids) == ("b", 2, ("case-2", "case-4"))
    assert b.lift == pytest.approx(2 / 3 / 0.25)


def test_weighted_votes_against_numpy() -> None:
    rng = np.random.default_rng(3)
    similarities, values = np.sort(rng.random(20))[::-1], rng.choice(["a", "b", "c"], 20)
    hits = [hit(n, float(s), finding=str(v)) for n, (s, v) in enumerate(zip(similarities, values, strict=True))]
    rates = rates_of("finding", [""] * 20, [(str(v),) for v in values])
    (votes,) = vote_table(hits, [rates], temperature=0.2)
    powers = np.exp(similarities / 0.2)
    for value in votes.values:
        assert value.share == pytest.approx(powers[values == value.value].sum() / powers.sum())
        assert value.base_rate == pytest.approx((values == value.value).mean())
    assert [v.share for v in votes.values] == sorted((v.share for v in votes.values), reverse=True)


def test_nobody_votes() -> None:
    votes = votes_on([hit(1, 0.5)], rates_of("finding", [], []))
    assert votes.voters == 0 and votes.values == ()
    assert (weights_of([-np.inf, -np.inf], EQUAL) == 0).all()


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30), st.one_of(st.just(EQUAL), st.floats(0.001, 100)))
def test_weights_sum_to_one_and_fall_with_similarity(similarities: list[float], temperature: float) -> None:
    weights = weights_of(similarities, temperature)
    assert weights.sum() == pytest.approx(1.0)
    order = np.argsort(similarities)
    assert (np.diff(weights[order]) >= -1e-12).all()


SCORES = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95])
TRUTH = np.array([0, 0, 0, 1, 0, 1, 1, 0, 1, 1], dtype=bool)


def test_operating_points_by_hand() -> None:
    # at 0.4 all five true cases and two of five others; at 0.6: four of five true, one of five others
    assert youden(SCORES, TRUTH) == OperatingPoint("youden", 0.6, pytest.approx(0.8), pytest.approx(0.8))
    assert at_sensitivity(SCORES, TRUTH, 0.9).threshold == 0.4
    assert at_sensitivity(SCORES, TRUTH, 0.8).threshold == 0.6
    point = at_specificity(SCORES, TRUTH, 0.9)
    assert point is not None and point.threshold == 0.9 and point.sensitivity == pytest.approx(0.4)
    assert at_specificity(np.array([0.5, 0.5]), np.array([True, False]), 0.9) is None
    with pytest.raises(UsageError, match="sensitivity above 0 and at most 1"):
        at_sensitivity(SCORES, TRUTH, 0.0)


@given(st.integers(0, 10_000), st.floats(0.05, 1.0))
def test_operating_points_against_every_threshold(seed: int, wanted: float) -> None:
    rng = np.random.default_rng(seed)
    scores, truth = np.round(rng.random(40), 1), rng.random(40) < 0.4
    truth[:2] = [True, False]

    def sens(t: float) -> float:
        return float((scores[truth] >= t).mean())

    def spec(t: float) -> float:
        return float((scores[~truth] < t).mean())

    cuts = np.unique(scores)
    assert at_sensitivity(scores, truth, wanted).threshold == max(t for t in cuts if sens(t) >= wanted)
    best = youden(scores, truth)
    assert best.sensitivity + best.specificity == pytest.approx(max(sens(t) + spec(t) for t in cuts))
    specific = at_specificity(scores, truth, wanted)
    expected = [t for t in cuts if spec(t) >= wanted]
    assert (specific.threshold if specific else None) == (min(expected) if expected else None)


def test_a_specificity_that_is_reached_to_the_case_counts() -> None:
    """One of five others lies below 0.3, and 1 - 4 / 5 is less than 0.2 in floating point."""
    scores, truth = np.array([0.1, 0.3, 0.4, 0.5, 0.6, 0.7]), np.array([False] * 5 + [True])
    point = at_specificity(scores, truth, 0.2)
    assert point is not None and (point.threshold, point.specificity) == (0.3, 0.2)


def test_what_lies_between_is_possible_whichever_threshold_is_higher() -> None:
    low, high = OperatingPoint("low", 0.3, 0.9, 0.5), OperatingPoint("high", 0.7, 0.5, 0.9)
    for rule_in, rule_out in ((high, low), (low, high)):
        found = [judged(p, rule_in, rule_out) for p in (0.29, 0.3, 0.69, 0.7)]
        assert found == [Answer.NEGATIVE, Answer.POSSIBLE, Answer.POSSIBLE, Answer.POSITIVE]


def test_what_is_reached_is_measured_on_the_other_folds() -> None:
    rng = np.random.default_rng(1)
    truth = rng.random(200) < 0.5
    scores, folds = truth * 0.5 + rng.normal(size=200), rng.integers(0, 5, 200)
    called = np.zeros(200, dtype=bool)
    for fold in range(5):
        rest = folds != fold
        threshold = max(t for t in scores[rest] if (scores[rest & truth] >= t).mean() >= 0.9)
        called[~rest] = scores[~rest] >= threshold
    found = reached(scores, truth, folds, lambda s, t: at_sensitivity(s, t, 0.9))
    assert found is not None
    assert found.sensitivity == pytest.approx(called[truth].mean())
    assert found.specificity == pytest.approx(1 - called[~truth].mean())


def test_calibration_error_by_hand() -> None:
    # [0.1, 0.1] none true: gap 0.1, twice; [0.85] true: gap 0.15; [1.0] true: gap 0
    probabilities, truth = np.array([0.1, 0.1, 0.85, 1.0]), np.array([False, False, True, True])
    assert calibration_error(probabilities, truth) == pytest.approx((2 * 0.1 + 0.15 + 0.0) / 4)
    bins = reliability_bins(probabilities, truth)
    assert [(b.low, b.count, b.observed) for b in bins] == [(0.1, 2, 0.0), (0.8, 1, 1.0), (0.9, 1, 1.0)]


def test_calibration_errors_against_numpy() -> None:
    rng = np.random.default_rng(5)
    p = rng.dirichlet([0.5] * 4, 300)
    truth = np.eye(4, dtype=bool)[rng.integers(0, 4, 300)]

    def error(q: np.ndarray, y: np.ndarray) -> float:
        edges = np.digitize(q, np.linspace(0, 1, 11)[1:-1])
        return float(sum(abs((y[edges == b] - q[edges == b]).sum()) for b in range(10)) / len(q))

    assert mean_calibration_error(p, truth) == pytest.approx(np.mean([error(p[:, v], truth[:, v]) for v in range(4)]))
    rows = np.arange(300)
    assert confidence_error(p, truth) == pytest.approx(error(p.max(axis=1), truth[rows, p.argmax(axis=1)]))


def test_right_probabilities_have_the_error_that_chance_makes_and_wrong_ones_more() -> None:
    rng = np.random.default_rng(8)
    p = rng.random(500)
    chance = by_chance(p)
    errors = [calibration_error(p, rng.random(500) < p) for _ in range(100)]
    assert chance.mean == pytest.approx(np.mean(errors), rel=0.1)
    assert np.mean(np.array(errors) > chance.high) < 0.15
    assert calibration_error(p, rng.random(500) < p**3) > chance.high


@pytest.mark.parametrize(("cases", "most"), [(0, 1.0), (1, 1.0), (20, 1.0), (60, 0.2), (500, 0.05), (3000, 1.0)])
def test_the_error_by_chance_without_drawing(cases: int, most: float) -> None:
    p = np.random.default_rng(9).random(cases) * most
    assert error_by_chance(p) == pytest.approx(by_chance(p).mean if cases else np.nan, rel=0.08, abs=2e-3, nan_ok=True)


def test_conformal_quantile_by_hand() -> None:
    errors = np.array([5.0, 1.0, 4.0, 2.0, 3.0, 6.0, 9.0, 8.0, 7.0])
    assert quantile(errors, 0.9) == 9.0  # ceil(10 x 0.9) = 9th of nine
    assert quantile(errors, 0.5) == 5.0
    assert math.isinf(quantile(errors[:8], 0.9)) and least_for(0.9) == 9


def test_weighted_mean_median_and_spread() -> None:
    numbers, weights = np.array([[10.0, 20.0, 40.0, np.nan]]), np.array([[0.2, 0.5, 0.3, 0.0]])
    assert centre_of(numbers, weights, Centre.MEAN)[0] == pytest.approx(24.0)
    assert centre_of(numbers, weights, Centre.MEDIAN)[0] == 20.0
    assert spread_of(numbers, weights)[0] == pytest.approx(math.sqrt(0.2 * 14**2 + 0.5 * 4**2 + 0.3 * 16**2))
