"""Measures of a ranking: hand-computed cases, a plain version, scikit-learn, and what must always hold."""

from __future__ import annotations

import itertools
import math
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval import metrics


@pytest.fixture(scope="module")
def theirs() -> ModuleType:
    """The measures of scikit-learn. Imported before an example is: Hypothesis allows one less time than that takes."""
    import sklearn.metrics

    return sklearn.metrics


def ranked(*rows: str) -> metrics.Ranked:
    """Rankings spelt out: ``x`` relevant, ``.`` not."""
    return np.array([[mark == "x" for mark in row] for row in rows])


def counts(*values: int) -> metrics.Counts:
    return np.array(values, dtype=np.int64)


@st.composite
def rankings(draw: st.DrawFn) -> tuple[list[bool], int]:
    """A full ranking, and how many relevant cases exist (all of them are in it)."""
    row = draw(st.lists(st.booleans(), min_size=1, max_size=30))
    return row, sum(row)


def plain_ap(row: list[bool], total: int, k: int) -> float:
    hits, out = 0, 0.0
    for rank, relevant in enumerate(row[:k], start=1):
        hits += relevant
        out += relevant * hits / rank
    return out / min(total, k)


def plain_ndcg(row: list[bool], total: int, k: int) -> float:
    gain = sum(1 / math.log2(rank + 1) for rank, relevant in enumerate(row[:k], start=1) if relevant)
    return gain / sum(1 / math.log2(rank + 1) for rank in range(1, min(total, k) + 1))


def test_precision_by_hand() -> None:
    assert metrics.precision_at(ranked("x.x..", ".x..."), 3).tolist() == pytest.approx([2 / 3, 1 / 3])


def test_precision_is_not_capped_by_the_class_or_the_gallery() -> None:
    assert metrics.precision_at(ranked("xx"), 10).tolist() == [0.2]


def test_recall_and_success_by_hand() -> None:
    rows = ranked("x.x.x", ".....")
    assert metrics.recall_at(rows, counts(4, 2), 3).tolist() == [0.5, 0.0]
    assert metrics.success_at(rows, counts(4, 2), 3).tolist() == [1.0, 0.0]


def test_average_precision_by_hand() -> None:
    # relevant at ranks 1, 3 and 6 of 3: (1/1 + 2/3 + 3/6) / 3
    assert metrics.average_precision(ranked("x.x..x"), counts(3)).tolist() == pytest.approx([(1 + 2 / 3 + 0.5) / 3])
    assert metrics.average_precision(ranked("x.x..x"), counts(3), k=4).tolist() == pytest.approx([(1 + 2 / 3) / 3])
    assert metrics.average_precision(ranked("xx..xx"), counts(4), k=2).tolist() == [1.0]


def test_ndcg_by_hand() -> None:
    # DCG = 1/log2(3) + 1/log2(4); ideal of two relevant = 1 + 1/log2(3)
    expected = (1 / math.log2(3) + 0.5) / (1 + 1 / math.log2(3))
    assert metrics.ndcg_at(ranked(".xx"), counts(2), 3).tolist() == pytest.approx([expected])


def test_a_query_without_relevant_cases_has_no_recall_or_ap() -> None:
    none, rows = counts(0), ranked("...")
    for scores in (
        metrics.recall_at(rows, none, 2),
        metrics.success_at(rows, none, 2),
        metrics.average_precision(rows, none),
        metrics.ndcg_at(rows, none, 2),
        metrics.chance_recall(none, counts(3), 2),
        metrics.chance_average_precision(none, counts(3)),
        metrics.chance_ndcg(none, counts(3), 2),
    ):
        assert np.isnan(scores).all()
    assert metrics.precision_at(rows, 2).tolist() == [0.0]


