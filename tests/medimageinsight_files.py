"""Checkpoints of the MedImageInsight architecture, small and with random weights, in every form they circulate in."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

Tensors = dict[str, npt.NDArray[np.float32]]

PUBLISHED = """
IMAGE_ENCODER:
  NAME: davit_v1
  NUM_CLASSES: 0
  IMAGE_SIZE: [480, 480]
  LOAD_PRETRAINED: true
  PRETRAINED: ''
  PRETRAINED_LAYERS: '*'
  IMAGE_MEAN: [0.485, 0.456, 0.406]
  IMAGE_STD: [0.229, 0.224, 0.225]
  SPEC:
    DROP_RATE: 0.1
    DROP_PATH_RATE: 0.2
    PATCH_SIZE: [7, 3, 3, 3]
    PATCH_STRIDE: [4, 2, 2, 2]
    PATCH_PADDING: [3, 1, 1, 1]
    PATCH_PRENORM: [false, true, true, true]
    DIM_EMBED: [256, 512, 1024, 2048]
    NUM_HEADS: [8, 16, 32, 64]
    NUM_GROUPS: [8, 16, 32, 64]
    DEPTHS: [1, 1, 9, 1]
    WINDOW_SIZE: 12
    ENABLE_CHECKPOINT: true
LANG_ENCODER:
  NAME: transformer
  LOAD_PRETRAINED: false
  PRETRAINED: ''
  PRETRAINED_LAYERS: '*'
  TOKENIZER: clip
  CONTEXT_LENGTH: 77
  WIDTH: 1024
  HEADS: 16
  LAYERS: 16
  AUTOGRESSIVE: false
UNICL_MODEL:
  DIM_PROJECTION: 1024
  GATHER_TENSORS: true
AUG:
  INTERPOLATION: bicubic
TEST:
  CENTER_CROP: false
