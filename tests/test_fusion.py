"""Image and text together, against the formulas written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.background import Background, composed_similarities, text_similarities
from retrieval.errors import UsageError
from retrieval.fusion import compose, ranks, reciprocal_rank

weights = st.floats(0, 1)
# Few values, so that ties are common.
lists = st.lists(
    st.tuples(st.sampled_from([-0.5, 0.1, 0.2, 0.9]), st.sampled_from([0.0, 0.05, 0.3])), min_size=1, max_size=40
)


def unit(count: int, dim: int = 8, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@given(weight=weights, seed=st.integers(0, 50))
def test_the_sum_is_a_unit_vector_between_its_parts(weight: float, seed: int) -> None:
    images, text = unit(3, seed=seed), unit(1, seed=seed + 1000)[0]
    summed = compose(images, text, weight)
    want = (1 - weight) * images.astype(float) + weight * text.astype(float)
    want /= np.linalg.norm(want, axis=1, keepdims=True)
    assert summed.dtype == np.float32 and np.allclose(summed, want, atol=1e-6)


def test_the_ends_are_the_parts_themselves() -> None:
    images, text = unit(3), unit(1, seed=9)[0]
    assert compose(images, text, 0.0).tobytes() == images.tobytes()
    assert compose(images, text, 1.0).tobytes() == np.stack([text] * 3).tobytes()
    assert compose(images[:0], text, 0.5).shape == (0, 8)


def test_what_can_not_be_composed_is_told() -> None:
    images = unit(1)
    with pytest.raises(UsageError, match="cancel"):
        compose(images, -images[0], 0.5)
    for weight in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match="from 0"):
            compose(images, images[0], weight)
        with pytest.raises(UsageError, match="from 0"):
            reciprocal_rank(np.arange(1, 2), np.zeros(1, np.float32), np.zeros(1, np.float32), weight)


@given(pairs=lists, weight=weights, seed=st.integers(0, 99))
def test_reciprocal_rank_is_the_formula_over_full_rankings(
    pairs: list[tuple[float, float]], weight: float, seed: int
) -> None:
    keys = np.sort(np.random.default_rng(seed).choice(1000, len(pairs), replace=False) + 1)
    image, text = (np.array(column, np.float32) for column in zip(*pairs, strict=True))
    found = reciprocal_rank(keys, image, text, weight)

    def places(similarities: np.ndarray) -> dict[int, int]:
        order = sorted(range(len(keys)), key=lambda n: (-similarities[n], keys[n]))
        return {int(keys[n]): place for place, n in enumerate(order, 1)}

    by_image, by_text = places(image), places(text)
    score = {key: (1 - weight) / (60 + by_image[key]) + weight / (60 + by_text[key]) for key in by_image}
    assert found.keys.tolist() == sorted(score, key=lambda key: (-score[key], key))
    assert found.scores.tolist() == [score[key] for key in found.keys.tolist()]
    assert found.image_ranks.tolist() == [by_image[key] for key in found.keys.tolist()]
    assert found.text_ranks.tolist() == [by_text[key] for key in found.keys.tolist()]


def test_equal_scores_go_by_key() -> None:
    found = reciprocal_rank(np.array([3, 8]), np.array([0.9, 0.1], np.float32), np.array([0.1, 0.9], np.float32), 0.5)
    assert found.keys.tolist() == [3, 8]
    assert ranks(np.array([5, 2, 9]), np.array([0.5, 0.5, 0.6], np.float32)).tolist() == [3, 2, 1]


class Rows:
    def sample(self, n: int) -> np.ndarray:
        return unit(60)[:n]


def test_a_sentence_is_measured_by_sentences_and_a_composed_query_by_its_like() -> None:
    sentences, background = unit(5, seed=4), Background()
    text = background.of(Rows(), 60, 1.0, lambda: sentences)
    pairs = (sentences @ unit(60).T).ravel()
    assert text.percentile(0.2) == pytest.approx(100 * np.mean(pairs < 0.2), abs=0.5)
    composed = background.of(Rows(), 60, 0.25, lambda: sentences)
    assert len(composed.similarities) == 60 * 59
    asked = [compose(unit(60)[n : n + 1], sentences[n % 5], 0.25)[0] for n in range(60)]
    pairs = np.array([asked[i] @ unit(60)[j] for i in range(60) for j in range(60) if i != j])
    assert composed.percentile(0.3) == pytest.approx(100 * np.mean(pairs < 0.3), abs=0.5)
    assert background.of(Rows(), 60).percentile(0.2) not in {text.percentile(0.2), composed.percentile(0.2)}


def test_an_empty_gallery_has_no_pairs() -> None:
    none = np.empty((0, 8), np.float32)
    assert len(text_similarities(none, unit(2))) == len(composed_similarities(none, unit(2), 0.5)) == 0


def test_sentences_are_asked_for_only_when_needed() -> None:
    asked = []

    def sentences() -> np.ndarray:
        asked.append(1)
        return unit(3, seed=2)

    background = Background()
    background.of(Rows(), 60, 0.0, sentences)
    assert not asked
    for _ in range(3):
        background.of(Rows(), 60, 1.0, sentences)
    assert len(asked) == 1
