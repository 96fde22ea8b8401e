"""Models of transformers give here what they give there: the same pixels in, the same vectors out."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as PillowImage

from retrieval.encoders import TextEncoder, open_encoder
from retrieval.encoders.recipe import Recipe, apply
from retrieval.errors import NotFoundError, UsageError
from retrieval.types import Image, Pixels
from tests.encoder_files import scene, scenes
from tests.shared_data import shared_root
from tests.transformers_files import CONTEXT, KINDS, make_transformers

pytestmark = pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed")

GREY_LEVEL = 1 / 255
IMAGES = ("dinov2", "dinov3_vit", "siglip", "clip", "vit")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("transformers")
    for kind in KINDS:
        make_transformers(kind, root / kind)
    return {kind: root / kind for kind in KINDS}


def pictures() -> list[Pixels]:
    """Grey and colour frames of odd sizes: wider, higher, smaller than the model's; real ones where there are any."""
    colour = np.stack([scene(90, 301), scene(90, 301, 1), scene(90, 301, 2)], axis=2)
    made = [scene(200, 151), scene(133, 214, 3), colour, scene(31, 30), scene(63, 64)]
    root = shared_root()
    names = ("cxr_nih", "derm_ham10000") if root else ()
    real = [path for name in names for path in sorted((root / "data" / name).rglob("*.jp*g"))[:4]]
    return made + [np.asarray(PillowImage.open(path)) for path in real]


def processed(folder: Path, backend: str, pixels: Pixels) -> npt.NDArray[np.float32]:
    """[rows, columns, 3] as the model's own processor makes it of a picture."""
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(folder, backend=backend)
    made = processor(images=PillowImage.fromarray(pixels).convert("RGB"), return_tensors="np")["pixel_values"]
    return np.asarray(made)[0].transpose(1, 2, 0)


@pytest.mark.parametrize(
    ("kind", "backend"),  # transformers prepares for DINOv3 in torchvision alone
    [
        (kind, backend)
        for backend in ("pil", "torchvision")
        for kind in IMAGES
        if (kind, backend) != ("dinov3_vit", "pil")
    ],
)
def test_pixels_are_prepared_as_the_models_own_processor_does(
    kind: str, backend: str, folders: dict[str, Path]
) -> None:
    recipe = open_encoder(f"transformers:{folders[kind]}", device="cpu").card.recipe
    for pixels in pictures():
        theirs, ours = processed(folders[kind], backend, pixels), apply(recipe, Image(pixels))
        apart = np.abs(theirs - ours) * np.asarray(recipe.std)  # on the 0 to 1 scale
        if backend == "pil":
            assert apart.max() < 1e-6
        else:
            assert apart.max() <= 1.01 * GREY_LEVEL
            assert apart.mean() < GREY_LEVEL / 3


@pytest.mark.parametrize("kind", IMAGES)
def test_vectors_are_those_of_the_model_itself(kind: str, folders: dict[str, Path]) -> None:
    import torch
    from transformers import AutoModel

    encoder = open_encoder(f"transformers:{folders[kind]}", device="cpu")
    model = AutoModel.from_pretrained(folders[kind], **({"add_pooling_layer": False} if kind == "vit" else {})).eval()
    frames = pictures()[:5]
    batch = torch.from_numpy(np.stack([processed(folders[kind], "torchvision", frame) for frame in frames]))
    pixels = batch.permute(0, 3, 1, 2).contiguous()
    with torch.inference_mode():
        if kind in ("siglip", "clip"):
            expected = model.get_image_features(pixel_values=pixels).pooler_output.numpy()
        else:
            expected = model(pixels).last_hidden_state[:, 0].numpy()
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    rows = encoder.encode([Image(frame) for frame in frames])
    assert np.einsum("nd,nd->n", rows, expected).min() > (0.99999 if kind != "dinov3_vit" else 0.9999)


