"""The boundary between cases and strangers, against the normal equations and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.evidence.boundary import MOST, RIDGE, boundary, sides_held_out


def by_normal_equations(cases: np.ndarray, strangers: np.ndarray) -> tuple[np.ndarray, float]:
    """min of sum w (x b + c - y)^2 + p |b|^2 over b and c; w: half for each side."""
    rows = np.concatenate([cases, strangers]).astype(np.float64)
    told = np.r_[np.ones(len(cases)), -np.ones(len(strangers))]
    weights = np.r_[np.full(len(cases), 0.5 / len(cases)), np.full(len(strangers), 0.5 / len(strangers))]
    variance = float(weights @ ((rows - weights @ rows) ** 2).sum(axis=1))
    with_one = np.c_[rows, np.ones(len(rows))]
    penalty = RIDGE * variance * np.diag([1.0] * rows.shape[1] + [0.0])
    solved = np.linalg.solve(with_one.T * weights @ with_one + penalty, with_one.T @ (weights * told))
    return solved[:-1], float(solved[-1])


@given(st.integers(0, 500), st.integers(1, 30), st.integers(1, 12))
def test_it_solves_the_normal_equations(seed: int, cases: int, strangers: int) -> None:
    rng = np.random.default_rng(seed)
    held, others = rng.normal(size=(cases, 6)).astype(np.float32), rng.normal(size=(strangers, 6)).astype(np.float32)
    weights, constant = by_normal_equations(held, others)
    found = boundary(held, others)
    asked = rng.normal(size=(5, 6)).astype(np.float32)
    assert found.weights == pytest.approx(weights, rel=1e-3, abs=1e-3)
    assert found.side(asked) == pytest.approx(asked @ weights + constant, rel=1e-3, abs=1e-2)


def test_by_hand() -> None:
    """On a line, cases at 1 and strangers at -1: b = 1 / (1 + ridge), c = 0, however many there are of each."""
    for cases, strangers in ((1, 1), (3, 1), (1, 5)):
        held, others = np.full((cases, 1), 1, np.float32), np.full((strangers, 1), -1, np.float32)
        found = boundary(held, others)
        assert found.weights.tolist() == pytest.approx([1 / (1 + RIDGE)]) and found.middle == pytest.approx(0, abs=1e-6)
        assert found.side(np.array([[1], [0], [-1]], np.float32)) == pytest.approx([1, 0, -1], abs=1e-3)


def test_rows_that_are_all_alike_have_no_side() -> None:
    same = np.full((4, 3), 0.5, np.float32)
    assert boundary(same, same[:2]).side(same) == pytest.approx([0, 0, 0, 0])


def test_a_case_is_judged_without_its_patient() -> None:
    """Whatever is done to the other cases of a patient, one of them lies where it lay; others do not."""
    rng = np.random.default_rng(0)
    cases, strangers = rng.normal(size=(60, 40)).astype(np.float32), rng.normal(size=(9, 40)).astype(np.float32)
    patients = [f"patient {n // 3}" for n in range(60)]
    whole, sides = sides_held_out(cases, patients, strangers)
    assert np.isfinite(sides).all()
    assert sides.mean() < whole.side(cases).mean()  # those that it was fitted to lie further on their side
    for n in (0, 10, 59):
        changed = cases.copy()
        changed[[other for other in range(60) if patients[other] == patients[n] and other != n]] *= -3
        _, moved = sides_held_out(changed, patients, strangers)
        assert moved[n] == sides[n]
        assert (moved != sides).sum() > 30


def test_many_cases_are_judged_though_a_plane_is_fitted_to_some() -> None:
    rng = np.random.default_rng(1)
    cases, strangers = (
        rng.normal(1, 1, (MOST + 200, 5)).astype(np.float32),
        rng.normal(-1, 1, (20, 5)).astype(np.float32),
    )
    _, sides = sides_held_out(cases, [str(n) for n in range(len(cases))], strangers)
    assert (sides > 0).mean() > 0.9
