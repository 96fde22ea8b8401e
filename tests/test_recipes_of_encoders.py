"""Another preparation by name, on every family: what the network is then given is what the name says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retrieval.encoders import Encoder, TextEncoder, open_encoder, unit_rows
from retrieval.encoders.recipe import window
from retrieval.encoders.recipes import named_recipe
from retrieval.errors import FingerprintMismatch, UsageError
from retrieval.gallery import Gallery
from retrieval.settings import Settings
from retrieval.types import Image
from tests.encoder_files import NAMES, make_checkpoints, specs
from tests.studies import open_gallery

FAMILIES = [
    name for name in NAMES if name in {"test_vit", "open_clip", "medimageinsight", "clip", "onnx_net", "script"}
]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoints(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(params=FAMILIES)
def spec(request: pytest.FixtureRequest, checkpoints: Path) -> str:
    return specs(checkpoints)[request.param]


def slice_of_ct(seed: int = 0) -> Image:
    """Air, lung, fat, water and bone in blocks, with grain."""
    rng = np.random.default_rng(seed)
    blocks = rng.choice([-1000, -800, -100, 40, 700], (6, 8)).repeat(12, 0).repeat(10, 1)
    return Image((blocks + rng.normal(0, 20, blocks.shape)).astype(np.int16), "CT")


def opened(spec: str, recipe: str) -> Encoder:
    return open_encoder(f"{spec}?recipe={recipe}", device="cpu")


def test_windows_as_channels_are_what_the_network_sees_of_the_frame_in_colour(spec: str) -> None:
    plain, changed = open_encoder(spec, device="cpu"), opened(spec, "ct-channels-v1")
    images = [slice_of_ct(n) for n in range(3)]
    coloured = [Image(window(named_recipe(plain.card.recipe, "ct-channels-v1"), image)) for image in images]
    assert np.allclose(changed.encode(images), plain.encode(coloured), atol=1e-5)
    assert not np.allclose(changed.encode(images), plain.encode(images), atol=1e-3)
    assert np.allclose(changed.encode(coloured), plain.encode(coloured), atol=1e-5)  # colour is left alone


def test_windows_as_vectors_are_the_mean_of_the_networks_rows(spec: str) -> None:
    plain, changed = open_encoder(spec, device="cpu"), opened(spec, "ct-vectors-v1")
    image = slice_of_ct()
    shown = [
        Image(window(named_recipe(plain.card.recipe, f"ct-{name}-v1"), image)) for name in ("lung", "soft", "bone")
    ]
    expected = unit_rows(plain.encode(shown).astype(np.float64).mean(axis=0)[None])
    assert np.allclose(changed.encode([image]), expected, atol=1e-5)
    assert changed.card.dim == plain.card.dim and changed.card.fingerprint != plain.card.fingerprint
    assert isinstance(changed, TextEncoder) == isinstance(plain, TextEncoder)
    if isinstance(plain, TextEncoder) and isinstance(changed, TextEncoder):
        assert np.allclose(changed.encode_text(["a lung"]), plain.encode_text(["a lung"]), atol=1e-6)


def test_a_gallery_keeps_the_preparation_and_refuses_another(spec: str, tmp_path: Path) -> None:
    with open_gallery(tmp_path, encoder=f"{spec}?recipe=ct-lung-v1") as gallery:
        own = gallery.fingerprint
        assert gallery.encoder.card.spec.endswith("?recipe=ct-lung-v1")
    with Gallery.open(tmp_path) as gallery:
        assert gallery.fingerprint == own and gallery.encoder.card.recipe.ct_window == (-600.0, 1500.0)
    for other in (spec, f"{spec}?recipe=ct-bone-v1"):
        with pytest.raises(FingerprintMismatch) as refused, Gallery.open(Settings(home=tmp_path, encoder=other)):
            pass
        assert own in str(refused.value) and refused.value.args


def test_an_encoder_of_raw_intensities_keeps_its_preparation(checkpoints: Path) -> None:
    raw = [spec for name, spec in specs(checkpoints).items() if name == "curia"]
    if not raw:
        pytest.skip("the library transformers is not here")
    with pytest.raises(UsageError, match="can't be exchanged"):
        opened(raw[0], "ct-lung-v1")
