"""Preparations by name: what they do to real Hounsfield units, and what they leave alone."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from io import BytesIO
from itertools import combinations
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image as Picture
from pydicom.data import get_testdata_file

from indexer.sandbox import Sandbox
from indexer.sources import Source, Wanted
from retrieval.encoders import known_recipes, open_encoder
from retrieval.encoders.base import AdaptableEncoder, EncoderCard, TextEncoder, unit_rows
from retrieval.encoders.recipe import LATER, Recipe, apply, fit, stated, window
from retrieval.encoders.recipes import named_recipe, split_recipe
from retrieval.encoders.tower import ImageTower
from retrieval.errors import NotFoundError, UsageError
from retrieval.types import Image
from tests.dicom_files import dataset, save
from tests.studies import texture

OWN = Recipe(name="own", size=(20, 30), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
LUNG, SOFT, BONE = (-600.0, 1500.0), (40.0, 400.0), (400.0, 1800.0)


def shown(hounsfield: np.ndarray, centre: float, width: float) -> np.ndarray:
    """The oracle of a window: 0 to 255 over its width, rounded half up, clipped."""
    share = (hounsfield.astype(np.float64) - (centre - width / 2)) / width
    return np.floor(np.clip(share, 0, 1) * 255 + 0.5).astype(np.uint8)


@pytest.fixture(scope="module")
def ct(sandbox: Sandbox) -> tuple[Image, np.ndarray]:
    """A real CT slice as the readers give it, and its Hounsfield units as pydicom's plain arithmetic has them."""
    path = Path(str(get_testdata_file("CT_small.dcm")))
    header = pydicom.dcmread(path)
    assert (header.RescaleSlope, header.RescaleIntercept) == (1, -1024)
    (image,) = sandbox.read_one(Wanted(Source(path), "dicom"))
    return image, header.pixel_array.astype(np.int64) - 1024


def test_the_rescale_is_applied_once(ct: tuple[Image, np.ndarray]) -> None:
    image, hounsfield = ct
    assert np.array_equal(image.pixels, hounsfield) and image.pixels.dtype == np.int16
    assert hounsfield.min() < -700 and hounsfield.max() > 1000  # air and bone: twice would leave nothing over -1000
    assert np.array_equal(window(OWN, image), shown(hounsfield, *SOFT))


def test_a_slope_that_is_not_one_is_applied_once_too(tmp_path: Path, sandbox: Sandbox) -> None:
    stored = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    path = save(dataset(stored, RescaleSlope=0.5, RescaleIntercept=-1000), tmp_path / "half.dcm")
    (image,) = sandbox.read_one(Wanted(Source(path), "dicom"))
    assert np.array_equal(image.pixels, stored * 0.5 - 1000)
    assert np.array_equal(window(OWN, image), shown(stored * 0.5 - 1000, *SOFT))


def test_three_windows_are_red_green_and_blue_in_that_order(ct: tuple[Image, np.ndarray]) -> None:
    image, hounsfield = ct
    recipe = named_recipe(OWN, "ct-channels-v1")
    frame = window(recipe, image)
    assert frame.shape == (*hounsfield.shape, 3)
    for channel, each in enumerate((LUNG, SOFT, BONE)):
        assert np.array_equal(frame[:, :, channel], shown(hounsfield, *each))
    known = Image(np.full((8, 8), 40, np.int16), "CT")  # soft tissue: bright grey in lung, mid grey, dark in bone
    assert window(recipe, known)[0, 0].tolist() == [236, 128, 77]
    given = apply(recipe, known)
    assert given.shape == (20, 30, 3)
    assert np.allclose(given[0, 0], (np.array([236, 128, 77]) / 255 - OWN.mean) / OWN.std, atol=1e-6)


def test_channels_reach_the_network_in_the_order_red_green_blue(tmp_path: Path, sandbox: Sandbox) -> None:
    """From a colour file and from windows alike: plane 0 of the network's input is red."""
    import torch

    picture = np.zeros((40, 40, 3), np.uint8)
    picture[:] = (250, 100, 10)
    Picture.fromarray(picture).save(tmp_path / "colour.png")
    (image,) = sandbox.read_one(Wanted(Source(tmp_path / "colour.png"), "raster"))
    plain = replace(OWN, mean=(0.0,), std=(1.0,))
    card = EncoderCard("means", "means", 3, named_recipe(plain, "ct-channels-v1"))
    tower = ImageTower(card, lambda batch: batch.mean((2, 3)), torch.device("cpu"))
    rows = tower.encode([image, Image(np.full((8, 8), 40, np.int16), "CT")])
    assert np.allclose(rows, unit_rows(np.array([[250, 100, 10], [236, 128, 77]])), atol=1e-5)