"""

_SMALL_STAGES = {
    "PATCH_SIZE": [7, 3], "PATCH_STRIDE": [4, 2], "PATCH_PADDING": [3, 1], "PATCH_PRENORM": [False, True],
    "DIM_EMBED": [8, 16], "NUM_HEADS": [1, 2], "NUM_GROUPS": [2, 4], "DEPTHS": [1, 2], "WINDOW_SIZE": 4,
}  # fmt: skip


def small_config() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(PUBLISHED)
    config["IMAGE_ENCODER"]["IMAGE_SIZE"] = [48, 48]
    config["IMAGE_ENCODER"]["SPEC"].update(copy.deepcopy(_SMALL_STAGES))
    config["LANG_ENCODER"].update(CONTEXT_LENGTH=16, WIDTH=12, HEADS=3, LAYERS=2)
    config["UNICL_MODEL"]["DIM_PROJECTION"] = 10
    return config


def make_folder(
    folder: Path, config: dict[str, Any] | None = None, *, seed: int = 0, merges: int = 200, change: Any = None
) -> Path:
    """A folder as published. ``change`` is called with the tensors before they are saved."""
    config = config or small_config()
    vocabulary = write_tokenizer(folder / "language_model" / "clip_tokenizer_4.16.2", merges)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    tensors = random_tensors(config, vocabulary, seed)
    if change:
        change(tensors)
    save(tensors, folder / "vision_model" / "medimageinsigt-v1.0.0.pt")
    return folder


def save(tensors: Tensors, path: Path) -> None:
    from safetensors.numpy import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)


def read(path: Path) -> Tensors:
    from safetensors.numpy import load_file

    return dict(load_file(path))


def write_tokenizer(folder: Path, merges: int | None = None) -> int:
    """CLIP's own vocabulary (from open_clip), or one with its first ``merges`` merges; the number of tokens."""
    from open_clip.tokenizer import SimpleTokenizer

    clip = SimpleTokenizer()
    pairs = sorted(clip.bpe_ranks, key=lambda pair: clip.bpe_ranks[pair])[:merges]
    tokens = sorted(clip.encoder, key=lambda token: clip.encoder[token])[: 512 + len(pairs)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    numbered = {token: number for number, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(numbered), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in pairs)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(tokens)


def random_tensors(config: dict[str, Any], vocabulary: int, seed: int) -> Tensors:
    """Weights large enough that every term of the architecture shows in a vector."""
    random = np.random.default_rng(seed)
    tensors: Tensors = {}
    for name, shape in shapes(config, vocabulary):
        vector = len(shape) < 2
        deviation = 0.02 if "embedding" in name else 0.1 if vector else 1.2 / np.sqrt(np.prod(shape[1:]))
        tensors[name] = random.normal(0, deviation, shape).astype(np.float32)
        if "norm" in name.rpartition(".")[0].rpartition(".")[2] or ".ln_" in name:
            tensors[name] += np.float32(name.endswith("weight"))
    tensors["logit_scale"] = np.array(3.3, np.float32)
    return tensors


def shapes(config: dict[str, Any], vocabulary: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor of a checkpoint, by its published name."""
    image, spec, lang = config["IMAGE_ENCODER"], config["IMAGE_ENCODER"]["SPEC"], config["LANG_ENCODER"]
    before, dim = 3, config["UNICL_MODEL"]["DIM_PROJECTION"]
    for stage, width in enumerate(spec["DIM_EMBED"]):
        patch, normed = spec["PATCH_SIZE"][stage], before if spec["PATCH_PRENORM"][stage] else width
        yield from _both(f"image_encoder.convs.{stage}.proj", (width, before, patch, patch))
        yield from _both(f"image_encoder.convs.{stage}.norm", (normed,))
        for block in range(spec["DEPTHS"][stage]):
            for kind, attention in (("spatial", "window_attn"), ("channel", "channel_attn")):
                yield from _block(f"image_encoder.blocks.{stage}.{block}.{kind}_block", attention, width, spec)
        before = width
    yield from _both("image_encoder.norms", (before,))
    if image["NUM_CLASSES"]:
        yield from _both("image_encoder.head", (image["NUM_CLASSES"], before))
    width = lang["WIDTH"]
    yield "lang_encoder.token_embedding.weight", (vocabulary, width)
    yield "lang_encoder.positional_embedding", (lang["CONTEXT_LENGTH"], width)
    for layer in range(lang["LAYERS"]):
        yield from _text_layer(f"lang_encoder.resblocks.{layer}", width)
    yield from _both("lang_encoder.ln_final", (width,))
    yield "image_projection", (before, dim)
    yield "lang_projection", (width, dim)
    yield "logit_scale", ()


def _block(name: str, attention: str, width: int, spec: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    for key, conv in (("CONV_AT_ATTN", "conv1"), ("CONV_AT_FFN", "conv2")):
        if spec.get(key, True):
            yield from _both(f"{name}.{conv}.fn.dw", (width, 1, 3, 3))
    yield from _both(f"{name}.{attention}.norm", (width,))
    yield from _both(f"{name}.{attention}.fn.qkv", (3 * width, width))
    yield from _both(f"{name}.{attention}.fn.proj", (width, width))
    yield from _both(f"{name}.ffn.norm", (width,))
    yield from _both(f"{name}.ffn.fn.net.fc1", (4 * width, width))
    yield from _both(f"{name}.ffn.fn.net.fc2", (width, 4 * width))


def _text_layer(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.attn.in_proj_weight", (3 * width, width)
    yield f"{name}.attn.in_proj_bias", (3 * width,)
    yield from _both(f"{name}.attn.out_proj", (width, width))
    yield from _both(f"{name}.ln_1", (width,))
    yield from _both(f"{name}.mlp.c_fc", (4 * width, width))
    yield from _both(f"{name}.mlp.c_proj", (width, 4 * width))
    yield from _both(f"{name}.ln_2", (width,))


def _both(name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


_OLDER = (  # published -> older, in the order to be applied
    ("image_encoder.convs.", "visual.conv_embeds."),
    ("image_encoder.blocks.", "visual.main_blocks."),
    ("image_encoder.", "visual."),
    ("lang_encoder.", "text."),
    ("image_projection", "vision_projection"),
    ("lang_projection", "text_projection"),
    *(
        (f"{block}.{new}", f"{number}.{old}")
        for number, block, attention in ((0, "spatial_block", "window_attn"), (1, "channel_block", "channel_attn"))
        for new, old in (
            ("conv1.fn.dw", "cpe.0.proj"), ("conv2.fn.dw", "cpe.1.proj"), (f"{attention}.fn", "attn"),
            (f"{attention}.norm", "norm1"), ("ffn.fn.net", "mlp"), ("ffn.norm", "norm2"),
        )
    ),
)  # fmt: skip


def older(name: str) -> str:
    """The older name of a published one."""
    for new, old in _OLDER:
        name = name.replace(new, old)
    return name


def copy_as(source: Path, target: Path, rename: Callable[[str], str] = str, *, second_layout: bool = False) -> Path:
    """The same model with other key names, or file names of the second layout."""
    import shutil

    shutil.copytree(source, target)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755)
    weights = target / "vision_model" / "medimageinsigt-v1.0.0.pt"
    save({rename(name): tensor for name, tensor in read(weights).items()}, target / "again")
    weights.unlink()
    (target / "again").rename(weights.with_name("medimageinsight-v1.0.0.pt") if second_layout else weights)
    if second_layout:
        tokenizer = target / "language_model" / "clip_tokenizer_4.16.2"
        tokenizer.rename(tokenizer.with_name("clip_tokenizer_v4162"))
        (target / "language_model" / "language_model.pth").write_bytes(b"never read")
    return target
