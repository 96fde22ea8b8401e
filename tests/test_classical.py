"""The classical encoder: what it bears, what it tells apart, and that it does not change unnoticed."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image as PillowImage

from retrieval.encoders.base import unit_rows
from retrieval.encoders.classical import CARD, ClassicalEncoder, describe
from retrieval.encoders.classical_blocks import COLOUR_LENGTH, SIDE, colour, spectrum, structure
from retrieval.evaluation import evaluate
from retrieval.types import Image, Pixels

ENCODER = ClassicalEncoder()


def picture(seed: int = 0, side: int = 160) -> Pixels:
    """Blobs and stripes from sines alone, uint8: the same bytes on every machine and with every library."""
    y, x = np.mgrid[0:side, 0:side] / side
    waves = np.sin(2 * np.pi * (3 + seed) * x + seed) + np.sin(2 * np.pi * (2 * y + x * y) * (1 + seed % 3))
    edge = (x - 0.3) ** 2 + (y - 0.5) ** 2 < 0.04 * (1 + seed % 4)
    return np.clip(110 + 35 * waves + 40 * edge, 0, 255).astype(np.uint8)


def similarity(one: Pixels, other: Pixels) -> float:
    rows = ENCODER.encode([Image(one), Image(other)])
    return float(rows[0] @ rows[1])


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.uint8, st.just((SIDE, SIDE, 3)), elements=st.integers(0, 255), fill=st.integers(0, 255)))
def test_blocks_of_any_frame_are_finite_and_of_fixed_length(frame: Pixels) -> None:
    grey = frame[:, :, 0]
    for block, length in ((structure(grey), 390), (spectrum(grey), 72), (colour(frame), COLOUR_LENGTH)):
        assert block.shape == (length,)
        assert np.isfinite(block).all()
    assert CARD.dim == 390 + 72 + COLOUR_LENGTH


def test_brightness_contrast_and_bit_depth_hardly_matter() -> None:
    pixels = picture()
    assert similarity(pixels, (pixels // 2 + 40).astype(np.uint8)) > 0.99
    assert similarity(pixels, pixels.astype(np.uint16) * 150 + 3000) > 0.99
    assert similarity(pixels, pixels.astype(np.float32) / 1000 - 5) > 0.99


def test_small_shifts_scales_and_noise_matter_less_than_content() -> None:
    pixels = picture(side=192)
    grainy = np.clip(pixels + np.random.default_rng(0).normal(0, 3, pixels.shape), 0, 255).astype(np.uint8)
    changed = [pixels[8:, 8:], cv2.resize(pixels, (120, 150), interpolation=cv2.INTER_AREA), grainy]
    others = [picture(seed, 192) for seed in range(1, 6)]
    assert min(similarity(pixels, one) for one in changed) > max(similarity(pixels, one) for one in others) + 0.05


def test_similarities_spread() -> None:
    grain = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    dots = np.zeros((SIDE, SIDE), np.uint8)
    dots[16::32, 16::32] = 255
    frames = [
        picture(side=SIDE),
        grain,
        cv2.GaussianBlur(grain, (0, 0), 6),
        dots,
        np.tile(np.arange(SIDE, dtype=np.uint8), (SIDE, 1)),
    ]
    plain = unit_rows(np.stack([structure(frame) for frame in frames]))
    rows = ENCODER.encode([Image(frame) for frame in frames])
    different = ~np.eye(len(frames), dtype=bool)
    assert (plain @ plain.T)[different].mean() > 0.85  # why there is a centre
    assert (rows @ rows.T)[different].mean() < 0.6
    assert (rows @ rows.T)[different].min() < 0.2


def test_grey_is_neutral_and_a_tint_is_faint() -> None:
    grey = picture(side=SIDE)
    frame = np.repeat(grey[:, :, None], 3, axis=2)
    assert not colour(frame).any()
    assert not colour(grey).any()
    tinted = frame.copy()
    tinted[::2, ::2, 0] ^= 1
    assert np.linalg.norm(colour(tinted)) < 0.1
    assert similarity(frame, tinted) > 0.98


def test_colour_tells_frames_apart_that_are_alike_in_grey() -> None:
    grey = picture(side=SIDE).astype(np.float32) * 0.7
    red = np.stack([grey + 60, grey, grey], axis=2).astype(np.uint8)
    blue = np.stack([grey, grey + 10, grey + 90], axis=2).astype(np.uint8)
    assert similarity(red, blue) < 0.85


def test_grey_and_its_rgb_copy_have_the_same_row() -> None:
    pixels = picture()
    rows = ENCODER.encode([Image(pixels), Image(np.repeat(pixels[:, :, None], 3, axis=2))])
    assert np.array_equal(rows[0], rows[1])


def test_hounsfield_values_outside_the_window_change_nothing() -> None:
    hounsfield = picture().astype(np.int16) * 2 - 200
    metal = hounsfield.copy()
    metal[hounsfield >= 240] += 2000
    rows = ENCODER.encode([Image(hounsfield, "CT"), Image(metal, "CT")])
    assert np.array_equal(rows[0], rows[1])


def test_the_same_bits_whatever_the_batch_and_the_threads() -> None:
    images = [Image(picture(seed)) for seed in range(6)]
    together = ENCODER.encode(images)
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1 if threads != 1 else 4)
        alone = np.concatenate([ENCODER.encode([image]) for image in images])
    finally:
        cv2.setNumThreads(threads)
    assert np.array_equal(together, alone)


def test_rows_do_not_change_without_a_new_version() -> None:
    """When this fails on purpose, raise ``version`` in the card: galleries of the old rows must not meet the new."""
    row = unit_rows(describe(Image(picture()))[None])[0]
    assert CARD.version == "1"
    assert row[[0, 1, 12, 100, 389]] == pytest.approx(PINNED[:5], abs=2e-3)
    assert row[[390, 420, 461]] == pytest.approx(PINNED[5:], abs=2e-3)
    tinted = replace(Image(picture()), pixels=np.stack([picture(), picture(1), picture(2)], axis=2))
    assert unit_rows(describe(tinted)[None])[0, [462, 470, 484, 485]] == pytest.approx(PINNED_COLOUR, abs=2e-3)


PINNED = [-0.0577, 0.0238, -0.1162, -0.0213, -0.0608, 0.0883, 0.061, 0.0169]
PINNED_COLOUR = [-0.0417, -0.007, -0.0064, -0.0102]


@pytest.mark.parametrize(("name", "least"), [("micro_bccd", 0.97), ("cxr_kermany", 0.72), ("derm_ham10000", 0.36)])
def test_neighbours_of_real_images_share_labels(shared: Path, name: str, least: float) -> None:
    """P@5 over other patients, train part; chance is 0.33, 0.33 and 0.14."""
    with (shared / "data" / name / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    images = [Image(np.asarray(PillowImage.open(shared / "data" / name / row["path"]))) for row in rows]
    patients, labels = [row["patient_id"] for row in rows], [(row["label"],) for row in rows]
    assert evaluate(ENCODER.encode(images), patients, labels, ks=(5,), resamples=1).measure("P@5").value > least
