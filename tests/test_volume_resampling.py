"""Turning and resampling volumes, against nibabel, SciPy and what a phantom with marks must look like."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from scipy.ndimage import map_coordinates

from retrieval.encoders.volumes.recipe import CT_FM, MERLIN, VolumeRecipe
from retrieval.encoders.volumes.volume import Geometry, Volume, resample, sampling
from retrieval.errors import RejectedInput, UsageError
from tests.volume_phantoms import ANTERIOR, AXIAL, LEFT, SAGITTAL, SUPERIOR, Grid, phantom, rises

CODES = sorted("".join(code) for axes in permutations(("RL", "AP", "SI")) for code in product(*axes))
TOWARDS = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}


def recipe(orientation: str = "SPL", spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> VolumeRecipe:
    return VolumeRecipe("test", orientation, spacing, (4, 4, 4))


def turned(volume: Volume, wanted: VolumeRecipe) -> np.ndarray:
    return resample(volume, sampling(volume.geometry, wanted), -1000.0)


def affine_of(grid: Grid) -> np.ndarray:
    """Voxel index [slice, row, column] -> RAS mm, as nibabel has it."""
    affine = np.eye(4)
    affine[:3, :3] = (np.array(grid.axes) * np.array(grid.steps)[:, None]).T
    affine[:3, 3] = grid.origin
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


@given(
    shape=st.tuples(*[st.integers(2, 6)] * 3),
    steps=st.tuples(*[st.floats(0.3, 7)] * 3),
    origin=st.tuples(*[st.floats(-300, 300)] * 3),
    seed=st.integers(0, 9),
)
def test_a_volume_on_the_grid_asked_for_is_left_exactly_as_it_is(
    shape: tuple[int, int, int], steps: tuple[float, float, float], origin: tuple[float, float, float], seed: int
) -> None:
    voxels = np.random.default_rng(seed).integers(-1024, 3000, shape).astype(np.int16)
    grid = Grid(shape, origin, AXIAL.axes, steps)
    assert np.array_equal(turned(grid.volume(voxels), recipe("SPL", steps)), voxels)


@pytest.mark.parametrize("code", CODES)
def test_every_orientation_is_nibabels(code: str) -> None:
    voxels = np.random.default_rng(3).integers(-1024, 3000, (4, 5, 6)).astype(np.int16)
    grid = Grid(voxels.shape, (1.0, 2.0, 3.0), SAGITTAL.axes, (2.0, 2.0, 2.0))
    change = ornt_transform(io_orientation(affine_of(grid)), axcodes2ornt(code))
    expected = nibabel.orientations.apply_orientation(voxels, change)
    assert np.array_equal(turned(grid.volume(voxels), recipe(code, (2.0, 2.0, 2.0))), expected)


@pytest.mark.parametrize("code", ["RAS", "LPS", "SPL", "IAR", "PSL"])
@pytest.mark.parametrize("grid", [AXIAL, SAGITTAL], ids=["axial", "sagittal"])
def test_marks_on_the_left_in_front_and_on_top_come_out_where_the_code_says(grid: Grid, code: str) -> None:
    found = turned(grid.volume(phantom(grid.points()).astype(np.float32)), recipe(code, (2.0, 2.0, 2.0)))
    places = _brightest(found, 3)  # by height: on top, in front, on the left
    centre = (np.array(found.shape) - 1) / 2
    for place, letter in zip(places, "SAL", strict=True):
        axis = next(n for n, own in enumerate(code) if own in _PAIRS[letter])
        assert (place[axis] - centre[axis] > 10 / 2) == (code[axis] == letter)
    in_array = np.linalg.det(np.array(places) - centre)
    in_patient = np.linalg.det(np.array([SUPERIOR, ANTERIOR, LEFT]))
    letters = np.linalg.det(np.array([TOWARDS[letter] for letter in code]))
    assert np.sign(in_array) == np.sign(in_patient) * np.sign(letters)  # no mirror image


_PAIRS = {"L": "LR", "A": "AP", "S": "SI"}


def _brightest(voxels: np.ndarray, count: int) -> list[np.ndarray]:
    """Voxel indices of the highest peaks, each with what lies within 16 mm (8 voxels) of it set aside for the next."""
    left, found = voxels.copy(), []
    index = np.stack(np.meshgrid(*(np.arange(n) for n in voxels.shape), indexing="ij"), axis=-1)
    for _ in range(count):
        found.append(np.array(np.unravel_index(np.argmax(left), left.shape)))
        left[np.linalg.norm(index - found[-1], axis=-1) < 8] = -2000
    return found


@given(
    code=st.sampled_from(CODES),
    spacing=st.tuples(*[st.floats(0.4, 5)] * 3),
    steps=st.tuples(*[st.floats(0.4, 5)] * 3),
    angles=st.tuples(*[st.floats(-20, 20)] * 3),
    slope=st.tuples(*[st.floats(-2, 2)] * 3),
)
def test_a_linear_field_is_reproduced_whatever_the_grid_even_oblique(
    code: str,
    spacing: tuple[float, float, float],
    steps: tuple[float, float, float],
    angles: tuple[float, float, float],
    slope: tuple[float, float, float],
) -> None:
    """Trilinear interpolation is exact on it: each voxel's value says where in the patient it was taken."""
    turn = _rotation(angles)
    axes = tuple(tuple(axis) for axis in (np.array(AXIAL.axes, float) @ turn.T).tolist())
    grid = Grid((5, 7, 6), (3.0, -4.0, 5.0), axes, steps)
    field = (grid.points() @ np.array(slope)).astype(np.float32)
    found = turned(grid.volume(field), recipe(code, spacing))
    directions = np.array([TOWARDS[letter] for letter in code]) @ turn.T
    corners = grid.points()[:: grid.shape[0] - 1, :: grid.shape[1] - 1, :: grid.shape[2] - 1].reshape(-1, 3)
    starts = (corners @ directions.T).min(axis=0)
    ends = (corners @ directions.T).max(axis=0)
    steps_taken = np.array(found.shape) - 1
    assert np.all(np.abs(steps_taken - (ends - starts) / spacing) <= 0.5 + 1e-6)  # half a step may fall on either side
    places = [start + np.arange(n) * step for start, n, step in zip(starts, found.shape, spacing, strict=True)]
    inside = np.ix_(*[np.flatnonzero(axis <= end + 1e-9) for axis, end in zip(places, ends, strict=True)])
    along = np.stack(np.meshgrid(*places, indexing="ij"), axis=-1)
    assert np.allclose(found[inside], (along @ directions @ np.array(slope))[inside], atol=2e-3)


