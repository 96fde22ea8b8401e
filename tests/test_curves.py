"""ROC curves, areas and their bootstrap: by hand, by a plain version, by scikit-learn."""

from __future__ import annotations

import itertools
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval import metrics
from retrieval.curves import GRID, auc, drawn_auc, roc, roc_band, weighted_auc
from retrieval.resampling import Draws


@pytest.fixture(scope="module")
def theirs() -> ModuleType:
    """The measures of scikit-learn. Imported before an example is: Hypothesis allows one less time than that takes."""
    import sklearn.metrics

    return sklearn.metrics


def plain_auc(scores: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> float:
    """Pairs of one true and one untrue case that are ordered rightly, ties for half."""
    won = total = 0.0
    for i, j in itertools.product(np.flatnonzero(truth), np.flatnonzero(~truth)):
        pair = weights[i] * weights[j]
        won += pair * ((scores[i] > scores[j]) + (scores[i] == scores[j]) / 2)
        total += pair
    return won / total if total else float("nan")


def test_by_hand() -> None:
    scores, truth = np.array([0.9, 0.8, 0.8, 0.1]), np.array([True, True, False, False])
    assert auc(scores, truth) == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    curve = roc(scores, truth)
    assert list(zip(curve.false_positive, curve.true_positive, strict=True)) == [(0, 0), (0, 0.5), (0.5, 1), (1, 1)]
    with pytest.raises(ValueError, match="one kind only"):
        auc(scores, np.ones(4, dtype=bool))


@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(1, 6))
def test_weighted_areas_agree_with_pairs_and_with_scikit_learn(
    theirs: ModuleType, seed: int, count: int, levels: int
) -> None:
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, levels, count).astype(float)
    truth = np.arange(count) % 2 == 0
    weights = generator.integers(0, 3, (4, count)).astype(float)
    areas = weighted_auc(scores, truth, weights)
    for row, area in zip(weights, areas, strict=True):
        expected = plain_auc(scores, truth, row)
        assert area == pytest.approx(expected, nan_ok=True)
        if np.isfinite(expected):
            assert area == pytest.approx(theirs.roc_auc_score(truth, scores, sample_weight=row))
    assert weighted_auc(scores, truth, np.ones((1, count)))[0] == pytest.approx(auc(scores, truth))


def test_draws_bring_all_cases_of_a_patient() -> None:
    patients = np.array([7, 7, 3, 3, 3, 9])
    draws = Draws.of(patients, seed=5, resamples=40)
    assert (draws.times.sum(axis=1) == 3).all()
    weights = np.concatenate(list(draws.weights(np.arange(6))))
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 2] == weights[:, 4]).all()
    values = np.array([1.0, 2.0, 4.0, np.nan, 8.0, 16.0])
    chosen = np.array([True, True, True, True, True, False])
    kept = np.isfinite(values) & chosen
    plain = [(row[kept] @ values[kept]) / row[kept].sum() if row[kept].sum() else np.nan for row in weights]
    assert draws.means(values, chosen) == pytest.approx(plain, nan_ok=True)


def test_the_interval_agrees_with_the_older_bootstrap_of_means() -> None:
    generator = np.random.default_rng(0)
    patients = np.repeat(np.arange(60), 3)
    scores = generator.random(180)
    draws = Draws.of(patients, seed=11, resamples=200)
    ours = draws.interval(draws.means(scores))
    theirs = metrics.patient_bootstrap(scores, patients, seed=11, resamples=200)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))  # the same draws, too


def test_drawn_areas_and_the_band_hold_the_curve(theirs: ModuleType) -> None:
    generator = np.random.default_rng(3)
    truth = generator.random(300) < 0.3
    scores = truth + generator.normal(size=300)
    draws = Draws.of(np.arange(300) // 2, seed=1, resamples=120)
    areas = drawn_auc(scores, truth, draws, np.arange(300))
    interval = draws.interval(areas)
    assert interval.low < auc(scores, truth) < interval.high
    weights = np.concatenate(list(draws.weights(np.arange(300))))
    assert areas[17] == pytest.approx(theirs.roc_auc_score(truth, scores, sample_weight=weights[17]))
    band, curve = roc_band(scores, truth, draws), roc(scores, truth)
    middle = np.interp(GRID, curve.false_positive, curve.true_positive)
    assert (band.low <= middle + 0.02).all()
    assert (band.high >= middle - 0.02).all()
    assert (band.low[0], band.high[-1]) == pytest.approx(
        (np.quantile(_sensitivities(scores, truth, weights), 0.025), 1)
    )


def _sensitivities(scores: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> list[float]:
    """Sensitivity above the highest drawn case without the finding, in each draw."""
    out = []
    for row in weights:
        top = scores[~truth & (row > 0)].max()
        out.append(row[truth & (scores > top)].sum() / row[truth].sum())
    return out