@pytest.mark.parametrize("kind", ["siglip", "clip"])
def test_texts_are_those_of_the_model_itself(kind: str, folders: dict[str, Path]) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    encoder = open_encoder(f"transformers:{folders[kind]}", device="cpu")
    assert isinstance(encoder, TextEncoder) and encoder.card.text
    texts = ["chest x-ray, normal.", "heart large " * 40, ""]
    words = AutoTokenizer.from_pretrained(folders[kind])
    ids = words(texts, padding="max_length", truncation=True, max_length=CONTEXT, return_tensors="pt")["input_ids"]
    model = AutoModel.from_pretrained(folders[kind]).eval()
    with torch.inference_mode():
        expected = model.get_text_features(input_ids=ids).pooler_output.numpy()
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.einsum("nd,nd->n", encoder.encode_text(texts), expected).min() > 0.999999
    assert encoder.encode_text([]).shape == (0, encoder.card.dim)
    assert encoder.card.logit_scale == pytest.approx(float(model.logit_scale.detach().exp()))
    assert encoder.card.logit_bias == (pytest.approx(-2.0) if kind == "siglip" else None)


def test_texts_of_many_threads_are_those_of_one(folders: dict[str, Path]) -> None:
    encoder = open_encoder(f"transformers:{folders['siglip']}", device="cpu")
    assert isinstance(encoder, TextEncoder)
    texts = ["chest x-ray, normal.", "heart large"] * 300
    alone = encoder.encode_text(texts)
    with ThreadPoolExecutor(8) as threads:
        for rows in threads.map(encoder.encode_text, [texts] * 8):
            assert np.allclose(rows, alone, atol=1e-6)


def test_a_model_without_its_tokenizer_still_takes_images(folders: dict[str, Path], tmp_path: Path) -> None:
    copy = shutil.copytree(folders["siglip"], tmp_path / "copy", ignore=shutil.ignore_patterns("tokenizer*"))
    encoder = open_encoder(f"transformers:{copy}", device="cpu")
    assert not encoder.card.text and "tokenizer" in encoder.card.notes
    assert not isinstance(encoder, TextEncoder)
    assert encoder.card.fingerprint == open_encoder(f"transformers:{folders['siglip']}").card.fingerprint


@pytest.mark.parametrize("low", [-1024, -3024])
def test_curia_sees_raw_intensities_standardised_by_slice(low: int, folders: dict[str, Path]) -> None:
    """Against the steps its card states, in torch: bicubic with antialiasing in float32, air clipped, z-score."""
    import torch

    recipe = open_encoder(f"transformers:{folders['curia']}", device="cpu").card.recipe
    slices = np.clip(scene(150, 133).astype(np.int16) * 8 - 1000, low, 1200)
    slices[:20, :20] = low
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(slices).float()[None, None], size=(64, 64), mode="bicubic", antialias=True
    )[0, 0].clamp_min(-1000)
    expected = ((resized - resized.mean()) / resized.std()).numpy()
    ours = apply(recipe, Image(slices, modality="CT", window=(40.0, 400.0)))
    assert ours.shape == (64, 64, 1)
    assert np.abs(ours[..., 0] - expected).max() < 1e-4
    assert np.array_equal(apply(recipe, Image(slices)), ours)  # no window, whatever the file and the modality say


def test_settings_beside_the_weights_decide_the_recipe(tmp_path: Path) -> None:
    make_transformers("dinov2", tmp_path / "plain")
    plain = open_encoder(f"transformers:{tmp_path / 'plain'}").card
    make_transformers("dinov2", tmp_path / "other", do_center_crop=False, size={"height": 56, "width": 70}, resample=0)
    card = open_encoder(f"transformers:{tmp_path / 'other'}").card
    assert (card.recipe.size, card.recipe.resize, card.recipe.interpolation) == ((56, 70), "squash", "nearest")
    assert card.weights_sha256 == plain.weights_sha256
    assert card.fingerprint != plain.fingerprint


