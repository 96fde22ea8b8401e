"""What a MedImageInsight folder may look like, and what is refused with a sentence that names the fault."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from retrieval.encoders import full_spec, known_encoders, open_encoder
from retrieval.encoders.medimageinsight import open_encoder as open_folder
from retrieval.encoders.medimageinsight.config import read_config
from retrieval.encoders.medimageinsight.keys import published, published_names
from retrieval.errors import NotFoundError, UsageError
from tests.medimageinsight_files import (
    PUBLISHED,
    Tensors,
    copy_as,
    make_folder,
    older,
    read,
    save,
    shapes,
    small_config,
)

WEIGHTS = "vision_model/medimageinsigt-v1.0.0.pt"
TOKENIZER = "language_model/clip_tokenizer_4.16.2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


# --- names ---


def test_every_older_name_is_understood() -> None:
    names = [name for name, _ in shapes(yaml.safe_load(PUBLISHED), 49408)]
    assert len({older(name) for name in names}) == len(names)
    for name in names:
        assert published(older(name)) == name == published(name)
    assert (
        older("image_encoder.blocks.2.8.channel_block.channel_attn.fn.qkv.bias")
        == "visual.main_blocks.2.8.1.attn.qkv.bias"
    )


def test_one_tensor_under_two_names_is_refused() -> None:
    with pytest.raises(UsageError, match="two names, image_projection and vision_projection"):
        published_names(["image_projection", "vision_projection"])


def test_all_that_does_not_fit_is_told_in_published_names(copied: Path) -> None:
    tensors = {older(name): tensor for name, tensor in read(copied / WEIGHTS).items()}
    tensors["visual.extra.weight"] = tensors.pop("visual.norms.bias")
    tensors["text_projection"] = tensors["text_projection"][:, :3].copy()
    save(tensors, copied / WEIGHTS)
    with pytest.raises(UsageError) as refused:
        open_folder(str(copied), "cpu")
    for words in (
        "1 missing (image_encoder.norms.bias)",
        "1 unexpected (image_encoder.extra.weight)",
        "1 of another shape (lang_projection (12, 3))",
    ):
        assert words in str(refused.value)


def test_weights_of_another_configuration_are_refused(copied: Path) -> None:
    config = small_config()
    config["IMAGE_ENCODER"]["SPEC"]["DEPTHS"] = [1, 1]
    (copied / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UsageError, match=r"unexpected \(image_encoder\.blocks\.1\.1\."):
        open_folder(str(copied), "cpu")


@pytest.mark.parametrize("logarithm", [float("nan"), float("inf"), float("-inf"), 1000.0])
def test_a_scale_that_makes_no_probabilities_is_refused(copied: Path, logarithm: float) -> None:
    tensors = read(copied / WEIGHTS)
    tensors["logit_scale"] = np.full_like(tensors["logit_scale"], logarithm)
    save(tensors, copied / WEIGHTS)
    with pytest.raises(UsageError, match="logit_scale"):
        open_folder(str(copied), "cpu")


# --- files ---


def test_a_mirror_with_its_own_names_opens(folder: Path, copied: Path, tmp_path: Path) -> None:
    (copied / WEIGHTS).rename(copied / "model.safetensors")
    (copied / "vision_model").rmdir()
    (copied / TOKENIZER).rename(copied / "language_model" / "bpe")
    first = open_folder(str(folder), "cpu").card
    assert open_folder(str(copied), "cpu").card.fingerprint == first.fingerprint


def test_a_path_may_be_relative_or_under_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HOME", str(folder.parent))
    for name in (folder.name, f"./{folder.name}", f"~/{folder.name}"):
        spec = f"medimageinsight:{name}?recipe=jpeg-512-q75-v1"
        full = f"medimageinsight:{folder}?recipe=jpeg-512-q75-v1"
        assert open_encoder(spec, device="cpu").card.spec == full_spec(spec) == full


def test_a_pickle_is_refused_and_never_run(copied: Path, tmp_path: Path) -> None:
    import torch

    class Exploit:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"image_projection": Exploit()}, copied / WEIGHTS)
    with pytest.raises(UsageError, match=r"not in safetensors format .* pickled checkpoints are not read"):
        open_folder(str(copied), "cpu")
    assert not (tmp_path / "ran").exists()


def test_an_unfetched_file_of_git_lfs_is_told_as_such(copied: Path) -> None:
    (copied / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(UsageError, match="git lfs pull"):
        open_folder(str(copied), "cpu")


def test_absent_files_are_named(copied: Path) -> None:
    with pytest.raises(UsageError, match="medimageinsight:FOLDER"):
        open_encoder("medimageinsight:")
    with pytest.raises(NotFoundError, match=r"no config\.yaml in .* name its folder copy instead"):
        open_folder(str(copied.parent), "cpu")
    with pytest.raises(NotFoundError, match=r"no config\.yaml in .*nowhere"):
        open_folder(str(copied / "nowhere"), "cpu")
    (copied / TOKENIZER / "merges.txt").unlink()
    with pytest.raises(NotFoundError, match=r"no tokenizer \(vocab\.json and merges\.txt\)"):
        open_folder(str(copied), "cpu")


def test_weights_are_never_guessed(copied: Path) -> None:
    (copied / WEIGHTS).rename(copied / "vision_model" / "a.pt")
    shutil.copy(copied / "vision_model" / "a.pt", copied / "vision_model" / "b.pt")
    with pytest.raises(UsageError, match=r"several weights files \(a\.pt, b\.pt\)"):
        open_folder(str(copied), "cpu")
    for name in "ab":
        (copied / "vision_model" / f"{name}.pt").unlink()
    with pytest.raises(NotFoundError, match="no weights file vision_model/medimageinsigt"):
        open_folder(str(copied), "cpu")


@pytest.mark.parametrize("content", ["not json", "[1]", '{"a": 0, "b": 2}', '{"a": 0, "b": 1}', '{"a": true}'])
def test_a_damaged_vocabulary_is_refused(copied: Path, content: str) -> None:
    (copied / TOKENIZER / "vocab.json").write_text(content)
    with pytest.raises(UsageError, match=r"vocab\.json|can't be read"):
        open_folder(str(copied), "cpu")


# --- the configuration ---


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("IMAGE_ENCODER.NAME", "swin", "IMAGE_ENCODER.NAME must be 'davit_v1'"),
        ("IMAGE_ENCODER.SPEC.STANDPARAM", False, "SPEC.STANDPARAM must be True"),
        ("IMAGE_ENCODER.SPEC.MLP_RATIO", 2, "keys not understood here (IMAGE_ENCODER.SPEC.MLP_RATIO)"),
        ("IMAGE_ENCODER.SPEC.DEPTHS", None, "lacks IMAGE_ENCODER.SPEC.DEPTHS"),
        ("IMAGE_ENCODER.SPEC.DEPTHS", [1, 0], "SPEC.DEPTHS must be whole numbers of at least 1"),
        ("IMAGE_ENCODER.SPEC.PATCH_SIZE", [7, 3, 3], "SPEC.PATCH_SIZE must be a list of 2"),
        ("IMAGE_ENCODER.SPEC.PATCH_PRENORM", [0, 1], "SPEC.PATCH_PRENORM must be true or false"),
        ("IMAGE_ENCODER.SPEC.NUM_HEADS", [3, 2], "SPEC.NUM_HEADS [3, 2] must divide IMAGE_ENCODER.SPEC.DIM_EMBED"),
        ("IMAGE_ENCODER.SPEC.NUM_GROUPS", [1, 5], "NUM_GROUPS [1, 5] must divide"),
        ("IMAGE_ENCODER.IMAGE_SIZE", 480, "IMAGE_SIZE must be a list of 2"),
        ("IMAGE_ENCODER.IMAGE_STD", ["a", 1, 1], "IMAGE_STD must be numbers"),
        ("IMAGE_ENCODER.IMAGE_STD", [0, 1, 1], "std must be over 0"),
        ("LANG_ENCODER.TOKENIZER", "zcode", "LANG_ENCODER.TOKENIZER must be 'clip'"),
        ("LANG_ENCODER.HEADS", 5, "LANG_ENCODER.HEADS [5] must divide"),
        ("LANG_ENCODER.WIDTH", "12", "LANG_ENCODER.WIDTH must be a whole number"),
        ("LANG_ENCODER.AUTOGRESSIVE", "no", "LANG_ENCODER.AUTOGRESSIVE must be true or false"),
        ("LANG_ENCODER.POOLING", "mean", "keys not understood here (LANG_ENCODER.POOLING)"),
        ("UNICL_MODEL.DIM_PROJECTION", None, "lacks UNICL_MODEL.DIM_PROJECTION"),
        ("UNICL_MODEL.STANDPARAM", False, "UNICL_MODEL.STANDPARAM must be True"),
        ("AUG.INTERPOLATION", "quartic", "interpolation must be one of"),
        ("AUG", [], "AUG must be a table"),
    ],
)
def test_a_key_that_can_not_be_honoured_is_named(tmp_path: Path, key: str, value: Any, words: str) -> None:
    config: Any = small_config()
    table = config
    *path, last = key.split(".")
    for name in path:
        table = table[name]
    table[last] = value
    if value is None:
        del table[last]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UsageError) as refused:
        read_config(tmp_path / "config.yaml")
    assert words in str(refused.value)


@pytest.mark.parametrize("content", ["a: [", "- 1", "!!python/object/apply:os.mkdir [ran]", "\x00", ""])
def test_a_configuration_that_is_no_plain_table_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(UsageError, match=r"config\.yaml"):
        read_config(tmp_path / "config.yaml")
    assert not (tmp_path / "ran").exists() and not Path("ran").exists()


def test_the_list_of_encoders_tells_what_is_missing() -> None:
    entries = [entry for entry in known_encoders() if entry.spec.startswith("medimageinsight:")]
    assert len(entries) == 2
    for entry in entries:
        assert (entry.dim, entry.licence, entry.text) == (1024, "MIT", True)
        assert entry.recipe is not None and entry.recipe.size == (480, 480)
        assert "FOLDER" in entry.missing
    assert entries[0].recipe != entries[1].recipe


def test_copies_hold_the_same_tensors(folder: Path, tmp_path: Path) -> None:
    copied: Tensors = read(copy_as(folder, tmp_path / "older", older) / WEIGHTS)
    assert {older(name) for name in read(folder / WEIGHTS)} == copied.keys()
    assert not any(name.startswith(("image_", "lang_")) for name in copied)
