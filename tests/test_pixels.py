"""Pixel values against numbers worked out by hand, and orientation against every way a frame can lie."""

from __future__ import annotations

import io
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image as Picture

from indexer import pixels as px
from retrieval.types import Image

_AXES = [tuple(float(s) if i == axis else 0.0 for i in range(3)) for axis in range(3) for s in (1, -1)]
_FRAMES = [(row, column) for row, column in permutations(_AXES, 2) if not np.dot(row, column)]


def test_hounsfield_units_are_exact() -> None:
    stored = np.array([[0, 24, 1024], [1064, 2024, 4095]], np.uint16)
    found = px.rescale(stored, 1.0, -1024.0)
    assert found.dtype == np.int16
    assert found.tolist() == [[-1024, -1000, 0], [40, 1000, 3071]]


def test_fractional_slope_gives_float() -> None:
    found = px.rescale(np.array([[0, 1, 3]], np.uint16), 0.5, -1.0)
    assert found.dtype == np.float32
    assert found.tolist() == [[-1.0, -0.5, 0.5]]


def test_nothing_to_rescale_keeps_the_stored_type() -> None:
    for kind in (np.uint8, np.uint16, np.int16):
        stored = np.array([[0, 1], [2, 100]], kind)
        assert px.rescale(stored).dtype == kind
        assert np.array_equal(px.rescale(stored), stored)


def test_wide_integers_are_narrowed_only_when_they_fit() -> None:
    assert px.rescale(np.array([[70000]], np.uint32)).dtype == np.float32
    assert px.rescale(np.array([[-70000]], np.int32)).tolist() == [[-70000.0]]
    assert px.rescale(np.array([[60000]], np.int32)).dtype == np.uint16
    assert px.rescale(np.array([[40000]], np.uint16), 2.0, 0.0).tolist() == [[80000.0]]


def test_modality_table_clamps_at_both_ends() -> None:
    table = np.array([100, 200, 300], np.uint16)
    assert px.apply_lut(np.array([[0, 5, 6, 7, 9]], np.uint16), 5, table).tolist() == [[100, 100, 200, 300, 300]]


def test_monochrome1_is_mirrored_with_its_window() -> None:
    stored = np.array([[0, 100, 4095]], np.uint16)
    turned = px.mirror(stored, 4095)
    assert turned.tolist() == [[4095, 3995, 0]]
    window = (1000.0, 401.0)
    dark = px.to_display(Image(stored, "DX"), window)
    bright = px.to_display(Image(turned, "DX"), px.mirror_window(window, 4095))
    assert np.array_equal(255 - dark, bright)


def test_signed_monochrome1_stays_in_range() -> None:
    assert px.mirror(np.array([[-2048, 0, 2047]], np.int16), -1).tolist() == [[2047, -1, -2048]]


def test_window_follows_the_standard() -> None:
    """PS3.3 C.11.2.1.2.1: centre 2048, width 4096 maps 0..4095 to 0..255; centre 0, width 1 is a threshold at -0.5."""
    ramp = np.array([[0, 1, 2047, 2048, 4094, 4095]], np.int16)
    expected = np.floor(ramp / 4095 * 255 + 0.5).astype(int)
    assert px.to_display(Image(ramp, "CR"), (2048.0, 4096.0)).tolist() == expected.tolist()
    assert px.to_display(Image(np.array([[-1, 0]], np.int16), "CR"), (0.0, 1.0)).tolist() == [[0, 255]]


def test_ct_without_a_window_is_shown_as_soft_tissue() -> None:
    frame = np.array([[-1000, -160, 40, 240, 3000]], np.int16)
    shown = px.to_display(Image(frame, "CT"))
    assert shown[0, 0] == 0
    assert shown[0, 1] <= 1
    assert 126 <= shown[0, 2] <= 129
    assert shown[0, 3] == shown[0, 4] == 255


def test_percentiles_ignore_outliers_and_never_fail() -> None:
    frame = np.random.default_rng(1).normal(100, 10, (64, 64)).astype(np.float32)
    frame[0, 0] = 1e9
    shown = px.to_display(Image(frame, "MR"))
    assert 100 < np.median(shown) < 155
    for odd in (np.full((4, 4), np.nan, np.float32), np.zeros((4, 4), np.uint8), np.full((4, 4), np.inf, np.float32)):
        assert px.to_display(Image(odd, "MR")).shape == (4, 4)


def test_palette_16_bit_and_8_bit_in_16() -> None:
    table = np.array([[0, 0, 0], [0xFFFF, 0x8000, 0x00FF]], np.uint16)
    assert px.palette_to_rgb(np.array([[0, 1, 7]], np.uint8), 0, table, 16).tolist() == [
        [[0, 0, 0], [255, 128, 0], [255, 128, 0]]
    ]
    small = np.array([[0, 0, 0], [255, 128, 7]], np.uint16)
    assert px.palette_to_rgb(np.array([[1]], np.uint8), 0, small, 16).tolist() == [[[255, 128, 7]]]


