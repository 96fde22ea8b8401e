"""What every encoder promises, run on every family; and what the torch families owe to their libraries.

The checkpoints are small, with random weights of a fixed seed, made here and opened the way users open theirs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage

from retrieval.encoders import Encoder, TextEncoder, known_encoders, open_encoder
from retrieval.encoders.base import EncoderCard
from retrieval.encoders.recipe import Recipe
from retrieval.errors import MissingExtra, NotFoundError, UsageError
from retrieval.types import Image, Pixels, UnitRows

TIMM_MODELS = ("test_vit", "test_resnet", "mobilenetv3_small_050")
OPEN_CLIP_CONFIG = {
    "model_cfg": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
    },
    "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "interpolation": "bicubic", "fill_color": 7},
}


def save(model: Any, path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)


def make_timm(name: str, path: Path, seed: int = 0) -> Any:
    import timm
    import torch

    torch.manual_seed(seed)
    model = timm.create_model(name, pretrained=False).eval()
    save(model, path)
    return model


def make_open_clip(folder: Path, resize_mode: str = "shortest") -> Path:
    import open_clip
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads(json.dumps(OPEN_CLIP_CONFIG))
    config["preprocess_cfg"]["resize_mode"] = resize_mode
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    save(open_clip.model.CLIP(**config["model_cfg"]), folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    torch.set_num_threads(1)  # nets this small are slower on several, above all beside other test processes
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in TIMM_MODELS:
        make_timm(name, folder / f"{name}.safetensors")
    make_open_clip(folder / "clip")
    return folder


def specs(folder: Path) -> dict[str, str]:
    found = {name: f"timm:{name}@{folder / name}.safetensors" for name in TIMM_MODELS}
    return {"classical": "classical", **found, "open_clip": f"open_clip:local-dir:{folder / 'clip'}"}


@pytest.fixture(scope="session", params=["classical", *TIMM_MODELS, "open_clip"])
def spec(request: pytest.FixtureRequest, checkpoints: Path) -> str:
    return specs(checkpoints)[request.param]


@pytest.fixture(scope="session")
def encoder(spec: str) -> Iterator[Encoder]:
    yield open_encoder(spec, device="cpu")


def scene(rows: int = 96, columns: int = 80, seed: int = 0) -> Pixels:
    """A smooth frame with edges and grain, uint8: nearer to a picture than noise is."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:rows, 0:columns] / max(rows, columns)
    blobs = sum(
        strength * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * size**2))
        for strength, cy, cx, size in zip(*random.uniform(0.05, 1, (4, 6)), strict=True)
    )
    picture = blobs / np.max(blobs) * 200 + (x > random.uniform(0.3, 0.7)) * 30 + random.normal(0, 4, (rows, columns))
    return np.clip(picture, 0, 255).astype(np.uint8)


def scenes(count: int) -> list[Image]:
    return [Image(scene(40 + 7 * index, 90 - 5 * index, index)) for index in range(count)]


def check_unit(rows: UnitRows, count: int, dim: int) -> None:
    assert rows.shape == (count, dim)
    assert rows.dtype == np.float32
    assert rows.flags.c_contiguous
    assert np.isfinite(rows).all()
    assert np.abs(np.linalg.norm(rows.astype(np.float64), axis=1) - 1).max(initial=0) < 1e-3


# --- every encoder ---


def test_rows_are_unit_and_in_order(encoder: Encoder) -> None:
    images = scenes(5)
    rows = encoder.encode(images)
    check_unit(rows, 5, encoder.card.dim)
    assert np.einsum("nd,nd->n", encoder.encode(images[::-1])[::-1], rows).min() > 0.99999
    assert ((rows @ rows.T).argmax(axis=1) == np.arange(5)).all()
    assert len({row.tobytes() for row in rows}) == 5


def test_nothing_gives_no_rows(encoder: Encoder) -> None:
    check_unit(encoder.encode([]), 0, encoder.card.dim)


def test_the_batch_does_not_matter(encoder: Encoder) -> None:
    images = scenes(9) * 2
    together = encoder.encode(images)
    alone = np.concatenate([encoder.encode([image]) for image in images])
    assert np.einsum("nd,nd->n", together, alone).min() >= 0.99999
    assert np.array_equal(together, encoder.encode(images))


