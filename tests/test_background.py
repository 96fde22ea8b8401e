"""The yardstick beside every similarity, against a few lines of NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.background import Background, pair_similarities


class Rows:
    """A source that counts how often it is asked."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows.astype(np.float32)
        self.asked = 0

    def sample(self, n: int) -> np.ndarray:
        self.asked += 1
        return self.rows[:n]


def unit(count: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, dim))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_percentile_is_the_share_of_less_similar_pairs() -> None:
    source = Rows(unit(60))
    background = Background().of(source, 60)
    pairs = [float(source.rows[i] @ source.rows[j]) for i in range(60) for j in range(i)]
    for similarity in (-0.5, 0.0, 0.1, 0.4, 0.99):
        share = 100 * np.mean(np.array(pairs) < similarity)
        assert background.percentile(similarity) == pytest.approx(share, abs=0.1)


def test_pairs_are_sorted_distinct_and_complete() -> None:
    pairs = pair_similarities(unit(10).astype(np.float32))
    assert len(pairs) == 45 and (np.diff(pairs) >= 0).all()


def test_stands_out_above_what_random_pairs_reach() -> None:
    background = Background().of(Rows(unit(80)), 80)
    assert not background.stands_out(0.0)
    assert background.stands_out(0.95)


def test_too_small_a_gallery_says_nothing() -> None:
    for count in (0, 1):
        background = Background().of(Rows(unit(count)), count)
        assert background.percentile(0.9) == 0.0 and background.stands_out(0.1)


def test_drawn_again_only_when_doubled_or_halved() -> None:
    source, background = Rows(unit(50)), Background()
    for size in (100, 100, 150, 200, 99, 51):
        background.of(source, size)
    assert source.asked == 1
    background.of(source, 201)
    background.of(source, 402)
    assert source.asked == 2
    background.of(source, 100)
    assert source.asked == 3
