"""Cutting volumes into patches, and what a 3D tower does with them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.encoders.base import EncoderCard, VolumeEncoder
from retrieval.encoders.volumes.patches import Patches, patches_of, slices_of, starts_of
from retrieval.encoders.volumes.recipe import CT_FM, MERLIN, VolumeRecipe
from retrieval.encoders.volumes.tower import VolumeTower, frame_recipe
from retrieval.encoders.volumes.volume import sampling
from retrieval.errors import RejectedInput, UsageError
from retrieval.types import Image
from tests.volume_phantoms import AXIAL, SMALL, Grid, rounded, small_tower

sizes = st.tuples(*[st.integers(1, 20)] * 3)


def plain(patch: tuple[int, int, int], **changes: object) -> VolumeRecipe:
    return VolumeRecipe("test", "SPL", (1.0, 1.0, 1.0), patch, ranges=((0.0, 1.0),), **changes)


@given(shape=sizes, patch=sizes, overlap=st.sampled_from([0.0, 0.25, 0.5, 0.9]))
def test_patches_cover_every_voxel_and_hold_nothing_but_the_volume_where_it_is_large_enough(
    shape: tuple[int, int, int], patch: tuple[int, int, int], overlap: float
) -> None:
    recipe = plain(patch, overlap=overlap)
    starts = starts_of(shape, recipe)
    seen = np.zeros(shape, int)
    voxels = np.random.default_rng(0).uniform(0.1, 1, shape).astype(np.float32)
    patches = Patches(voxels, recipe.ranges, starts, recipe)
    for n, start in enumerate(starts):
        inside = tuple(slice(max(a, 0), a + length) for a, length in zip(start, patch, strict=True))
        seen[inside] += 1
        cut = patches.cut(n)
        assert cut.shape == (1, *patch) and cut.dtype == np.float32
        assert np.isclose(cut.sum(), voxels[inside].sum(), rtol=1e-4)  # all else is border, which is 0
    assert seen.min() >= 1 and len(set(starts)) == len(starts)
    for axis in range(3):
        if shape[axis] >= patch[axis]:
            assert all(0 <= start[axis] <= shape[axis] - patch[axis] for start in starts)


@given(shape=sizes, patch=sizes)
def test_as_a_whole_the_centre_is_cropped_or_bordered(shape: tuple[int, int, int], patch: tuple[int, int, int]) -> None:
    recipe = plain(patch, layout="whole")
    voxels = np.random.default_rng(1).uniform(0.1, 1, shape).astype(np.float32)
    (cut,) = Patches(voxels, recipe.ranges, starts_of(shape, recipe), recipe).cut(0)
    expected = voxels
    for axis, (size, length) in enumerate(zip(shape, patch, strict=True)):
        start = (size - length) // 2
        border = [(0, 0)] * 3
        border[axis] = (max(0, -start), max(0, length - size + start))
        expected = np.pad(expected, border).take(range(max(start, 0), max(start, 0) + length), axis)
    assert np.array_equal(cut, expected)


def test_ranges_are_channels_from_low_to_high_and_the_border_is_low_in_each() -> None:
    recipe = replace(plain((2, 2, 4)), ranges=((-1000.0, 1000.0), (0.0, 100.0)), mean=(0.5,), std=(0.25,))
    grid = Grid((2, 2, 2), (0.0, 0.0, 0.0), AXIAL.axes, (1.0, 1.0, 1.0))
    values = np.array([-2000, -1000, 0, 50, 100, 1000, 3000, -500], np.int16).reshape(2, 2, 2)
    patches, _ = patches_of(grid.volume(values), recipe)
    cut = patches.cut(0)
    wide = np.array([0, 0, 0.5, 0.525, 0.55, 1, 1, 0.25]).reshape(2, 2, 2)
    narrow = np.array([0, 0, 0, 0.5, 1, 1, 1, 0]).reshape(2, 2, 2)
    assert np.allclose(cut[0, :, :, 1:3], (wide - 0.5) / 0.25, atol=1e-5)
    assert np.allclose(cut[1, :, :, 1:3], (narrow - 0.5) / 0.25, atol=1e-5)
    assert (cut[:, :, :, [0, 3]] == -2).all()


def test_percentiles_are_those_of_the_volume() -> None:
    recipe = replace(plain((10, 10, 10)), percentiles=(10.0, 90.0), modalities=("MR",))
    grid = Grid((10, 10, 10), (0.0, 0.0, 0.0), AXIAL.axes, (1.0, 1.0, 1.0))
    values = np.random.default_rng(0).permutation(1000).astype(np.uint16).reshape(10, 10, 10)
    patches, _ = patches_of(grid.volume(values, "MR"), recipe)
    low, high = np.percentile(values, [10, 90])
    assert np.allclose(patches.cut(0)[0], np.clip((values - low) / (high - low), 0, 1), atol=1e-6)
    flat, _ = patches_of(grid.volume(np.full_like(values, 7), "MR"), recipe)
    assert not flat.cut(0).any()


def test_the_slices_of_a_patch_are_where_it_lies_in_the_stack() -> None:
    grid = sampling(AXIAL.geometry(), SMALL)  # 40 slices of 3 mm, 4 mm steps, 12 of them a patch
    starts = starts_of(grid.shape, SMALL)
    found = [slices_of(grid, SMALL, start) for start in starts]
    assert (starts[0][0], found[0]) == (0, (7, (0, 15)))  # 44 mm are 14.7 slices
    assert found[-1][1][1] == 39 and found[-1][0] == 31
    down = replace(SMALL, orientation="IPL")
    turned = sampling(AXIAL.geometry(), down)
    assert slices_of(turned, down, starts[0]) == (32, (24, 39))


@pytest.mark.parametrize(("recipe", "shape"), [(CT_FM, (1, 24, 128, 128)), (MERLIN, (1, 224, 224, 160))])
def test_the_published_recipes_give_patches_of_the_published_sizes(
    recipe: VolumeRecipe, shape: tuple[int, int, int, int]
) -> None:
    patches, _ = patches_of(AXIAL.volume(rounded(AXIAL.points())), recipe)
    cut = patches.cut(0)
    assert cut.shape == shape and 0 <= cut.min() < 0.02 and 0.5 < cut.max() <= 1
    soft = 40.0
    low, high = recipe.ranges[0]
    assert np.isclose(np.median(cut[cut > 0.3]), (soft - low) / (high - low), atol=0.02)


def test_a_tower_gives_unit_rows_the_same_each_time_and_whatever_goes_together() -> None:
    tower = small_tower()
    assert isinstance(tower, VolumeEncoder)
    volume = AXIAL.volume(rounded(AXIAL.points()))
    found = tower.encode_volume(volume)
    assert found.rows.shape == (12, 32) and found.rows.dtype == np.float32
    assert np.allclose(np.linalg.norm(found.rows, axis=1), 1, atol=1e-6)
    assert np.array_equal(tower.encode_volume(volume).rows, found.rows)
    assert len(found.middles) == len(found.spans) == 12
    assert all(first <= middle <= last for middle, (first, last) in zip(found.middles, found.spans, strict=True))
    patches, _ = patches_of(volume, SMALL)
    again = small_tower()._run(patches.cut(5)[None])[0]
    assert again @ found.rows[5] > 0.99999


def test_frames_colour_other_modalities_and_values_that_are_not_hounsfield_are_refused() -> None:
    tower = small_tower()
    voxels = rounded(AXIAL.points())
    assert tower.encode([]).shape == (0, 32)
    with pytest.raises(RejectedInput, match="takes volumes, got single frames"):
        tower.encode([Image(voxels[0], "CT")])
    with pytest.raises(RejectedInput, match="takes volumes of CT, got one of MR"):
        tower.encode_volume(AXIAL.volume(voxels, "MR"))
    with pytest.raises(RejectedInput, match="Hounsfield units"):
        tower.encode_volume(AXIAL.volume((voxels + 1024).astype(np.uint16)))
    with pytest.raises(RejectedInput, match="in colour"):
        tower.encode_volume(AXIAL.volume(np.zeros((*voxels.shape, 3), np.uint8)))
    assert len(tower.encode_volume(AXIAL.volume(voxels, "")).rows) == 12  # a file that does not name its modality


def test_a_network_that_is_not_what_its_card_says_is_told() -> None:
    card = small_tower().card
    volume = AXIAL.volume(rounded(AXIAL.points()))
    with pytest.raises(UsageError, match=r"shape \(12, 2\).* 32 numbers"):
        VolumeTower(card, lambda batch: np.ones((len(batch), 2), np.float32)).encode_volume(volume)
    with pytest.raises(RejectedInput, match="NaN or infinity"):
        VolumeTower(card, lambda batch: np.full((len(batch), 32), np.nan)).encode_volume(volume)
    with pytest.raises(UsageError, match="no volume recipe"):
        VolumeTower(replace(card, volume=None), lambda batch: batch)


def test_everything_a_volume_goes_through_is_in_the_fingerprint() -> None:
    card = EncoderCard("x", "x", 3, frame_recipe(SMALL), kind="3D", volume=SMALL)
    changed = [
        replace(card, volume=replace(SMALL, **change))
        for change in (
            {"orientation": "RAS"},
            {"spacing": (4.0, 3.0, 2.0)},
            {"patch": (12, 24, 25)},
            {"ranges": ((-1000.0, 1000.0),)},
            {"percentiles": (1.0, 99.0)},
            {"layout": "whole"},
            {"overlap": 0.5},
            {"pooling": "min"},
            {"modalities": ("MR",)},
            {"mean": (0.1,)},
            {"std": (0.9,)},
        )
    ]
    assert len({card.fingerprint, *(each.fingerprint for each in changed)}) == len(changed) + 1