def test_several_threads_at_once(encoder: Encoder) -> None:
    images = scenes(3)
    expected = encoder.encode(images)
    with ThreadPoolExecutor(4) as pool:
        for rows in pool.map(lambda _: encoder.encode(images), range(8)):
            assert np.einsum("nd,nd->n", rows, expected).min() > 0.99999


def test_any_kind_of_pixels(encoder: Encoder) -> None:
    grey = scene()
    kinds = [
        grey,
        np.repeat(grey[:, :, None], 3, axis=2),
        np.stack([grey, grey[::-1], grey[:, ::-1]], axis=2),
        grey.astype(np.uint16) * 16,
        grey.astype(np.int16) * 8 - 1000,
        grey.astype(np.float32) / 255,
    ]
    for modality in ("", "CT", "MR"):
        rows = encoder.encode([Image(pixels, modality) for pixels in kinds])
        check_unit(rows, len(kinds), encoder.card.dim)
        assert np.array_equal(rows[0], rows[1]) or rows[0] @ rows[1] > 0.99999


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_empty_looking_frames_give_finite_unit_rows(encoder: Encoder, dtype: type) -> None:
    frames = [np.full((50, 40), value, dtype) for value in (0, 1, 100)]
    speck = np.zeros((50, 40), dtype)
    speck[20, 20] = 1
    check_unit(encoder.encode([Image(pixels) for pixels in (*frames, speck)]), 4, encoder.card.dim)


def test_frames_without_a_finite_value(encoder: Encoder) -> None:
    frames = [np.full((9, 9), value, np.float32) for value in (np.nan, np.inf, -np.inf)]
    check_unit(encoder.encode([Image(pixels) for pixels in frames]), 3, encoder.card.dim)


def test_tiny_huge_and_long_frames(encoder: Encoder) -> None:
    shapes = [(1, 1), (2, 3), (1, 3000), (3000, 1), (3000, 2500)]
    check_unit(encoder.encode([Image(scene(*shape)) for shape in shapes]), len(shapes), encoder.card.dim)


def test_the_card_tells_the_truth(encoder: Encoder, spec: str) -> None:
    card = encoder.card
    assert card.spec == spec
    assert card.fingerprint.startswith(f"{card.name}-")
    assert card.text == isinstance(encoder, TextEncoder)
    assert bool(card.weights_sha256) == (card.name != "classical")
    assert open_encoder(spec, device="cpu").card == card


def test_the_input_is_left_alone(encoder: Encoder) -> None:
    pixels = scene().astype(np.float32)
    pixels[0, 0] = np.nan
    before = pixels.copy()
    encoder.encode([Image(pixels)])
    assert np.array_equal(pixels, before, equal_nan=True)


PROGRAM = """
import sys, numpy as np
from retrieval.encoders import open_encoder
from retrieval.types import Image
frames = np.load(sys.argv[1])
names = [line.split("|", 1) for line in sys.stdin.read().splitlines()]
np.savez(sys.argv[2], **{
    name: open_encoder(spec, device="cpu").encode([Image(frame) for frame in frames]) for name, spec in names
})
"""


def test_another_process_and_other_threads_give_the_same_vectors(checkpoints: Path, tmp_path: Path) -> None:
    frames = np.stack([scene(seed=seed) for seed in range(4)])
    np.save(tmp_path / "frames.npy", frames)
    asked = "\n".join(f"{name}|{spec}" for name, spec in specs(checkpoints).items())
    for threads in ("1", "4"):
        subprocess.run(
            [sys.executable, "-c", PROGRAM, tmp_path / "frames.npy", tmp_path / f"{threads}.npz"],
            input=asked,
            text=True,
            check=True,
            timeout=250,
            env={**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "PYTHONHASHSEED": threads},
        )
    one, four = (np.load(tmp_path / f"{threads}.npz") for threads in ("1", "4"))
    for name, spec in specs(checkpoints).items():
        here = open_encoder(spec, device="cpu").encode([Image(frame) for frame in frames])
        for rows in (one[name], four[name]):
            assert np.einsum("nd,nd->n", rows, here).min() >= 0.99999
    assert np.array_equal(one["classical"], four["classical"])


