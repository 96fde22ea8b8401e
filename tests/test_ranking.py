from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retrieval.planner import Plan
from retrieval.ranking import group_hits, search_grouped
from retrieval.types import Keys, Similarities

PLAN = Plan("exact", 0, True)

# (similarity, group) by position; few values, so that ties are common
galleries = st.lists(
    st.tuples(st.sampled_from([0.1, 0.2, 0.5, 0.9]), st.sampled_from(["", "a", "b", "c", "d"])), max_size=60
)


def ranked(gallery: list[tuple[float, str]]) -> list[int]:
    return sorted(range(1, len(gallery) + 1), key=lambda key: (-gallery[key - 1][0], key))


def brute_force(gallery: list[tuple[float, str]], k: int) -> list[int]:
    kept: list[int] = []
    for key in ranked(gallery):
        group = gallery[key - 1][1]
        if group == "" or group not in [gallery[other - 1][1] for other in kept]:
            kept.append(key)
    return kept[:k]


@given(gallery=galleries, k=st.integers(1, 12))
def test_the_best_of_each_group_is_found_by_ever_wider_searches(gallery: list[tuple[float, str]], k: int) -> None:
    def search(n: int) -> tuple[Keys, Similarities, Plan]:
        best = ranked(gallery)[:n]
        keys = np.array(best + [-1] * (n - len(best)))[None, :]
        sims = np.array([gallery[key - 1][0] for key in best] + [-np.inf] * (n - len(best)), np.float32)[None, :]
        return keys, sims, PLAN

    asked: list[int] = []

    def groups_of(keys: Keys) -> list[str]:
        asked.extend(keys.tolist())
        return [gallery[key - 1][1] for key in keys.tolist()]

    found = search_grouped(search, groups_of, k)
    want = brute_force(gallery, k)
    assert found.keys.tolist() == want
    assert found.similarities.tolist() == [np.float32(gallery[key - 1][0]) for key in want]
    assert len(asked) == len(set(asked))


@given(gallery=galleries, k=st.integers(1, 12), seed=st.integers(0, 99))
def test_grouping_does_not_depend_on_the_order_given(gallery: list[tuple[float, str]], k: int, seed: int) -> None:
    keys = np.random.default_rng(seed).permutation(np.arange(1, len(gallery) + 1))
    similarities = np.array([gallery[key - 1][0] for key in keys], np.float32)
    found, _ = group_hits(keys, similarities, [gallery[key - 1][1] for key in keys], k)
    assert found.tolist() == brute_force(gallery, k)


def test_nothing_found() -> None:
    found = search_grouped(
        lambda n: (np.full((1, n), -1), np.full((1, n), -np.inf, np.float32), PLAN), lambda keys: [], 5
    )
    assert found.keys.tolist() == []
    assert found.plan == PLAN
