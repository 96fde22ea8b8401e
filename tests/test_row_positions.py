"""Which rows are those of some keys: with and without gaps, few and many, in all three ways of finding out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.indexes.rows import Rows


@pytest.mark.parametrize("step", [1, 3, 100], ids=["without-gaps", "marked", "looked-up"])
@given(seed=st.integers(0, 999), first=st.integers(1, 50), count=st.integers(1, 90), asked=st.integers(0, 120))
def test_positions_of_keys(step: int, seed: int, first: int, count: int, asked: int) -> None:
    rng = np.random.default_rng(seed)
    here = np.arange(count, dtype=np.int64) * step + first
    if step > 1:
        here[1:] += rng.integers(0, step - 1, count - 1)
    rows = Rows(here, np.zeros((count, 2), np.float32))
    keys = np.unique(np.concatenate([rng.integers(1, here[-1] + 20, asked), rng.choice(here, asked // 2)]))
    expected = [at for at, key in enumerate(here.tolist()) if key in set(keys.tolist())]
    passing = rows.passing(keys)
    assert rows.positions(keys).tolist() == passing.positions.tolist() == expected
    assert np.flatnonzero(passing.mask).tolist() == expected and len(passing) == len(expected)


def test_no_rows_no_positions() -> None:
    assert len(Rows.empty(4).passing(np.array([1, 2]))) == 0
