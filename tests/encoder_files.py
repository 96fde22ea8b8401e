"""Small checkpoints with random weights of a fixed seed, and frames to encode."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.types import Image, Pixels
from tests.medimageinsight_files import make_folder
from tests.model_files import make_exported, make_onnx, make_script, sha256, write_card
from tests.transformers_files import KINDS, make_transformers

TIMM_MODELS = ("test_vit", "test_resnet", "mobilenetv3_small_050")
OPEN_CLIP_CONFIG = {
    "model_cfg": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
    },
    "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "interpolation": "bicubic", "fill_color": 7},
}


def make_checkpoints(folder: Path) -> Path:
    """One checkpoint of every family whose libraries are here; ``specs`` names them."""
    import torch

    torch.set_num_threads(1)  # nets this small are slower on several, above all beside other test processes
    for name in TIMM_MODELS:
        make_timm(name, folder / f"{name}.safetensors")
    make_open_clip(folder / "clip")
    make_folder(folder / "medimageinsight")
    for kind in TRANSFORMERS:
        make_transformers(kind, folder / kind)
    for name in ONNX:
        write_card(make_onnx(folder / f"{name}.onnx"))
    for model in (make_exported(folder / "net.pt2"), make_script(folder / "net.pt")):
        write_card(model, sha256=sha256(model))
    return folder


def specs(folder: Path) -> dict[str, str]:
    """Every encoder that can be opened here, by a name of its own."""
    return {
        "compact": "compact",
        "classical": "classical",
        **{name: f"timm:{name}@{folder / name}.safetensors" for name in TIMM_MODELS},
        "open_clip": f"open_clip:local-dir:{folder / 'clip'}",
        "medimageinsight": f"medimageinsight:{folder / 'medimageinsight'}",
        **{kind: f"transformers:{folder / kind}" for kind in TRANSFORMERS},
        **{name: f"onnx:{folder / name}.onnx" for name in ONNX},
        "exported": f"torch:{folder / 'net.pt2'}",
        "script": f"torch:{folder / 'net.pt'}",
    }


def installed(*libraries: str) -> bool:
    return all(find_spec(library) for library in libraries)


TRANSFORMERS = KINDS if installed("transformers") else ()
ONNX = ("onnx_net",) if installed("onnx", "onnxruntime") else ()
NAMES = tuple(specs(Path()))


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


def make_biomedclip(folder: Path) -> Any:
    """A folder as BiomedCLIP's: the text tower is a BERT of transformers, named as on the hub, its config beside."""
    import open_clip
    import torch
    from transformers import BertConfig, BertTokenizerFast

    (folder / "text").mkdir(parents=True)
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "chest", "x", "-", "ray", "normal", "heart")
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertConfig(**small, vocab_size=len(words)).save_pretrained(folder / "text")
    config = json.loads(json.dumps(OPEN_CLIP_CONFIG))
    named = {"hf_model_name": "microsoft/not-here", "hf_tokenizer_name": "microsoft/not-here", "context_length": 16}
    built = {**named, "hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler"}
    torch.manual_seed(0)
    local = {**built, "hf_model_name": str(folder / "text"), "hf_model_pretrained": False}
    model = open_clip.model.CustomTextCLIP(**{**config["model_cfg"], "text_cfg": local}).eval()
    config["model_cfg"]["text_cfg"] = built
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save(model, folder / "open_clip_model.safetensors")
    return model


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