# --- the fingerprint ---

CARD = EncoderCard(name="n", spec="n:1", dim=8, recipe=Recipe(name="r", size=(4, 4)), weights_sha256="ab")


@pytest.mark.parametrize(
    "changed",
    [
        replace(CARD, recipe=replace(CARD.recipe, resize="pad")),
        replace(CARD, recipe=replace(CARD.recipe, ct_window=(40.0, 401.0))),
        replace(CARD, recipe=replace(CARD.recipe, use_file_window=False)),
        replace(CARD, weights_sha256="cd"),
        replace(CARD, dtype="bfloat16"),
        replace(CARD, version="2"),
        replace(CARD, dim=9),
        replace(CARD, name="m"),
    ],
)
def test_the_fingerprint_follows_what_decides_a_vector(changed: EncoderCard) -> None:
    assert changed.fingerprint != CARD.fingerprint


def test_the_fingerprint_does_not_follow_what_decides_nothing() -> None:
    aside = replace(CARD, spec="n:elsewhere", licence="MIT", notes="x", text=True)
    assert aside.fingerprint == CARD.fingerprint
    # pinned: a new or renamed field of card or recipe would orphan every gallery there is
    assert CARD.fingerprint == "n-2321a1f3ed87"


# --- names ---


@pytest.mark.parametrize("spec", ["", "resnet50", "nothing:else", "timm:no_such_model", "open_clip:NoSuchModel/tag"])
def test_an_unknown_name_is_told_what_exists(spec: str) -> None:
    with pytest.raises(NotFoundError, match=r"families are|Near it|lists them"):
        open_encoder(spec)


@pytest.mark.parametrize("spec", ["classical:x", "timm:"])
def test_a_malformed_name_is_told_the_form(spec: str) -> None:
    with pytest.raises(UsageError, match="Expected"):
        open_encoder(spec)


def test_a_device_that_is_not_there_is_refused(checkpoints: Path) -> None:
    for device in ("cuda:77", "abacus"):
        with pytest.raises(UsageError, match=device):
            open_encoder(specs(checkpoints)["test_vit"], device=device)


def test_known_encoders_start_with_the_default_and_say_what_is_missing() -> None:
    entries = known_encoders()
    assert entries[0].spec == "classical"
    assert entries[0].missing == ""
    assert entries[0].dim == open_encoder("classical").card.dim
    assert {entry.spec.partition(":")[0] for entry in entries} == {"classical", "timm", "open_clip"}
    assert len({entry.spec for entry in entries}) == len(entries)


def test_listing_and_importing_load_no_heavy_library() -> None:
    program = (
        "import sys, retrieval, retrieval.encoders as e\n"
        "e.known_encoders(); e.open_encoder('classical')\n"
        "print([name for name in ('torch', 'timm', 'open_clip', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_weights_that_are_not_here_are_an_error_that_names_the_way_out(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from retrieval.encoders import open_encoder\n"
        "from retrieval.errors import NotFoundError\n"
        "for spec in sys.argv[1:]:\n"
        "    try:\n"
        "        open_encoder(spec)\n"
        "    except NotFoundError as error:\n"
        "        print(error)\n"
    )
    asked = ["timm:test_vit", "open_clip:ViT-B-32/laion2b_s34b_b79k", "open_clip:hf-hub:nobody/nothing"]
    done = subprocess.run(
        [sys.executable, "-c", program, *asked],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "TORCH_HOME": str(tmp_path)},
    )
    told = done.stdout.strip().splitlines()
    assert len(told) == len(asked)
    assert all("run once online, or give a local copy" in sentence for sentence in told)


# --- timm ---


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


def test_open_clip_never_answers_with_random_weights(tmp_path: Path) -> None:
    folder = make_open_clip(tmp_path / "clip")
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(UsageError, match="can't be used"):
        open_encoder(f"open_clip:local-dir:{folder}")
    with pytest.raises(NotFoundError, match="open_clip_config"):
        open_encoder(f"open_clip:local-dir:{tmp_path}")
    with pytest.raises(NotFoundError, match="laion2b"):
        open_encoder("open_clip:ViT-B-32")
