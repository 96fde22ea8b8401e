"""MedImageInsight computes what its reference computes, at every size; the fixture's own vectors are the yardstick."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image as PillowImage

from retrieval.encoders import TextEncoder, open_encoder
from retrieval.encoders.medimageinsight.config import PUBLISHED, read_config
from retrieval.encoders.medimageinsight.model import build_model
from retrieval.encoders.medimageinsight.tokenizer import Tokenizer
from retrieval.encoders.recipe import apply
from retrieval.encoders.tower import ImageTower
from retrieval.types import Image, UnitRows
from tests import medimageinsight_oracle as oracle
from tests.encoder_files import scene
from tests.medimageinsight_files import PUBLISHED as PUBLISHED_YAML
from tests.medimageinsight_files import copy_as, make_folder, older, read, small_config
from tests.shared_data import shared_root


@pytest.fixture(scope="module")
def fixture() -> Path:
    root = shared_root()
    folder = root / "fixtures" / "medimageinsight-tiny" if root else None
    if folder is None or not folder.is_dir():
        pytest.skip("the reference checkpoint medimageinsight-tiny is not here")
    return folder


def towers(folder: Path, suffix: str = "") -> Any:
    encoder = open_encoder(f"medimageinsight:{folder}{suffix}", device="cpu")
    assert isinstance(encoder, ImageTower) and isinstance(encoder, TextEncoder)
    return encoder


def error(rows: UnitRows, expected: Any) -> float:
    assert rows.shape == expected.shape
    return float(np.abs(rows - expected).max())


# --- the reference's own vectors ---


@pytest.mark.parametrize("style", [str, older], ids=["published", "older"])
@pytest.mark.parametrize("second", [False, True], ids=["first-layout", "second-layout"])
def test_the_reference_vectors_come_out_of_every_form_of_the_checkpoint(
    fixture: Path, tmp_path: Path, style: Any, second: bool
) -> None:
    encoder = towers(copy_as(fixture, tmp_path / "copy", style, second_layout=second))
    expected = np.load(fixture / "expected.npz")
    facts = json.loads((fixture / "expected.json").read_text())
    images = encoder.run([frame.transpose(1, 2, 0) for frame in expected["pixels"]])
    raw = encoder.encode([Image(expected[f"image{index}"]) for index in range(3)])
    texts = encoder.encode_text(facts["texts"])
    assert error(images, expected["image_embeddings"]) < 1e-5
    assert error(raw, expected["image_embeddings"]) < 1e-3
    assert error(texts, expected["text_embeddings"]) < 1e-5
    logits = encoder.card.logit_scale * (images.astype(np.float64) @ texts.T)
    assert error(logits, expected["logits"]) < 1e-3
    assert encoder.card.logit_scale == pytest.approx(np.exp(facts["logit_scale"]), rel=1e-6)
    assert encoder.card.fingerprint == towers(fixture).card.fingerprint


def test_pixels_are_prepared_as_the_reference_prepares_them(fixture: Path) -> None:
    expected = np.load(fixture / "expected.npz")
    recipe = towers(fixture).card.recipe
    for index in range(3):
        pixels = apply(recipe, Image(expected[f"image{index}"])).transpose(2, 0, 1)
        assert np.abs(pixels - expected["pixels"][index]).max() < 1e-6


# --- other sizes, against plain NumPy ---


def tokens_of(folder: Path, context: int, texts: list[str]) -> list[list[int]]:
    """The tokens of each text without its padding."""
    place = next((folder / "language_model").glob("clip*"))
    tokenizer = Tokenizer.read(place / "vocab.json", place / "merges.txt", context)
    return [[*row[row != tokenizer.end].tolist(), tokenizer.end] for row in tokenizer(texts)]


def other_config(name: str) -> dict[str, Any]:
    config = small_config()
    image, spec, lang = config["IMAGE_ENCODER"], config["IMAGE_ENCODER"]["SPEC"], config["LANG_ENCODER"]
    if name == "wide":  # rows and columns differ and fill neither strides nor windows; groups are not heads
        image.update(IMAGE_SIZE=[61, 83], IMAGE_MEAN=[0.1, 0.2, 0.3], IMAGE_STD=[0.5, 0.6, 0.7])
        spec.update(
            PATCH_SIZE=[5, 2, 3], PATCH_STRIDE=[3, 2, 1], PATCH_PADDING=[2, 0, 2], PATCH_PRENORM=[False, True, False],
            DIM_EMBED=[6, 12, 20], NUM_HEADS=[3, 2, 5], NUM_GROUPS=[2, 6, 1], DEPTHS=[2, 1, 1], WINDOW_SIZE=5,
        )  # fmt: skip
        lang.update(CONTEXT_LENGTH=9, WIDTH=8, HEADS=1, LAYERS=3)
        config["AUG"]["INTERPOLATION"] = "bilinear"
    if name == "deep":
        spec.update(
            PATCH_SIZE=[7, 3, 3, 3], PATCH_STRIDE=[4, 2, 2, 2], PATCH_PADDING=[3, 1, 1, 1],
            PATCH_PRENORM=[False, True, True, True], DIM_EMBED=[4, 8, 16, 24], NUM_HEADS=[1, 2, 4, 4],
            NUM_GROUPS=[4, 1, 2, 3], DEPTHS=[1, 1, 3, 1], WINDOW_SIZE=3,
        )  # fmt: skip
        image["IMAGE_SIZE"] = [70, 70]
    if name == "causal":  # the default where the key is absent, as are the window and the interpolation
        del lang["AUTOGRESSIVE"], spec["WINDOW_SIZE"], config["AUG"], config["TEST"]
    if name == "bare":  # all that the reference allows to be switched
        spec.update(CONV_AT_ATTN=False, CONV_AT_FFN=False, DYNAMIC_SCALE=False, PATCH_PRENORM=[True, False])
        image["NUM_CLASSES"] = 7
        config["TEST"]["CENTER_CROP"] = True
    return config


@pytest.mark.parametrize("name", ["small", "wide", "deep", "causal", "bare"])
def test_any_size_gives_what_plain_numpy_gives(name: str, tmp_path: Path) -> None:
    config = other_config(name)
    folder = make_folder(tmp_path / "model", config, seed=len(name))
    tensors = read(folder / "vision_model" / "medimageinsigt-v1.0.0.pt")
    for place in (folder, copy_as(folder, tmp_path / "older", older, second_layout=True)):
        encoder = towers(place)
        frames = [apply(encoder.card.recipe, Image(scene(90, 110, index))) for index in range(3)]
        pixels = np.stack(frames).transpose(0, 3, 1, 2)
        full = {"SPEC": {"WINDOW_SIZE": 7, **config["IMAGE_ENCODER"]["SPEC"]}}
        expected = oracle.image_rows({**config, "IMAGE_ENCODER": full}, tensors, pixels)
        assert np.abs(expected[0] - expected[1]).max() > 1e-3  # the weights are not so small that all is alike
        assert error(encoder.run(frames), expected) < 1e-5
        texts = ["a", "chest x-ray, no finding.", "", "a long text " * 20]
        tokens = tokens_of(place, config["LANG_ENCODER"]["CONTEXT_LENGTH"], texts)
        assert error(encoder.encode_text(texts), oracle.text_rows(config, tensors, tokens)) < 1e-5


@pytest.mark.parametrize("name", ["wide", "bare"])
def test_frames_are_prepared_as_the_configuration_says(name: str, tmp_path: Path) -> None:
    from torchvision import transforms

    config = other_config(name)
    image = config["IMAGE_ENCODER"]
    columns, rows = image["IMAGE_SIZE"]
    mode = transforms.InterpolationMode(config["AUG"]["INTERPOLATION"])
    steps: list[Any] = [transforms.Resize((rows, columns), mode)]
    if config["TEST"]["CENTER_CROP"]:
        steps = [transforms.Resize(int(columns / 0.875), mode), transforms.CenterCrop(columns)]
    steps += [transforms.ToTensor(), transforms.Normalize(image["IMAGE_MEAN"], image["IMAGE_STD"])]
    recipe = towers(make_folder(tmp_path, config)).card.recipe
    for frame in (scene(200, 150), np.stack([scene(60, 91, index) for index in range(3)], axis=2)):
        expected = transforms.Compose(steps)(PillowImage.fromarray(frame).convert("RGB")).numpy()
        assert np.abs(apply(recipe, Image(frame)).transpose(2, 0, 1) - expected).max() < 1e-6


def test_half_precision_weights_run_in_float32(tmp_path: Path) -> None:
    def halve(tensors: dict[str, Any]) -> None:
        for name, tensor in tensors.items():
            tensors[name] = tensor.astype(np.float16)

    config = small_config()
    encoder = towers(make_folder(tmp_path / "half", config, change=halve))
    frame = apply(encoder.card.recipe, Image(scene()))
    tensors = read(tmp_path / "half" / "vision_model" / "medimageinsigt-v1.0.0.pt")
    expected = oracle.image_rows(config, tensors, frame.transpose(2, 0, 1)[None])
    assert error(encoder.run([frame]), expected) < 1e-5


# --- the published size, without its weights ---


def test_the_published_configuration_has_the_published_counts(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(PUBLISHED_YAML)
    config = read_config(tmp_path / "config.yaml")
    assert config == PUBLISHED
    model: Any = build_model(config, 49408)
    counts = {name: sum(each.numel() for each in part.parameters()) for name, part in model.named_children()}
    assert counts == {"image_encoder": 360_636_416, "lang_encoder": 252_214_272}
    assert sum(each.numel() for each in model.parameters()) == 615_996_417
    assert all(each.is_meta for each in model.parameters())


# --- identity ---


def test_batch_and_padding_do_not_matter(tmp_path: Path) -> None:
    encoder = towers(make_folder(tmp_path))
    texts = ["", "one", "two words", "x-ray chest anteroposterior Atelectasis.", *(f"text {n} " * n for n in range(17))]
    together = encoder.encode_text(texts)
    alone = np.concatenate([encoder.encode_text([text]) for text in texts])
    assert np.einsum("nd,nd->n", together, alone).min() >= 0.99999
    assert np.array_equal(together, encoder.encode_text(texts))
    assert encoder.encode_text([]).shape == (0, 10)
    frames = [Image(scene(40 + index, 60, index)) for index in range(19)]
    each = np.concatenate([encoder.encode([frame]) for frame in frames])
    assert np.einsum("nd,nd->n", encoder.encode(frames), each).min() >= 0.99999


def test_what_decides_a_vector_decides_the_fingerprint(tmp_path: Path) -> None:
    first = towers(make_folder(tmp_path / "first")).card
    assert (first.text, first.dim, first.licence) == (True, 10, "MIT")
    assert towers(make_folder(tmp_path / "again")).card.fingerprint == first.fingerprint
    assert towers(make_folder(tmp_path / "weights", seed=1)).card.fingerprint != first.fingerprint
    for path, value in (
        (("IMAGE_ENCODER", "SPEC", "NUM_GROUPS"), [1, 2]),
        (("IMAGE_ENCODER", "SPEC", "WINDOW_SIZE"), 5),
        (("IMAGE_ENCODER", "IMAGE_MEAN"), [0.5, 0.5, 0.5]),
        (("AUG", "INTERPOLATION"), "bilinear"),
    ):
        config = small_config()
        table = config
        for key in path[:-1]:
            table = table[key]
        table[path[-1]] = value
        folder = make_folder(tmp_path / path[-1], config)
        assert towers(folder).card.fingerprint != first.fingerprint, path[-1]


def test_the_endpoint_recipe_goes_through_a_jpeg_and_has_its_own_fingerprint(tmp_path: Path) -> None:
    import io

    folder = make_folder(tmp_path)
    plain, endpoint = towers(folder), towers(folder, "?recipe=jpeg-512-q75-v1")
    frame = scene(300, 200)
    stored = io.BytesIO()
    PillowImage.fromarray(frame).convert("RGB").resize((512, 512), PillowImage.Resampling.BICUBIC).save(
        stored, "JPEG", quality=75
    )
    decoded = np.asarray(PillowImage.open(stored))
    assert np.array_equal(endpoint.encode([Image(frame)]), plain.encode([Image(decoded)]))
    assert endpoint.card.fingerprint != plain.card.fingerprint
    assert np.array_equal(endpoint.encode_text(["normal."]), plain.encode_text(["normal."]))


def test_the_configuration_of_the_fixture_is_the_published_one_but_for_sizes(fixture: Path) -> None:
    ours, theirs = yaml.safe_load(PUBLISHED_YAML), yaml.safe_load((fixture / "config.yaml").read_text())
    assert ours["IMAGE_ENCODER"].keys() == theirs["IMAGE_ENCODER"].keys()
    assert ours["IMAGE_ENCODER"]["SPEC"].keys() == theirs["IMAGE_ENCODER"]["SPEC"].keys()
    assert ours["LANG_ENCODER"].keys() == theirs["LANG_ENCODER"].keys()


def test_an_end_token_within_a_text_is_read_there_and_hides_nothing(tmp_path: Path) -> None:
    config = small_config()
    folder = make_folder(tmp_path, config)
    tensors = read(folder / "vision_model" / "medimageinsigt-v1.0.0.pt")
    whole = [512 + 200, 256 + 7, 512 + 201, 256 + 8, 512 + 201]  # start, word, end, word, end: all take part
    expected = oracle.text_rows(config, tensors, [whole])
    encoder = towers(folder)
    tokens = tokens_of(folder, 16, ["x"])[0]
    assert (tokens[0], tokens[-1]) == (whole[0], whole[-1])
    assert error(encoder.encode_text(["( <|endoftext|> )"]), expected) < 1e-5