@pytest.mark.parametrize(
    ("rescale", "normalize", "mean", "std"),
    [(False, False, 0.0, 1 / 255), (True, False, 0.0, 1.0), (False, True, 100 / 255, 50 / 255), (True, True, 100, 50)],
)
def test_other_scales_of_a_processor_are_kept(
    rescale: bool, normalize: bool, mean: float, std: float, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"do_rescale": rescale, "do_normalize": normalize}
    make_transformers("vit", tmp_path, image_mean=[100] * 3, image_std=[50] * 3, **settings)
    recipe = open_encoder(f"transformers:{tmp_path}").card.recipe
    assert (recipe.mean[0], recipe.std[0]) == (pytest.approx(mean), pytest.approx(std))
    pixels = scene()
    assert np.allclose(apply(recipe, Image(pixels)), processed(tmp_path, "pil", pixels), atol=1e-3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"do_pad": True}, "do_pad"),
        ({"do_resize": False}, "do_resize off"),
        ({"resample": 5}, "resample 5"),
        ({"size": {"shortest_edge": 64}, "do_center_crop": False}, "shortest_edge"),
        ({"size": {"shortest_edge": 40}, "crop_size": {"height": 56, "width": 56}}, "shortest_edge"),
        ({"size": {"height": 59, "width": 59}}, "59"),
        ({"image_processor_type": "ConvNextImageProcessor"}, "ConvNextImageProcessor"),
        ({"image_processor_type": "OwnProcessor", "auto_map": {"AutoImageProcessor": "own.OwnProcessor"}}, "never run"),
    ],
)
def test_preparations_that_are_no_recipe_are_refused(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    make_transformers("dinov2", tmp_path)
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(UsageError, match=words):
        open_encoder(f"transformers:{tmp_path}")
    assert not (tmp_path / "ran").exists()


def test_weights_that_do_not_fit_or_may_hold_code_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(folders["dinov2"], tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    partial = {name: tensor for name, tensor in weights.items() if "layernorm" not in name}
    save_file({**partial, "surplus": torch.zeros(1)}, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(UsageError, match=r"2 missing \(layernorm.*1 unexpected \(surplus"):
        open_encoder(f"transformers:{copy}")
    (copy / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0not json")
    with pytest.raises(UsageError, match="can't be used"):
        open_encoder(f"transformers:{copy}")
    (copy / "model.safetensors").unlink()
    torch.save(weights, copy / "pytorch_model.bin")
    with pytest.raises(NotFoundError, match="safetensors"):
        open_encoder(f"transformers:{copy}")


def test_the_fingerprint_follows_weights_and_settings_not_who_saved_them(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    first = open_encoder(f"transformers:{folders['dinov2']}").card.fingerprint
    copy = shutil.copytree(folders["dinov2"], tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "transformers_version": "4.1", "_name_or_path": "x"}))
    assert open_encoder(f"transformers:{copy}").card.fingerprint == first
    (copy / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))  # no tensor shows it
    assert open_encoder(f"transformers:{copy}").card.fingerprint != first
    make_transformers("dinov2", tmp_path / "seed", seed=1)
    assert open_encoder(f"transformers:{tmp_path / 'seed'}").card.fingerprint != first


def test_a_model_whose_mask_token_was_left_out_is_the_same_every_time(folders: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(folders["dinov2"], tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    del weights["embeddings.mask_token"]
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    one, two = (open_encoder(f"transformers:{path}") for path in (copy, folders["dinov2"]))
    assert one.card.fingerprint == two.card.fingerprint == open_encoder(f"transformers:{copy}").card.fingerprint
    assert np.array_equal(one.encode(scenes(2)), two.encode(scenes(2)))


def test_what_is_not_there_is_told(folders: dict[str, Path], tmp_path: Path) -> None:
    for spec in (f"{tmp_path / 'none'}", "./none", "one-word", "a/b/c"):
        with pytest.raises(NotFoundError, match="no folder"):
            open_encoder(f"transformers:{spec}")
    with pytest.raises(NotFoundError, match=r"config\.json"):
        open_encoder(f"transformers:{tmp_path}")
    copy = shutil.copytree(folders["vit"], tmp_path / "copy")
    (copy / "preprocessor_config.json").unlink()
    with pytest.raises(NotFoundError, match="preprocessor_config"):
        open_encoder(f"transformers:{copy}")
    (copy / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UsageError, match="type 'bert'"):
        open_encoder(f"transformers:{copy}")


def test_frames_of_another_size_than_the_models_are_told(tmp_path: Path) -> None:
    make_transformers("siglip", tmp_path, size={"height": 96, "width": 96})
    with pytest.raises(UsageError, match="96 x 96"):
        open_encoder(f"transformers:{tmp_path}")


def test_a_raw_recipe_never_crops() -> None:
    from retrieval.encoders.recipe import RawRecipe

    assert isinstance(RawRecipe(name="raw", size=(4, 4)), Recipe)
    with pytest.raises(UsageError, match="squashed"):
        RawRecipe(name="raw", size=(4, 4), resize="crop")
