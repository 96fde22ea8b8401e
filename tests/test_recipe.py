"""Recipes: what a network sees is finite, in range, of the stated shape, and what the libraries would have made."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image as PillowImage

from retrieval.encoders.recipe import RESIZES, Recipe, apply, fit, luminance, stretch, window
from retrieval.errors import RejectedInput, UsageError
from retrieval.types import Image, Pixels

PLAIN = Recipe(name="plain", size=(32, 24))

_shapes = st.tuples(st.integers(1, 40), st.integers(1, 40))
_grey = st.sampled_from([np.uint8, np.uint16, np.int16, np.float32]).flatmap(
    lambda dtype: hnp.arrays(dtype, _shapes)  # floats include NaN, infinities and the extremes
)
_colour = _shapes.flatmap(lambda shape: hnp.arrays(np.uint8, (*shape, 3)))


def noise(*shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@settings(max_examples=300, deadline=None)
@given(
    pixels=st.one_of(_grey, _colour),
    resize=st.sampled_from(RESIZES),
    channels=st.sampled_from([1, 3]),
    modality=st.sampled_from(["", "CT", "MR"]),
    stated=st.one_of(st.none(), st.tuples(st.floats(), st.floats())),
    fraction=st.sampled_from([1.0, 0.875]),
)
def test_any_frame_gives_finite_values_in_range(
    pixels: Pixels,
    resize: str,
    channels: int,
    modality: str,
    stated: tuple[float, float] | None,
    fraction: float,
) -> None:
    recipe = replace(PLAIN, resize=resize, channels=channels, crop_fraction=fraction, mean=(0.5,), std=(0.25,))
    seen = apply(recipe, Image(pixels, modality=modality, window=stated))
    assert seen.shape == (32, 24, channels)
    assert seen.dtype == np.float32
    assert seen.flags.c_contiguous
    assert np.isfinite(seen).all()
    assert -2.0 - 1e-6 <= seen.min() <= seen.max() <= 2.0 + 1e-6


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (2, 3), (3000, 2000)])
def test_tiny_huge_and_long_frames(resize: str, shape: tuple[int, int]) -> None:
    recipe = replace(PLAIN, size=(64, 64), resize=resize)
    assert apply(recipe, Image(noise(*shape))).shape == (64, 64, 3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_a_constant_frame_stays_constant(dtype: type) -> None:
    seen = apply(PLAIN, Image(np.full((20, 30), 77, dtype)))
    assert np.ptp(seen) == 0


def test_eight_bit_frames_are_taken_as_they_are() -> None:
    pixels = np.tile(np.arange(100, 150, dtype=np.uint8), (50, 1))
    assert np.array_equal(window(PLAIN, Image(pixels)), pixels)
    assert np.array_equal(stretch(pixels, (0, 100))[0], np.round(np.arange(50) * 255 / 49))


def test_ct_in_hounsfield_units_gets_the_ct_window() -> None:
    pixels = np.array([[-1000, -160, 40, 240, 3000]], np.int16)
    for image in (Image(pixels, "CT"), Image(pixels.astype(np.float32), "ct", window=(500, 100))):
        assert window(PLAIN, image).tolist() == [[0, 0, 128, 255, 255]]


def test_unsigned_pixels_are_never_taken_for_hounsfield_units() -> None:
    eight = np.array([[10, 200]], np.uint8)
    assert np.array_equal(window(PLAIN, Image(eight, "CT")), eight)
    sixteen = np.array([[0, 4095]], np.uint16)
    assert window(PLAIN, Image(sixteen, "CT")).tolist() == [[0, 255]]


def test_the_files_window_comes_before_percentiles_and_can_be_refused() -> None:
    pixels = np.arange(0, 1000, dtype=np.uint16).reshape(20, 50)
    image = Image(pixels, "MR", window=(500, 100))
    shown = window(PLAIN, image)
    assert (shown[pixels <= 450] == 0).all()
    assert (shown[pixels >= 550] == 255).all()
    refused = window(replace(PLAIN, use_file_window=False), image)
    assert np.array_equal(refused, window(PLAIN, replace(image, window=None)))
    assert not np.array_equal(refused, shown)


@pytest.mark.parametrize("stated", [(500.0, 0.0), (500.0, -3.0), (float("nan"), 100.0), (500.0, float("inf"))])
def test_a_senseless_window_is_passed_over(stated: tuple[float, float]) -> None:
    pixels = np.arange(0, 1000, dtype=np.uint16).reshape(20, 50)
    assert np.array_equal(window(PLAIN, Image(pixels, window=stated)), window(PLAIN, Image(pixels)))


def test_a_small_object_on_a_flat_ground_stays_visible() -> None:
    pixels = np.zeros((200, 200), np.int16)
    pixels[100, 100] = 900
    shown = window(PLAIN, Image(pixels))
    assert shown[100, 100] == 255
    assert shown.sum() == 255


def test_percentiles_do_not_follow_gain_and_offset() -> None:
    pixels = np.random.default_rng(1).normal(100, 20, (64, 64)).astype(np.float32)
    other = window(PLAIN, Image(pixels * 7 + 1000)).astype(int)
    assert np.abs(window(PLAIN, Image(pixels)).astype(int) - other).max() <= 1


def test_a_frame_of_several_strips_is_windowed_as_one() -> None:
    pixels = np.random.default_rng(2).integers(0, 4096, (1100, 4000), dtype=np.uint16)
    expected = np.floor(np.clip((pixels - 1000.0) / 2000, 0, 1) * 255 + 0.5)
    assert np.abs(window(PLAIN, Image(pixels, window=(2000, 2000))) - expected).max() <= 1


def test_nan_and_infinity_are_black_and_white() -> None:
    pixels = np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)
    pixels[0, :3] = (np.nan, np.inf, -np.inf)
    assert window(PLAIN, Image(pixels))[0, :3].tolist() == [0, 255, 0]
    assert (window(PLAIN, Image(np.full((4, 4), np.nan, np.float32))) == 0).all()


def test_grey_and_its_rgb_copy_are_the_same() -> None:
    grey = noise(50, 70)
    assert np.array_equal(apply(PLAIN, Image(grey)), apply(PLAIN, Image(np.repeat(grey[:, :, None], 3, axis=2))))


def test_padding_keeps_the_shape_and_fills_the_border() -> None:
    recipe = replace(PLAIN, size=(40, 40), resize="pad", fill=(9,))
    shown = fit(recipe, np.full((20, 40), 200, np.uint8))
    assert (shown[:10] == 9).all()
    assert (shown[10:30] == 200).all()
    assert (shown[30:] == 9).all()


def test_squashing_is_what_pillow_does() -> None:
    pixels = noise(100, 63, 3)
    expected = np.asarray(PillowImage.fromarray(pixels).resize((24, 32), PillowImage.Resampling.BICUBIC))
    assert np.array_equal(fit(PLAIN, pixels), expected)


def test_the_centre_of_a_very_long_frame_is_what_is_seen() -> None:
    pixels = np.zeros((10, 4000), np.uint8)
    pixels[:, 1990:2010] = 255
    seen = apply(replace(PLAIN, size=(32, 32), resize="crop"), Image(pixels))
    assert seen.min() == 1.0


def test_luminance_of_grey_is_itself() -> None:
    grey = noise(9, 9)
    assert luminance(grey) is grey
    assert np.array_equal(luminance(np.repeat(grey[:, :, None], 3, axis=2)), grey)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((0, 5), np.uint8),
        np.zeros((5, 5, 4), np.uint8),
        np.zeros((5, 5, 3), np.uint16),
        np.zeros(5, np.uint8),
        np.zeros((5, 5), np.complex64),
        np.zeros((5, 5), bool),
    ],
)
def test_what_is_no_frame_is_refused_in_a_sentence(pixels: Pixels) -> None:
    with pytest.raises(RejectedInput, match="Expected") as refused:
        apply(PLAIN, Image(pixels))
    assert refused.value.stage == "embed"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", (0, 5)),
        ("resize", "stretch"),
        ("interpolation", "random"),
        ("ct_window", (40.0, 0.0)),
        ("percentiles", (99.5, 0.5)),
        ("channels", 2),
        ("mean", (0.0, 0.0)),
        ("std", (0.0,)),
        ("crop_fraction", 0.0),
        ("fill", (0, 0)),
    ],
)
def test_a_senseless_recipe_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(UsageError, match=field):
        replace(PLAIN, **{field: value})