def _rotation(degrees: tuple[float, float, float]) -> np.ndarray:
    whole = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        turn = np.eye(3)
        one, other = [n for n in range(3) if n != axis]
        turn[one, one] = turn[other, other] = np.cos(angle)
        turn[one, other], turn[other, one] = -np.sin(angle), np.sin(angle)
        whole = turn @ whole
    return whole


def test_halving_the_spacing_keeps_every_voxel_and_puts_means_between() -> None:
    voxels = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    grid = Grid(voxels.shape, (0.0, 0.0, 0.0), AXIAL.axes, (3.0, 2.0, 1.0))
    found = turned(grid.volume(voxels), recipe("SPL", (1.5, 1.0, 0.5)))
    assert found.shape == (7, 9, 11)
    assert np.array_equal(found[::2, ::2, ::2], voxels)
    assert np.allclose(found[1::2, ::2, ::2], (voxels[1:] + voxels[:-1]) / 2, atol=1e-6)
    assert np.allclose(found[::2, 1::2, ::2], (voxels[:, 1:] + voxels[:, :-1]) / 2, atol=1e-6)


def test_anisotropic_resampling_is_scipys() -> None:
    voxels = np.random.default_rng(1).normal(size=(9, 20, 17)).astype(np.float32)
    grid = Grid(voxels.shape, (5.0, 6.0, 7.0), AXIAL.axes, (5.0, 0.7, 0.9))
    found = turned(grid.volume(voxels), recipe("SPL", (3.0, 1.1, 1.3)))
    ratios = np.array([3.0, 1.1, 1.3]) / grid.steps
    index = np.stack(np.meshgrid(*(np.arange(n) for n in found.shape), indexing="ij"))
    expected = map_coordinates(voxels, index * ratios[:, None, None, None], order=1, mode="nearest")
    assert np.allclose(found, expected, atol=1e-5)