def test_windows_as_vectors_are_the_mean_of_each_encoded_by_itself(ct: tuple[Image, np.ndarray]) -> None:
    image, _ = ct
    mr = Image(texture(1).astype(np.int16), "MR")
    together = open_encoder("classical?recipe=ct-vectors-v1")
    alone = [open_encoder(f"classical?recipe=ct-{name}-v1") for name in ("lung", "soft", "bone")]
    expected = unit_rows(np.mean([encoder.encode([image])[0] for encoder in alone], axis=0)[None])[0]
    rows = together.encode([mr, image, mr])
    assert np.allclose(rows[1], expected, atol=1e-6)
    assert np.array_equal(rows[0], open_encoder("classical").encode([mr])[0]) and np.array_equal(rows[0], rows[2])
    assert together.encode([]).shape == (0, together.card.dim)
    assert np.array_equal(together.encode([image])[0], rows[1])
    assert rows[1] @ alone[1].encode([image])[0] < 0.9999  # the other windows do count
    assert not isinstance(together, TextEncoder)


def test_mr_and_x_ray_take_percentiles_or_the_window_of_the_file() -> None:
    pixels = np.arange(10_000, dtype=np.int16).reshape(100, 100)
    own, by_percentiles = window(OWN, Image(pixels)), named_recipe(OWN, "mr-percentiles-v1")
    stated_window = shown(pixels, 5000, 2000)
    for modality, follows_file in (("MR", False), ("DX", True), ("PT", True)):
        image = Image(pixels, modality, window=(5000.0, 2000.0))
        assert np.array_equal(window(OWN, image), stated_window)
        assert np.array_equal(window(by_percentiles, image), stated_window if follows_file else own)
        xr = window(named_recipe(OWN, "xr-percentiles-v1"), image)
        assert np.array_equal(xr, own if modality == "DX" else stated_window)
        assert np.array_equal(window(named_recipe(OWN, "percentiles-v1"), image), own)


def test_resizing_by_name_leaves_the_size_of_the_network() -> None:
    frame = texture(2, 64, 32)
    for name, resize in (("squash-v1", "squash"), ("letterbox-v1", "pad"), ("centre-crop-v1", "crop")):
        recipe = named_recipe(replace(OWN, crop_fraction=0.9), name)
        assert (recipe.resize, recipe.crop_fraction, recipe.size) == (resize, 1.0, OWN.size)
        assert np.array_equal(fit(recipe, frame), fit(replace(OWN, resize=resize), frame))


def test_a_jpeg_on_the_way_is_pillows() -> None:
    frame = texture(3, 300, 200)
    stored = BytesIO()
    Picture.fromarray(frame).convert("RGB").resize((512, 512), Picture.Resampling.BICUBIC).save(
        stored, "JPEG", quality=75
    )
    expected = fit(OWN, np.asarray(Picture.open(stored)))
    assert np.array_equal(fit(named_recipe(OWN, "jpeg-512-q75-v1"), frame), expected)
    assert not np.array_equal(expected[:, :, 0], fit(OWN, frame))


def test_names_are_joined_and_contradictions_refused() -> None:
    recipe = named_recipe(OWN, "ct-channels-v1+letterbox-v1")
    assert (
        named_recipe(OWN, "letterbox-v1+ct-channels-v1")
        == recipe
        == named_recipe(OWN, f"{recipe.name[4:]}+letterbox-v1")
    )
    assert recipe.name == "own+ct-channels-v1+letterbox-v1" and recipe.resize == "pad" and len(recipe.ct_windows) == 3
    with pytest.raises(UsageError, match="contradict each other in ct_windows"):
        named_recipe(OWN, "ct-channels-v1+ct-lung-v1")
    with pytest.raises(NotFoundError, match=r"no recipe 'ct-rainbow-v1'.*ct-channels-v1"):
        open_encoder("classical?recipe=ct-rainbow-v1")
    with pytest.raises(UsageError, match="names no recipe"):
        open_encoder("classical?recipe=")
    with pytest.raises(UsageError, match="channels must be three"):
        named_recipe(replace(OWN, channels=1, mean=(0.0,), std=(1.0,)), "ct-channels-v1")
    with pytest.raises(UsageError, match="encode each window by itself"):
        window(named_recipe(OWN, "ct-vectors-v1"), Image(np.zeros((4, 4), np.int16), "CT"))
    assert split_recipe("timm:x@/a?b/c?recipe=y+z") == ("timm:x@/a?b/c", "y+z")
    assert split_recipe("timm:x@/a?b/c") == ("timm:x@/a?b/c", "")


