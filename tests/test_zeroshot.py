"""Probabilities from cosines, against the formulas written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.zeroshot import cosines, each, one_of, prompts

tables = st.integers(1, 5).flatmap(
    lambda labels: st.lists(st.lists(st.floats(-1, 1), min_size=labels, max_size=labels), min_size=1, max_size=4)
)
scales = st.sampled_from([1.0, 14.3, 91.2, 100.0])


@given(table=tables, scale=scales)
def test_one_of_is_the_softmax(table: list[list[float]], scale: float) -> None:
    found = one_of(np.array(table), scale)
    for row, told in zip(table, found.tolist(), strict=True):
        peak = max(row)
        powers = [math.exp(scale * (value - peak)) for value in row]
        assert told == pytest.approx([power / sum(powers) for power in powers], abs=1e-12)
    assert np.allclose(found.sum(axis=1), 1.0)


@given(table=tables, neutral=st.lists(st.floats(-1, 1), min_size=1, max_size=4), scale=scales)
def test_each_is_a_question_of_two_against_neutral_prompts(
    table: list[list[float]], neutral: list[float], scale: float
) -> None:
    found = each(np.array(table), np.array([neutral] * len(table)), scale)
    for row, told in zip(table, found.tolist(), strict=True):
        for cosine, probability in zip(row, told, strict=True):
            mean = math.fsum(math.exp(scale * (value - cosine)) for value in neutral) / len(neutral)
            assert probability == pytest.approx(1 / (1 + mean), abs=1e-9)


def test_as_near_as_neutral_is_a_half_where_a_plain_sigmoid_says_one() -> None:
    near = np.array([[0.25, 0.20, 0.30]])
    found = each(near, np.array([[0.25]]), 91.2)[0]
    assert found[0] == pytest.approx(0.5)
    assert found[1] < 0.05 and found[2] > 0.95
    assert (1 / (1 + np.exp(-91.2 * near)) > 0.9999).all()


def test_one_neutral_prompt_is_the_softmax_of_two() -> None:
    both = one_of(np.array([[0.31, 0.28]]), 91.2)[0, 0]
    assert each(np.array([[0.31]]), np.array([[0.28]]), 91.2)[0, 0] == pytest.approx(both)


def test_a_label_alone_is_what_it_is_among_others() -> None:
    table, neutral = np.random.default_rng(0).uniform(-0.1, 0.4, (3, 6)), np.full((3, 2), 0.2)
    whole = each(table, neutral, 91.2)
    for n in range(6):
        assert each(table[:, n : n + 1], neutral, 91.2)[:, 0].tolist() == whole[:, n].tolist()


def test_nothing_asked_is_nothing_told() -> None:
    assert one_of(np.empty((2, 0)), 91.2).shape == (2, 0)
    assert one_of(np.empty((0, 3)), 91.2).shape == (0, 3)
    assert each(np.empty((2, 0)), np.zeros((2, 4)), 91.2).shape == (2, 0)
    assert each(np.empty((0, 3)), np.zeros((0, 4)), 91.2).shape == (0, 3)
    assert cosines(np.empty((0, 8), np.float32), np.ones((2, 8), np.float32)).shape == (0, 2)


def test_a_cosine_does_not_depend_on_its_neighbours() -> None:
    rows = np.random.default_rng(1).normal(size=(9, 64)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    whole = cosines(rows[:4], rows[4:])
    assert np.allclose(whole, rows[:4].astype(float) @ rows[4:].astype(float).T)
    for n in range(5):
        assert cosines(rows[:1], rows[4 + n : 5 + n])[0, 0] == whole[0, n]


def test_the_prompt_of_a_label() -> None:
    assert prompts(["pneumonia", "no finding"]) == ["pneumonia.", "no finding."]
