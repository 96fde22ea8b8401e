"""Percentiles of small integers are counted, not sorted: the values are the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from retrieval.encoders.levels import _counted, _sorted, stretch
from retrieval.types import Pixels

SMALL = st.sampled_from([np.uint8, np.int8, np.uint16, np.int16])
SHAPES = arrays.array_shapes(min_dims=2, max_dims=2, max_side=24)


@given(SMALL.flatmap(lambda dtype: arrays.arrays(dtype, SHAPES)), st.floats(0, 50), st.floats(50, 100))
def test_counting_gives_what_sorting_gives(pixels: Pixels, low: float, high: float) -> None:
    assert _counted(pixels, (low, high)) == pytest.approx(_sorted(pixels, (low, high)), abs=1e-6)


def test_a_frame_of_16_bits_is_stretched_as_the_same_frame_of_floats() -> None:
    pixels = np.random.default_rng(0).integers(-1000, 3000, (90, 70), np.int16)
    assert np.array_equal(stretch(pixels, (1, 99)), stretch(pixels.astype(np.float32), (1, 99)))