def test_slices_at_uneven_distances_lie_where_their_positions_say() -> None:
    heights = [0.0, 2.0, 3.0, 8.0, 9.0]
    corners = tuple((0.0, 0.0, height) for height in heights)
    geometry = Geometry((5, 2, 2), corners, (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (1.0, 1.0))
    voxels = np.broadcast_to(np.array(heights, np.float32)[:, None, None], (5, 2, 2))
    found = turned(Volume(voxels, geometry), recipe("SPL", (1.0, 1.0, 1.0)))
    assert np.allclose(found[:, 0, 0], np.arange(10), atol=1e-6)


def test_a_tilted_gantry_is_straightened_and_what_it_leaves_empty_is_air() -> None:
    tilt = 0.25  # mm of shift along the rows for each mm of height
    grid = Grid((9, 30, 20), (0.0, 0.0, 0.0), AXIAL.axes, (4.0, 1.0, 1.0))
    points = grid.points()
    points[..., 1] += tilt * points[..., 2]
    corners = tuple(map(tuple, points[:, 0, 0].tolist()))
    field = (points @ np.array([1.0, 10.0, 100.0])).astype(np.float32)
    geometry = replace(grid.geometry(), corners=corners)
    found = resample(Volume(field, geometry), sampling(geometry, recipe("SPL", (2.0, 1.0, 1.0))), -5000.0)
    assert found.shape == (17, 38, 20)
    height, row, column = np.meshgrid(*(np.arange(n) for n in found.shape), indexing="ij")
    low, high = tilt * 2 * height, 29 + tilt * 2 * height
    covered = (row >= low) & (row <= high)
    assert np.allclose(found[covered], (column + 10 * row + 200 * height)[covered], atol=1e-2)
    beyond = (row < low - 0.5 - 1e-3) | (row > high + 0.5 + 1e-3)
    assert (found[beyond] == -5000).all() and beyond.any()


def test_which_slice_a_step_lies_in_is_known_whichever_way_the_axis_runs() -> None:
    up, down = (sampling(AXIAL.geometry(), recipe(code, (3.0, 3.0, 3.0))) for code in ("SPL", "IPL"))
    assert up.order == down.order == (0, 1, 2)
    assert rises(up.slices) and rises(-down.slices)
    assert (up.slices[0], up.slices[-1], down.slices[0], down.slices[-1]) == (0, 39, 39, 0)
    assert sampling(SAGITTAL.geometry(), recipe("SPL")).order == (1, 2, 0)


@pytest.mark.parametrize(
    "broken",
    [
        replace(AXIAL.geometry(), shape=(1, 48, 56), corners=AXIAL.geometry().corners[:1]),
        replace(AXIAL.geometry(), corners=(AXIAL.geometry().corners[0],) * 40),
        replace(AXIAL.geometry(), spacing=(0.0, 1.0)),
        replace(AXIAL.geometry(), spacing=(1e12, 1.0)),
        replace(AXIAL.geometry(), corners=(*AXIAL.geometry().corners[:-1], (0.0, 0.0, 1e15))),
    ],
)
def test_what_is_not_a_volume_in_space_is_refused(broken: Geometry) -> None:
    with pytest.raises(RejectedInput, match="Expected a volume"):
        sampling(broken, CT_FM)


def test_rows_and_columns_that_are_not_at_right_angles_are_refused() -> None:
    sheared = replace(AXIAL.geometry(), row=(float(np.cos(0.1)), float(np.sin(0.1)), 0.0))
    with pytest.raises(RejectedInput, match="right angles"):
        sampling(sheared, CT_FM)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("orientation", "RAL"),
        ("orientation", "RA"),
        ("spacing", (1.0, 0.0, 1.0)),
        ("patch", (0, 1, 1)),
        ("ranges", ((1.0, 1.0),)),
        ("ranges", ()),
        ("percentiles", (99.0, 1.0)),
        ("layout", "tiles"),
        ("overlap", 1.0),
        ("pooling", "sum"),
        ("mean", (0.0, 0.0)),
        ("std", (0.0,)),
    ],
)
def test_a_senseless_recipe_of_volumes_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(UsageError, match=field):
        replace(MERLIN, **{field: value})
