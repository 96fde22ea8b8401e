"""Pooling: many unit rows become one finite unit vector, whatever they are; the choice of slices is fixed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.encoders.base import EncoderCard, unit_rows
from retrieval.encoders.pooling import POOLINGS, Pooling, choose_slices, gallery_fingerprint, pool
from retrieval.encoders.recipe import Recipe
from retrieval.errors import RejectedInput, UsageError
from retrieval.types import UnitRows

CARD = EncoderCard(name="any", spec="any", dim=4, recipe=Recipe(name="any", size=(8, 8)))


def rows(*values: list[float]) -> UnitRows:
    return unit_rows(np.array(values))


def random_rows(count: int, dim: int = 16, seed: int = 0) -> UnitRows:
    return unit_rows(np.random.default_rng(seed).normal(size=(count, dim)))


@settings(deadline=None)
@given(how=st.sampled_from(POOLINGS), count=st.integers(1, 9), dim=st.integers(1, 9), seed=st.integers(0, 99))
def test_any_rows_give_a_finite_unit_vector(how: str, count: int, dim: int, seed: int) -> None:
    vector = pool(random_rows(count, dim, seed), Pooling(how))
    assert vector.shape == (dim,)
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("how", "expected"),
    [("mean", [1, 1, 0]), ("max", [1, 1, 0]), ("median", [1, 1, 0]), ("std", [1, 1, 0]), ("min", [1, 1, 0])],
)
def test_two_orthogonal_rows(how: str, expected: list[float]) -> None:
    # min gives the zero vector here, which has no direction, so the mean stands in
    vector = pool(rows([1, 0, 0], [0, 1, 0]), Pooling(how))
    assert vector == pytest.approx(rows(expected)[0], abs=1e-6)


def test_the_kinds_differ_where_they_should() -> None:
    stack = random_rows(5)
    vectors = {how: pool(stack, Pooling(how)) for how in POOLINGS}
    for how, vector in vectors.items():
        raw = getattr(np, how)(stack.astype(np.float64), axis=0)
        assert vector == pytest.approx(raw / np.linalg.norm(raw), abs=1e-6)
    assert len({vector.tobytes() for vector in vectors.values()}) == len(POOLINGS)


@pytest.mark.parametrize("how", POOLINGS)
def test_one_slice_is_the_case(how: str) -> None:
    stack = random_rows(1)
    assert pool(stack, Pooling(how)) == pytest.approx(stack[0], abs=1e-6)


@pytest.mark.parametrize("how", POOLINGS)
def test_equal_slices_are_the_case(how: str) -> None:
    stack = np.repeat(random_rows(1), 4, axis=0)
    assert pool(stack, Pooling(how)) == pytest.approx(stack[0], abs=1e-6)


def test_slices_that_cancel_out_leave_the_middle_one() -> None:
    stack = rows([1, 0], [0, 1], [-1, 0], [0, -1])
    assert pool(stack, Pooling("mean")).tolist() == [-1, 0]


@pytest.mark.parametrize("how", POOLINGS)
def test_order_of_slices_does_not_matter(how: str) -> None:
    stack = random_rows(7)
    assert pool(stack[::-1], Pooling(how)) == pytest.approx(pool(stack, Pooling(how)), abs=1e-6)


def test_no_slices_is_an_error() -> None:
    with pytest.raises(UsageError, match="at least one"):
        pool(np.empty((0, 4), np.float32), Pooling())


@given(count=st.integers(0, 3000), most=st.integers(1, 400))
def test_slices_are_spread_evenly(count: int, most: int) -> None:
    chosen = choose_slices(count, most)
    assert len(chosen) == min(count, most)
    assert list(chosen) == sorted(set(chosen))
    assert all(0 <= index < count for index in chosen)
    if count > most:
        gaps = np.diff(chosen)
        assert gaps.size == 0 or gaps.max() - gaps.min() <= 1
        assert abs(chosen[0] - (count - 1 - chosen[-1])) <= 1  # the same margin at both ends


def test_one_slice_of_many_is_the_middle_one() -> None:
    assert choose_slices(101, 1) == (50,)


@pytest.mark.parametrize("pooling", [Pooling(), Pooling("max", 3), Pooling("std", 1)])
def test_a_spec_reads_back(pooling: Pooling) -> None:
    assert Pooling.parse(pooling.spec) == pooling


def test_a_bare_name_takes_the_default_number_of_slices() -> None:
    assert Pooling.parse("median") == Pooling("median", 256)


@pytest.mark.parametrize("spec", ["", "sum", "mean-", "mean-x", "mean-0", "mean--1", "mean-²", "MEAN"])
def test_a_wrong_spec_is_refused(spec: str) -> None:
    with pytest.raises(UsageError):
        Pooling.parse(spec)


def test_a_gallerys_fingerprint_follows_the_pooling() -> None:
    names = {gallery_fingerprint(CARD, Pooling(how, most)) for how in POOLINGS for most in (64, 256)}
    assert len(names) == 2 * len(POOLINGS)
    assert gallery_fingerprint(CARD, Pooling()) == f"{CARD.fingerprint}-mean-256"


def test_unit_rows_of_extremes() -> None:
    scaled = unit_rows(np.array([[3e-300, 4e-300], [3e300, 4e300], [0, 0]]))
    assert scaled == pytest.approx(np.array([[0.6, 0.8], [0.6, 0.8], [0.5**0.5, 0.5**0.5]]))
    assert unit_rows(np.empty((0, 7))).shape == (0, 7)
    with pytest.raises(RejectedInput, match="NaN"):
        unit_rows(np.array([[1.0, np.nan]]))
