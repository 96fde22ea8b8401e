"""Every mismatch between index and database is found by its name and number, and mended: a small part of
``benchmarks.reliability.mismatches``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.reliability.forgeries import Gallery
from benchmarks.reliability.mismatches import alone, at_size, findings, large
from benchmarks.reliability.plants import ALONE, together


@pytest.mark.parametrize("name", ALONE)
def test_a_mismatch_alone(name: str) -> None:
    assert alone(name, np.random.default_rng(len(name))) == ""


def test_hundreds_at_once(tmp_path: Path) -> None:
    with large(tmp_path, 3000, 16) as gallery:
        told = [what for what, good in at_size(gallery, np.random.default_rng(0)) if not good]
    assert told == []


def test_what_was_not_planted_is_not_found(tmp_path: Path) -> None:
    with large(tmp_path, 3000, 16) as gallery:
        assert findings(gallery) == {}
        planted = together(gallery, np.random.default_rng(1), each=7)
        assert findings(gallery) == planted
        gallery.sql("UPDATE gallery SET last_key = 2000", [()])
        assert findings(Gallery(gallery.catalog, gallery.home)) != planted
