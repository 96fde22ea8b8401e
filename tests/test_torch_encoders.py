"""timm and open_clip give what their own libraries give, from files opened the way users open theirs."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage

from retrieval.encoders import TextEncoder, open_encoder
from retrieval.errors import MissingExtra, NotFoundError, UsageError
from retrieval.types import Image
from tests.encoder_files import (
    TIMM_MODELS,
    make_biomedclip,
    make_checkpoints,
    make_open_clip,
    make_timm,
    scene,
    scenes,
    specs,
)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoints(tmp_path_factory.mktemp("checkpoints"))


@pytest.mark.parametrize("name", TIMM_MODELS)
def test_timm_gives_what_timm_itself_gives(name: str, checkpoints: Path) -> None:
    import timm
    import torch

    encoder = open_encoder(specs(checkpoints)[name], device="cpu")
    model = make_timm(name, checkpoints / f"again-{name}.safetensors")
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model), is_training=False)
    frames = [scene(200, 150), np.stack([scene(90, 300)] * 2 + [scene(90, 300, 1)], axis=2), scene(30, 30)]
    with torch.inference_mode():
        batch = torch.stack([transform(PillowImage.fromarray(frame).convert("RGB")) for frame in frames])
        expected = model.forward_head(model.forward_features(batch), pre_logits=True).numpy()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.einsum("nd,nd->n", encoder.encode([Image(frame) for frame in frames]), expected).min() > 0.999999


def test_timm_reads_folders_pickles_and_files_alike(checkpoints: Path, tmp_path: Path) -> None:
    import torch

    first = open_encoder(specs(checkpoints)["test_vit"], device="cpu")
    model = make_timm("test_vit", tmp_path / "model.safetensors")
    pickled = tmp_path / "weights.pth"
    torch.save({"state_dict": {f"module.{key}": value for key, value in model.state_dict().items()}}, pickled)
    for path in (tmp_path, pickled):
        other = open_encoder(f"timm:test_vit@{path}", device="cpu")
        assert other.card.fingerprint == first.card.fingerprint
        assert np.array_equal(other.encode(scenes(2)), first.encode(scenes(2)))


def test_timm_obeys_the_config_beside_the_weights(tmp_path: Path) -> None:
    make_timm("test_vit", tmp_path / "model.safetensors")
    plain = open_encoder(f"timm:test_vit@{tmp_path}").card
    config = {
        "architecture": "test_vit",
        "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "crop_mode": "squash", "crop_pct": 1},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    card = open_encoder(f"timm:test_vit@{tmp_path}").card
    assert plain.licence == ""  # what timm says of its own weights does not hold for these
    assert (card.recipe.mean, card.recipe.resize, card.recipe.crop_fraction) == ((0.1, 0.2, 0.3), "squash", 1.0)
    assert card.weights_sha256 == plain.weights_sha256
    assert card.fingerprint != plain.fingerprint
    with pytest.raises(UsageError, match="timm:test_vit"):
        open_encoder(f"timm:test_resnet@{tmp_path}")


def test_other_weights_are_another_encoder(checkpoints: Path, tmp_path: Path) -> None:
    make_timm("test_vit", tmp_path / "other.safetensors", seed=1)
    other = open_encoder(f"timm:test_vit@{tmp_path / 'other.safetensors'}")
    assert other.card.fingerprint != open_encoder(specs(checkpoints)["test_vit"]).card.fingerprint


def test_weights_of_another_model_are_refused_with_what_does_not_fit(checkpoints: Path) -> None:
    with pytest.raises(UsageError, match=r"missing .*unexpected"):
        open_encoder(f"timm:test_vit@{checkpoints / 'test_resnet.safetensors'}")


def test_damaged_absent_and_doubtful_weights_are_refused(tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        (tmp_path / name).write_bytes(b"\x08\0\0\0\0\0\0\0not json")
    (tmp_path / "list.pth").write_bytes(b"not a pickle")
    for path, error, words in (
        (tmp_path / "a.safetensors", UsageError, "can't be read"),
        (tmp_path / "list.pth", UsageError, "can't be read"),
        (tmp_path, UsageError, "several weights files"),
        (tmp_path / "none", NotFoundError, "no weights file or folder"),
    ):
        with pytest.raises(error, match=words):
            open_encoder(f"timm:test_vit@{path}")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(NotFoundError, match="holds no weights"):
        open_encoder(f"timm:test_vit@{empty}")


class Exploit:
    """Pickled, it would make a file when loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (os.mkdir, (str(self.path),))


