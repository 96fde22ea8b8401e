"""Ranks among a reference, and how many of it may be strange, against a few lines of NumPy and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.evidence.closeness import DEPTH, Closeness, UsualCloseness, by_depth, closeness
from retrieval.evidence.conformal import Reference, allowance, least_count


@pytest.mark.parametrize("count", [1, 33, 34, 57, 100, 199, 1000])
@pytest.mark.parametrize("assurance", [0.5, 0.75, 0.9])
def test_the_allowance_is_the_largest_that_the_beta_distribution_grants(count: int, assurance: float) -> None:
    from scipy.stats import beta

    granted = [place for place in range(1, count + 1) if beta.cdf(0.04, place, count + 1 - place) >= assurance]
    assert allowance(count, 0.04, assurance) == max(granted, default=0)


def test_by_hand() -> None:
    assert allowance(0, 0.05, 0.9) == 0
    assert least_count(0.5, 0.75) == 2  # one value in four has both of two above its median
    assert allowance(1, 0.5, 0.75) == 0 and allowance(2, 0.5, 0.75) == 1
    reference = Reference.of([0.3, 0.1, 0.2, 0.4], 4, 0.5, 0.9)
    assert reference.allowed == 1 and reference.can_tell
    assert [reference.p_value(value) for value in (0.0, 0.1, 0.25, 0.9)] == [0.2, 0.4, 0.6, 1.0]
    assert reference.strange(0.09) and not reference.strange(0.1)
    assert not Reference.of([0.1], 1, 0.05, 0.9).can_tell


def test_several_values_of_a_patient_are_worth_one() -> None:
    values = np.linspace(0, 1, 1000)
    assert Reference.of(values, 20, 0.04, 0.75).allowed == 0
    few, many = Reference.of(values, 100, 0.04, 0.75), Reference.of(values, 1000, 0.04, 0.75)
    assert few.granted == allowance(100, 0.04, 0.75) and few.allowed == few.granted * 10 < many.allowed


def test_the_true_rate_of_strange_values_is_within_alpha_as_often_as_assured() -> None:
    rng = np.random.default_rng(0)
    for count in (60, 200):
        place = allowance(count, 0.04, 0.75)
        rates = np.sort(rng.random((4000, count)), axis=1)[:, place - 1]  # of uniform values, the rate is the threshold
        assert (rates <= 0.04).mean() >= 0.75 - 0.03


@given(st.integers(0, 1000))
def test_closeness_is_means_over_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(DEPTH, 6)).astype(np.float32)
    similarities = np.sort(rng.random(DEPTH).astype(np.float32))[::-1].copy()
    near, apart = by_depth(similarities[None], rows[None])
    for depth in range(1, DEPTH + 1):
        own = float(np.mean(similarities[:depth]))
        pairs = [float(rows[i] @ rows[j]) for i in range(depth) for j in range(depth) if i != j]
        assert near[0, depth - 1] == pytest.approx(own, abs=1e-5)
        assert (
            np.isnan(apart[0, 0])
            if depth == 1
            else apart[0, depth - 1] == pytest.approx(own - np.mean(pairs), abs=1e-4)
        )
    found = closeness(similarities, rows)
    assert (found.depth, found.near, found.apart) == (DEPTH, near[0, -1], apart[0, -1])
    assert closeness(similarities[:1], rows[:1]).apart is None


def test_the_lower_of_two_ranks() -> None:
    near, apart = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.0, -0.3, -0.1, -0.2])
    usual = UsualCloseness.of(near, apart, 4, 0.5, 0.9)
    assert usual.joint.values.tolist() == [0.0, 0.0, 1.0, 2.0]  # ranks 0 3, 1 0, 2 2, 3 1
    assert usual.lower(Closeness(5, 0.35, 0.1)) == 3.0
    assert usual.lower(Closeness(5, 0.35, -0.25)) == 1.0
    assert usual.lower(Closeness(5, 0.05, 0.1)) == usual.lower(Closeness(5, 0.35, -0.5)) == -1.0
    alone = UsualCloseness.of(near, np.full(4, np.nan), 4, 0.5, 0.9)
    assert alone.lower(Closeness(1, 0.25, None)) == 2.0 and not len(alone.second)


def test_the_side_of_a_boundary_is_ranked_in_place_of_how_far_apart() -> None:
    near, side = np.array([0.1, 0.2, 0.3, 0.4]), np.array([1.1, 0.8, 1.0, 0.9])
    usual = UsualCloseness.of(near, np.full(4, np.nan), 4, 0.5, 0.9, side)
    assert usual.sided and usual.joint.values.tolist() == [0.0, 0.0, 1.0, 2.0]  # ranks 0 3, 1 0, 2 2, 3 1
    assert usual.second_of(Closeness(5, 0.35, -9.0, 0.95)) == 0.95
    assert usual.lower(Closeness(5, 0.35, -9.0, 0.95)) == 2.0
    assert usual.lower(Closeness(1, 0.35, None, -0.7)) == -1.0


def test_what_is_of_the_kind_is_rarely_strange_and_what_is_not_always() -> None:
    rng = np.random.default_rng(1)
    draw = lambda n: (rng.normal(0.8, 0.05, n), rng.normal(-0.02, 0.02, n))  # noqa: E731
    usual = UsualCloseness.of(*draw(300), 300, 0.04, 0.75)
    flagged = [usual.joint.strange(usual.lower(Closeness(5, *both))) for both in zip(*draw(2000), strict=True)]
    assert np.mean(flagged) <= 0.05
    assert usual.joint.strange(usual.lower(Closeness(5, 0.5, -0.02)))
    assert usual.joint.strange(usual.lower(Closeness(5, 0.8, -0.2)))
