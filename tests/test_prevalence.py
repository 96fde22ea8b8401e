"""Precision at other prevalences: every way to draw cases away, counted out; and by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.prevalence import expected_precision, left_after_drawing


def plain(ranking: list[bool], k: int, prevalence: float) -> float:
    """The mean P@k over all choices of the cases that stay."""
    positives = [i for i, one in enumerate(ranking) if one]
    negatives = [i for i, one in enumerate(ranking) if not one]
    kept_positives, kept_negatives = left_after_drawing(len(positives), len(negatives), prevalence)
    if not kept_positives or kept_positives + kept_negatives < k:
        return float("nan")
    found = [
        sum(ranking[i] for i in sorted(some + others)[:k]) / k
        for some in itertools.combinations(positives, kept_positives)
        for others in itertools.combinations(negatives, kept_negatives)
    ]
    return float(np.mean(found))


@given(st.lists(st.booleans(), min_size=2, max_size=10), st.integers(1, 4), st.sampled_from([0.1, 0.2, 0.4, 0.6, 0.8]))
def test_agrees_with_every_way_to_draw(ranking: list[bool], k: int, prevalence: float) -> None:
    sizes = np.array([len(ranking)])
    exact = expected_precision(np.array([ranking]), sizes, k, (prevalence,))[0, 0]
    assert exact == pytest.approx(plain(ranking, k, prevalence), nan_ok=True)
    padded = np.array([[*ranking, False, True]])  # places that are not ranked hold nothing
    assert expected_precision(padded, sizes, k, (prevalence,))[0, 0] == pytest.approx(exact, nan_ok=True)


def test_by_hand() -> None:
    """Two of ten stay with the finding of 4 beside 8 at 1 in 5; each is first with probability 1/2."""
    assert left_after_drawing(4, 8, 0.2) == (2, 8)
    ranking = np.array([[True, *[False] * 8, True, True, True]])
    assert expected_precision(ranking, np.array([12]), 1, (0.2,))[0, 0] == pytest.approx(0.5)
    assert left_after_drawing(2, 98, 0.05) == (2, 38)  # too rare: cases without it are drawn from
    assert left_after_drawing(10, 40, 0.005) == (0, 40)  # too small a gallery
    assert left_after_drawing(10, 120, 0.01) == (1, 120)
    assert left_after_drawing(10, 120, 0.005) == (0, 120)  # one case would be 0.8 %, none 0 %
    assert np.isnan(expected_precision(ranking, np.array([12]), 1, (0.005,))[0, 0])


def test_a_random_ranking_has_the_prevalence() -> None:
    generator = np.random.default_rng(0)
    rankings = np.array([generator.permutation(np.arange(400) < 100) for _ in range(500)])
    precision = expected_precision(rankings, np.full(500, 400), 5, (0.02,))
    assert precision.mean() == pytest.approx(6 / 306, abs=0.004)