def test_code_in_a_pickle_does_not_run(tmp_path: Path) -> None:
    import torch

    torch.save({"state_dict": Exploit(tmp_path / "ran")}, tmp_path / "weights.pth")
    with pytest.raises(UsageError, match="can't be read"):
        open_encoder(f"timm:test_vit@{tmp_path / 'weights.pth'}")
    assert not (tmp_path / "ran").exists()


# --- open_clip ---


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
def test_open_clip_gives_what_open_clip_itself_gives(resize_mode: str, tmp_path: Path) -> None:
    import open_clip
    import torch

    folder = make_open_clip(tmp_path / "clip", resize_mode)
    encoder = open_encoder(f"open_clip:local-dir:{folder}", device="cpu")
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    model.eval()
    frames = [scene(200, 150), np.stack([scene(90, 300)] * 2 + [scene(90, 300, 1)], axis=2), scene(30, 30)]
    texts = ["chest x-ray, normal.", "a very long sentence " * 60, ""]
    with torch.inference_mode():
        batch = torch.stack([transform(PillowImage.fromarray(frame).convert("RGB")) for frame in frames])
        images = model.encode_image(batch, normalize=True).numpy()
        words = model.encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")(texts), normalize=True).numpy()
    assert isinstance(encoder, TextEncoder)
    assert np.einsum("nd,nd->n", encoder.encode([Image(frame) for frame in frames]), images).min() > 0.999999
    assert np.einsum("nd,nd->n", encoder.encode_text(texts), words).min() > 0.999999
    assert encoder.card.logit_scale == pytest.approx(float(model.logit_scale.detach().exp()))
    assert encoder.encode_text([]).shape == (0, 32)


def test_open_clip_knows_a_copied_folder_as_the_same_encoder_and_an_edited_one_as_another(
    checkpoints: Path, tmp_path: Path
) -> None:
    first = open_encoder(specs(checkpoints)["open_clip"]).card
    folder = make_open_clip(tmp_path / "copy")
    assert open_encoder(f"open_clip:local-dir:{folder}").card.fingerprint == first.fingerprint
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["quick_gelu"] = False  # as it is when nothing is said of it
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    assert open_encoder(f"open_clip:local-dir:{folder}").card.fingerprint == first.fingerprint
    config["model_cfg"]["quick_gelu"] = True  # no tensor shows it, every vector does
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    assert open_encoder(f"open_clip:local-dir:{folder}").card.fingerprint != first.fingerprint


@pytest.mark.skipif(find_spec("transformers") is not None, reason="transformers is installed here")
def test_a_text_tower_of_transformers_names_the_extra_to_install(tmp_path: Path) -> None:
    folder = make_open_clip(tmp_path / "clip")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"] = {"hf_model_name": "bert", "hf_tokenizer_name": "bert"}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(MissingExtra, match=r"precedent\[transformers\]"):
        open_encoder(f"open_clip:local-dir:{folder}")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed")
def test_a_text_tower_of_transformers_opens_from_a_folder_without_a_network(tmp_path: Path) -> None:
    """As BiomedCLIP is built: open_clip asks the hub for the text tower's configuration unless it lies beside."""
    import open_clip
    import torch

    model = make_biomedclip(tmp_path / "clip")
    encoder = open_encoder(f"open_clip:local-dir:{tmp_path / 'clip'}", device="cpu")
    assert isinstance(encoder, TextEncoder) and encoder.card.text
    texts = ["chest x-ray normal", "heart"]
    with torch.inference_mode():
        tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'clip'}")(texts)
        expected = model.encode_text(tokens, normalize=True).numpy()
    assert np.einsum("nd,nd->n", encoder.encode_text(texts), expected).min() > 0.999999
    (tmp_path / "clip" / "text" / "config.json").unlink()
    with pytest.raises(UsageError, match="the folder 'text'"):
        open_encoder(f"open_clip:local-dir:{tmp_path / 'clip'}")


def test_open_clip_never_answers_with_random_weights(tmp_path: Path) -> None:
    folder = make_open_clip(tmp_path / "clip")
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(UsageError, match="can't be used"):
        open_encoder(f"open_clip:local-dir:{folder}")
    with pytest.raises(NotFoundError, match="open_clip_config"):
        open_encoder(f"open_clip:local-dir:{tmp_path}")
    with pytest.raises(NotFoundError, match="laion2b"):
        open_encoder("open_clip:ViT-B-32")
