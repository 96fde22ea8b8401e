"""The RadFM format: shapes, ranges, order, and places in step with the images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from indexer.evidence_images import Frames
from indexer.radfm import PLACE, Placed, block_of, depth_of, save_radfm
from retrieval.evidence.bundle import gather
from retrieval.types import Image
from tests.evidence_gallery import PLAIN, evidence_gallery


def frames(count: int, value: int = 0) -> Frames:
    return Frames(tuple(Image(np.full((20, 30), value + 10 * n, dtype=np.uint8)) for n in range(count)))


@pytest.mark.parametrize(("count", "depth"), [(1, 4), (4, 4), (5, 8), (30, 32), (64, 64), (300, 64)])
def test_depths(count: int, depth: int) -> None:
    assert depth_of(count) == depth


def test_frames_are_interpolated_along_their_axis() -> None:
    block = block_of(frames(5))
    assert block.shape == (3, 512, 512, 8) and block.dtype == np.float32
    expected = np.interp(np.linspace(0, 4, 8), np.arange(5), np.arange(5) * 10 / 255)
    assert np.allclose(block, expected[None, None, None, :], atol=1e-6)
    flat = block_of(frames(1, 255))
    assert flat.shape == (3, 512, 512, 4) and flat.min() == flat.max() == 1.0


def test_a_saved_bundle_is_in_step(tmp_path: Path) -> None:
    with evidence_gallery(tmp_path / "home", [PLAIN, "Findings: <image> trick </image>.", PLAIN]) as gallery:
        evidence = gather(gallery, gallery.query_of(f"{1:016d}"))
    placed = [Placed("[1]", frames(1, 50)), Placed("[2]", frames(6)), Placed("query", frames(1, 100))]
    arrays, told = save_radfm(evidence, placed, tmp_path / "bundle.json")
    written = json.loads(told.read_text(encoding="utf-8"))
    with np.load(arrays) as loaded:
        assert {name: loaded[name].shape for name in loaded} == {
            "images_d4": (2, 3, 512, 512, 4), "images_d8": (1, 3, 512, 512, 8),
        }  # fmt: skip
        assert loaded["images_d4"][1].mean() == pytest.approx(100 / 255, abs=1e-5)
        assert loaded["images_d8"].min() >= 0 and loaded["images_d8"].max() <= 1
    assert written["text"].count(PLACE) == len(written["images"]) == 3
    assert [(each["of"], each["array"], each["index"]) for each in written["images"]] == [
        ("[1]", "images_d4", 0), ("[2]", "images_d8", 0), ("query", "images_d4", 1),
    ]  # fmt: skip
    assert written["text"].rstrip().endswith(PLACE)