def test_every_name_gives_another_fingerprint_and_a_spec_that_opens_it_again() -> None:
    names = [recipe.name for recipe in known_recipes()]
    assert len(names) == len(set(names)) >= 12
    plain = open_encoder("classical").card
    cards = [open_encoder(f"classical?recipe={name}").card for name in names]
    found = {card.fingerprint for card in cards}
    assert len(found) == len(names) and plain.fingerprint not in found
    for card, name in zip(cards, names, strict=True):
        assert card.spec == f"classical?recipe={name}" and open_encoder(card.spec).card == card
        assert card.recipe.size == plain.recipe.size


def test_what_a_name_means_never_changes() -> None:
    """A new preparation is a new name: this table may grow, its lines may not change."""
    expected = {
        "ct-soft-v1": "ct_window=(40.0, 400.0) ct_windows=()",
        "ct-lung-v1": "ct_window=(-600.0, 1500.0) ct_windows=()",
        "ct-bone-v1": "ct_window=(400.0, 1800.0) ct_windows=()",
        "ct-brain-v1": "ct_window=(40.0, 80.0) ct_windows=()",
        "ct-channels-v1": ("ct_windows=((-600.0, 1500.0), (40.0, 400.0), (400.0, 1800.0)) ct_windows_as='channels'"),
        "ct-vectors-v1": "ct_windows=((-600.0, 1500.0), (40.0, 400.0), (400.0, 1800.0)) ct_windows_as='vectors'",
        "mr-percentiles-v1": "percentile_modalities=('MR',)",
        "xr-percentiles-v1": "percentile_modalities=('CR', 'DR', 'DX', 'MG', 'RF', 'RG', 'XA', 'XR')",
        "percentiles-v1": "use_file_window=False",
        "file-window-v1": "percentile_modalities=() use_file_window=True",
        "squash-v1": "crop_fraction=1.0 resize='squash'",
        "letterbox-v1": "crop_fraction=1.0 resize='pad'",
        "centre-crop-v1": "crop_fraction=1.0 resize='crop'",
        "jpeg-512-q75-v1": "reencode=(512, 75)",
    }
    found = {each.name: " ".join(f"{field}={value!r}" for field, value in each.changes) for each in known_recipes()}
    assert {name: found.get(name) for name in expected} == expected


def test_fields_added_later_leave_fingerprints_alone_until_they_say_something() -> None:
    """Fingerprints as they were before there were such fields; and none of the new ones is without effect."""
    assert open_encoder("classical").card.fingerprint == "classical-17e3414b4a5f"
    card = EncoderCard(name="n", spec="s", dim=3, recipe=Recipe(name="r", size=(2, 3)), weights_sha256="ab")
    assert card.fingerprint == "n-7b97b35034a1"
    said = {
        "ct_windows": ((1.0, 2.0), (3.0, 4.0), (5.0, 6.0)),
        "percentile_modalities": ("MR",),
        "reencode": (512, 75),
    }
    changed = [replace(card, recipe=replace(card.recipe, **{name: value})) for name, value in said.items()]
    changed.append(replace(changed[0], recipe=replace(changed[0].recipe, ct_windows_as="vectors")))
    assert len({card.fingerprint, *(each.fingerprint for each in changed)}) == len(changed) + 1
    later = {each.name for each in fields(Recipe) if each.metadata == LATER}
    assert later >= {*said, "ct_windows_as"} and not later & stated(card.recipe).keys()
    assert stated(card.recipe).keys() | later == asdict(card.recipe).keys()


def test_an_encoder_with_a_fixed_preparation_says_so() -> None:
    class Fixed:
        card = EncoderCard("fixed", "fixed", 3, OWN)

        def encode(self, images: object) -> np.ndarray:
            return np.ones((1, 3), np.float32)

    from retrieval.encoders.recipes import prepared

    assert not isinstance(Fixed(), AdaptableEncoder)
    with pytest.raises(UsageError, match="'fixed' can't be exchanged"):
        prepared(Fixed(), "letterbox-v1")


@pytest.mark.parametrize(("one", "other"), [*combinations(["ct-lung-v1", "ct-soft-v1", "ct-channels-v1"], 2)])
def test_windows_do_change_what_is_seen_of_real_hounsfield_units(
    ct: tuple[Image, np.ndarray], one: str, other: str
) -> None:
    rows = [open_encoder(f"classical?recipe={name}").encode([ct[0]])[0] for name in (one, other)]
    assert rows[0] @ rows[1] < 0.999