@pytest.mark.parametrize("k", [0, -1])
def test_k_must_be_positive(k: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        metrics.precision_at(ranked("x"), k)


@given(rankings(), st.integers(1, 40))
def test_agrees_with_the_plain_version(ranking: tuple[list[bool], int], k: int) -> None:
    row, total = ranking
    rows, totals = np.array([row]), counts(total)
    assert metrics.precision_at(rows, k)[0] == pytest.approx(sum(row[:k]) / k)
    if total:
        assert metrics.recall_at(rows, totals, k)[0] == pytest.approx(sum(row[:k]) / total)
        assert metrics.average_precision(rows, totals, k)[0] == pytest.approx(plain_ap(row, total, k))
        assert metrics.ndcg_at(rows, totals, k)[0] == pytest.approx(plain_ndcg(row, total, k))


@given(rankings().filter(lambda ranking: ranking[1] > 0 and len(ranking[0]) > 1), st.integers(1, 40))
def test_agrees_with_scikit_learn(theirs: ModuleType, ranking: tuple[list[bool], int], k: int) -> None:
    row, total = ranking
    descending = np.arange(len(row), 0, -1.0)
    assert metrics.average_precision(np.array([row]), counts(total))[0] == pytest.approx(
        theirs.average_precision_score(row, descending)
    )
    assert metrics.ndcg_at(np.array([row]), counts(total), k)[0] == pytest.approx(
        theirs.ndcg_score([row], [descending], k=k)
    )


@given(rankings().filter(lambda ranking: ranking[1] > 0), st.integers(1, 40))
def test_every_score_is_a_share_and_a_perfect_ranking_has_one(ranking: tuple[list[bool], int], k: int) -> None:
    row, total = ranking
    best = np.array([sorted(row, reverse=True)])
    for measure in (metrics.recall_at, metrics.success_at, metrics.ndcg_at):
        score = measure(np.array([row]), counts(total), k)[0]
        assert 0 <= score <= measure(best, counts(total), k)[0] <= 1 + 1e-12
    assert metrics.average_precision(best, counts(total))[0] == pytest.approx(1)
    assert metrics.ndcg_at(best, counts(total), k)[0] == pytest.approx(1)


@given(st.integers(1, 7), st.integers(0, 7), st.integers(1, 9))
def test_chance_is_the_mean_over_all_rankings(size: int, total: int, k: int) -> None:
    total = min(total, size)
    every = np.array([[i in chosen for i in range(size)] for chosen in itertools.combinations(range(size), total)])
    totals = np.full(len(every), total, dtype=np.int64)
    one, sizes = counts(total), counts(size)
    assert metrics.chance_precision(one, sizes, k)[0] == pytest.approx(metrics.precision_at(every, k).mean())
    if total:
        assert metrics.chance_recall(one, sizes, k)[0] == pytest.approx(metrics.recall_at(every, totals, k).mean())
        assert metrics.chance_ndcg(one, sizes, k)[0] == pytest.approx(metrics.ndcg_at(every, totals, k).mean())
        expected = metrics.average_precision(every, totals).mean()
        assert metrics.chance_average_precision(one, sizes)[0] == pytest.approx(expected)


def test_bootstrap_resamples_patients_and_not_queries() -> None:
    generator = np.random.default_rng(1)
    of_patient = generator.integers(0, 2, 40).astype(float)
    scores, patients = np.repeat(of_patient, 25), np.repeat(np.arange(40), 25)
    clustered = metrics.patient_bootstrap(scores, patients, seed=3)
    naive = metrics.patient_bootstrap(scores, np.arange(1000), seed=3)
    assert clustered.high - clustered.low > 3 * (naive.high - naive.low)  # sqrt(25) = 5 times, in theory
    assert clustered.low <= scores.mean() <= clustered.high


def test_bootstrap_matches_the_normal_approximation() -> None:
    scores = np.random.default_rng(5).normal(0.5, 0.1, 900)
    interval = metrics.patient_bootstrap(scores, np.arange(900), seed=0, resamples=4000)
    half = 1.96 * scores.std() / 30
    assert interval.low == pytest.approx(scores.mean() - half, abs=half / 6)
    assert interval.high == pytest.approx(scores.mean() + half, abs=half / 6)


def test_bootstrap_is_seeded_and_leaves_out_nan() -> None:
    scores, patients = np.array([0.0, 1.0, np.nan, 0.5]), np.array([0, 1, 2, 1])
    first = metrics.patient_bootstrap(scores, patients, seed=9)
    assert first == metrics.patient_bootstrap(scores, patients, seed=9)
    assert first == metrics.patient_bootstrap(scores[[0, 1, 3]], patients[[0, 1, 3]], seed=9)
    assert np.isnan(metrics.patient_bootstrap(np.array([np.nan]), np.array([0]), seed=9).low)