def test_ybr_to_rgb_of_known_colours() -> None:
    ybr = np.array([[[76, 85, 255], [150, 44, 21], [29, 255, 107], [255, 128, 128], [0, 128, 128]]], np.uint8)
    rgb = px.ybr_to_rgb(ybr)[0].astype(int)
    expected = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0]]
    assert np.abs(rgb - expected).max() <= 2
    assert px.ybr_to_rgb(np.array([[[16, 128, 128], [235, 128, 128]]], np.uint8), partial=True).tolist() == [
        [[0, 0, 0], [255, 255, 255]]
    ]


def test_fewer_and_more_than_8_bits() -> None:
    assert px.to_8_bit(np.array([0, 1], np.uint8), 1).tolist() == [0, 255]
    assert px.to_8_bit(np.array([0, 4095], np.uint16), 12).tolist() == [0, 255]
    assert px.to_8_bit(np.array([2**32 - 1], np.uint32), 32).tolist() == [255]


@pytest.mark.parametrize(("row", "column"), _FRAMES)
def test_every_orthogonal_orientation_is_turned_the_usual_way(row: px.Direction, column: px.Direction) -> None:
    """Voxels hold their own patient coordinates; after turning, they must run the way the view says."""
    rows, columns = 3, 4
    place = [
        [tuple(c * 1.0 * row[i] + r * 1.0 * column[i] for i in range(3)) for c in range(columns)] for r in range(rows)
    ]
    coordinates = np.array(place, np.float32)
    turned = [px.to_radiological(coordinates[..., i], row, column, (2.0, 5.0)) for i in range(3)]
    x, y, z = (each[0] for each in turned)
    plane, spacing = turned[0][2], turned[0][1]
    across = {"axial": x, "coronal": x, "sagittal": y}[plane]
    down = {"axial": y, "coronal": -z, "sagittal": -z}[plane]
    assert (np.diff(across, axis=1) == 1).all()
    assert (np.diff(down, axis=0) == 1).all()
    assert spacing == ((2.0, 5.0) if across.shape == (rows, columns) else (5.0, 2.0))


def test_planes_and_obliques() -> None:
    assert px.plane_of((1, 0, 0), (0, 1, 0)) == "axial"
    assert px.plane_of((1, 0, 0), (0, 0, -1)) == "coronal"
    assert px.plane_of((0, 1, 0), (0, 0, -1)) == "sagittal"
    tilt = np.radians(18.5)
    assert px.plane_of((1, 0, 0), (0, float(np.cos(tilt)), float(-np.sin(tilt)))) == "axial"
    half = float(np.sqrt(0.5))
    assert px.plane_of((1, 0, 0), (0, half, -half)) == "oblique"


@given(
    arrays.arrays(np.int16, st.tuples(st.integers(1, 9), st.integers(1, 9))),
    st.sampled_from(_FRAMES),
)
def test_turning_moves_values_and_makes_none(frame: np.ndarray, axes: tuple[px.Direction, px.Direction]) -> None:
    turned, spacing, _ = px.to_radiological(frame, *axes, (1.0, 2.0))
    assert turned.flags.c_contiguous
    assert sorted(turned.ravel()) == sorted(frame.ravel())
    assert (spacing == (1.0, 2.0)) == (turned.shape == frame.shape) or frame.shape[0] == frame.shape[1]


@given(arrays.arrays(np.uint16, (5, 5)), st.integers(-2000, 2000), st.sampled_from([1.0, 2.0, 3.0]))
def test_whole_rescale_is_exact_for_any_values(stored: np.ndarray, intercept: int, slope: float) -> None:
    assert np.array_equal(
        px.rescale(stored, slope, float(intercept)).astype(np.int64), stored.astype(np.int64) * int(slope) + intercept
    )


def test_thumbnail_keeps_the_shape_in_mm() -> None:
    grey = np.tile(np.arange(512, dtype=np.uint16), (256, 1))
    small = Picture.open(io.BytesIO(px.thumbnail(Image(grey, "MR", spacing=(2.0, 1.0)))))
    assert small.format == "JPEG"
    assert small.size == (256, 256)
    tiny = Picture.open(io.BytesIO(px.thumbnail(Image(np.zeros((10, 20, 3), np.uint8)))))
    assert tiny.size == (20, 10)
    assert tiny.mode == "RGB"


def test_all_orthogonal_frames_were_tried() -> None:
    assert len(_FRAMES) == len(list(product(range(3), range(2), range(2), range(2))))
