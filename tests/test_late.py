from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.late import best_matches, max_similarity, symmetric_max_similarity
from retrieval.types import UnitRows


def unit_rows(count: int, seed: int, dim: int = 6) -> UnitRows:
    rows = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@given(queries=st.integers(0, 8), hits=st.integers(0, 8), top=st.integers(0, 10), seed=st.integers(0, 999))
def test_matches_are_the_greedy_pairing_of_distinct_slices(queries: int, hits: int, top: int, seed: int) -> None:
    query, hit = unit_rows(queries, seed), unit_rows(hits, seed + 1)
    pairs = sorted(
        itertools.product(range(queries), range(hits)), key=lambda pair: (-float(query[pair[0]] @ hit[pair[1]]), pair)
    )
    want: list[tuple[int, int]] = []
    for mine, theirs in pairs:
        if all(mine != m and theirs != t for m, t in want) and len(want) < top:
            want.append((mine, theirs))
    found = best_matches(query, hit, top)
    assert [(mine, theirs) for mine, theirs, _ in found] == want
    for mine, theirs, similarity in found:
        assert similarity == pytest.approx(float(query[mine] @ hit[theirs]), abs=1e-6)


def test_equal_pairs_come_in_slice_order() -> None:
    same = np.repeat(unit_rows(1, 0), 3, axis=0)
    assert [pair[:2] for pair in best_matches(same, same)] == [(0, 0), (1, 1), (2, 2)]


def test_max_similarity_is_the_mean_of_each_best() -> None:
    query, hit = unit_rows(5, 1), unit_rows(7, 2)
    want = np.mean([max(float(q @ h) for h in hit) for q in query])
    assert max_similarity(query, hit) == pytest.approx(want, abs=1e-6)
    back = np.mean([max(float(q @ h) for q in query) for h in hit])
    assert symmetric_max_similarity(query, hit) == pytest.approx((want + back) / 2, abs=1e-6)
    assert symmetric_max_similarity(query, hit) == symmetric_max_similarity(hit, query)


def test_a_part_of_a_volume_scores_one_against_the_whole() -> None:
    whole = unit_rows(9, 3)
    assert max_similarity(whole[2:5], whole) == pytest.approx(1.0)
    assert max_similarity(whole, whole[2:5]) < 0.99
    assert max_similarity(whole, whole[::-1].copy()) == pytest.approx(1.0)


@pytest.mark.parametrize(("query", "hit"), [(0, 3), (3, 0)])
def test_no_slices_is_an_error(query: int, hit: int) -> None:
    with pytest.raises(ValueError, match="at least one row"):
        max_similarity(unit_rows(query, 0), unit_rows(hit, 1))
