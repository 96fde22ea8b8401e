"""Image towers of transformers, and text towers where there are any: ``transformers:ORG/NAME[@REVISION]`` from the hub
or its cache, ``transformers:FOLDER`` from a local copy, without a network.

DINOv2 (RAD-DINO, Curia), DINOv3, ViT: the pooled output, which is the class token. SigLIP (MedSigLIP), CLIP: the
image's features in the space of texts. Weights are read from safetensors alone; code that comes with a model is never
run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval.encoders.base import EncoderCard, KnownEncoder
from retrieval.encoders.text_tower import ImageTextTowers, Tokenizer
from retrieval.encoders.tower import ImageTower, choose_device, inference
from retrieval.encoders.transformers_recipe import recipe_of
from retrieval.encoders.weights import absolute, cached_on_hub, check_loaded, one_line, read_object, state_sha256
from retrieval.errors import MissingExtra, NotFoundError, UsageError

if TYPE_CHECKING:
    import torch

_TWO_TOWERS = ("siglip", "clip")
_IMAGE_ONLY = ("dinov2", "dinov2_with_registers", "dinov3_vit", "dinov3_convnext", "vit")
_FETCHED = ["config.json", "preprocessor_config.json", "model*.safetensors", "model.safetensors.index.json",
            "tokenizer*", "special_tokens_map.json", "vocab.*", "merges.txt", "spiece.model"]  # fmt: skip
_NOT_DECIDING = {"_name_or_path", "architectures", "auto_map", "dtype", "torch_dtype", "transformers_version",
                 "id2label", "label2id", "problem_type"}  # fmt: skip
_EXTRA = ("classifier", "pooler", "position_ids")  # parts of names that files have and no image's vector needs
_LOCAL = "give a local copy as transformers:FOLDER"

# ORG/NAME, dim, side, licence, text, notes
_WELL_KNOWN = (
    ("google/medsiglip-448", 1152, 448, "Health AI Developer Foundations terms", True, "gated"),
    ("microsoft/rad-dino", 768, 518, "MSRLA", False, "chest X-ray"),
    ("facebook/dinov2-base", 768, 224, "Apache-2.0", False, ""),
    ("facebook/dinov3-vits16-pretrain-lvd1689m", 384, 224, "DINOv3 licence", False, "gated"),
    ("raidium/curia-2", 768, 512, "RAIL-M, research only", False, "CT and MR slices, raw intensities; gated"),
)


def known() -> Sequence[KnownEncoder]:
    """A few well-known models; any other of the architectures above works the same way."""
    library = "" if find_spec("transformers") else "the library 'transformers': pip install 'precedent[transformers]'"
    entries = []
    for name, dim, side, licence, text, notes in _WELL_KNOWN:
        entries.append(
            KnownEncoder(
                spec=f"transformers:{name}",
                dim=dim,
                recipe=None,
                licence=licence,
                missing=library or ("" if cached_on_hub(name) else f"its weights: run once online, or {_LOCAL}"),
                text=text,
                notes=notes,
                size=(side, side),
                recipe_name="curia" if "curia" in name else "transformers",
            )
        )
    local = "a folder as save_pretrained writes it"
    entries.append(KnownEncoder("transformers:FOLDER", None, None, "as its weights", library, notes=local))
    return entries


def open_encoder(rest: str, device: str | None) -> ImageTower:
    """``rest``: ``ORG/NAME``, ``ORG/NAME@REVISION`` or a folder."""
    if not rest:
        raise UsageError("Expected transformers:ORG/NAME or transformers:FOLDER; the name is empty.")
    if find_spec("transformers") is None:
        raise MissingExtra("transformers", "transformers")
    chosen = choose_device(device)
    rest = full_spec(rest)
    folder = _folder(rest)
    config = _read_config(folder)
    model = _load(folder, config)
    recipe = recipe_of(folder, _channels(config))
    two = config["model_type"] in _TWO_TOWERS
    tokenizer, why_not = _tokenizer(folder, config) if two else (None, "")
    images = _image_module(model, two)
    card = EncoderCard(
        name="transformers",
        spec=f"transformers:{rest}",
        dim=_dim(images, recipe.channels, recipe.size),
        recipe=recipe,
        weights_sha256=state_sha256(model.state_dict(), _deciding(config)),
        licence=next((licence for name, _, _, licence, _, _ in _WELL_KNOWN if name == rest.partition("@")[0]), ""),
        text=tokenizer is not None,
        logit_scale=math.exp(float(model.logit_scale)) if two else None,
        logit_bias=float(model.logit_bias) if hasattr(model, "logit_bias") else None,
        notes=why_not,
    )
    model.to(chosen)
    if tokenizer is None:
        return ImageTower(card, images, chosen)
    return ImageTextTowers(card, images, lambda ids: _pooled(model.get_text_features(input_ids=ids)), tokenizer, chosen)


def full_spec(rest: str) -> str:
    """A folder's path made absolute, so that a gallery opens from anywhere; a name of the hub as it is."""
    local = absolute(rest)
    return str(local) if local.is_dir() else rest


def _folder(rest: str) -> Path:
    """The local folder, or that of the hub's snapshot."""
    local = Path(rest).expanduser()
    if local.is_dir():
        return local
    name, _, revision = rest.partition("@")
    if local.is_absolute() or rest.startswith((".", "~")) or name.count("/") != 1:
        raise NotFoundError(f"There is no folder {local}: expected transformers:ORG/NAME or an existing folder.")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=_FETCHED))
    except Exception as error:
        raise NotFoundError(
            f"The weights of transformers:{rest} are not on this machine and could not be fetched ({one_line(error)}): "
            f"run once online, or {_LOCAL}. For a gated model, ask for access on its page first."
        ) from error


def _read_config(folder: Path) -> Mapping[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        raise NotFoundError(f"There is no config.json in {folder}: expected a folder as transformers saves it.")
    config = read_object(file, "transformers")
    kind = config.get("model_type")
    if kind not in (*_TWO_TOWERS, *_IMAGE_ONLY):
        raise UsageError(
            f"The model in {folder} is of type '{kind}'; image towers can be had of "
            f"{', '.join((*_TWO_TOWERS, *_IMAGE_ONLY))}. Others can be exported to ONNX and opened as onnx:PATH."
        )
    return config


def _load(folder: Path, config: Mapping[str, Any]) -> Any:
    """The model in float32, eval mode, every tensor from the file. A head for classes in the weights is left out."""
    import torch
    from transformers import AutoModel

    if not any(folder.glob("*.safetensors")):
        raise NotFoundError(
            f"There are no weights as safetensors in {folder}: other formats can hold code and are not read."
        )
    options = {"add_pooling_layer": False} if config["model_type"] == "vit" else {}
    try:
        with _quietly():
            model, report = AutoModel.from_pretrained(
                folder,
                trust_remote_code=False,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                **options,
            )
    except Exception as error:
        raise UsageError(
            f"The weights in {folder} can't be used ({one_line(error)}): check that they belong to its config.json."
        ) from error
    check_loaded(f"the model in {folder}", report, absent=("mask_token",), extra=_EXTRA)
    for name, tensor in model.state_dict().items():
        if name.endswith("mask_token"):  # of training alone; some files lack it, and the hash covers all tensors
            tensor.zero_()
    return model.eval().requires_grad_(False)


@contextmanager
def _quietly() -> Iterator[None]:
    """No progress bars and no reports: what does not fit is told by us. The caller's settings come back after."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def _image_module(model: Any, two_towers: bool) -> torch.nn.Module:
    """A module from pixels [n, channels, rows, columns] to rows [n, dim]."""
    import torch

    class Pooled(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            whole = self.model.get_image_features(pixel_values=pixels) if two_towers else self.model(pixels)
            return _pooled(whole)

    return Pooled().eval()


def _pooled(output: Any) -> torch.Tensor:
    """The pooled output; the class token where a model has no pooled one, and a plain tensor as it is."""
    import torch

    if isinstance(output, torch.Tensor):
        return output
    pooled: torch.Tensor | None = output.pooler_output
    if pooled is not None:
        return pooled
    token: torch.Tensor = output.last_hidden_state[:, 0]
    return token


def _dim(images: torch.nn.Module, channels: int, size: tuple[int, int]) -> int:
    import torch

    try:
        with inference():
            return int(images(torch.zeros(1, channels, *size)).shape[1])
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"The model does not take the {size[0]} x {size[1]} frames its preprocessor_config.json prepares "
            f"({one_line(error)}): the two files do not belong together."
        ) from error


def _channels(config: Mapping[str, Any]) -> int:
    part = config.get("vision_config") or config
    return int(part.get("num_channels", 3))


def _tokenizer(folder: Path, config: Mapping[str, Any]) -> tuple[Tokenizer | None, str]:
    """The model's tokenizer, or None and why it can't be had; images can be encoded without it."""
    from transformers import AutoTokenizer

    try:
        words = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # noqa: BLE001 - whatever a tokenizer's library raises, it is the text tower alone
        return None, f"no text: its tokenizer can't be loaded ({one_line(error)})"
    default = 64 if config["model_type"] == "siglip" else 77
    context = int((config.get("text_config") or {}).get("max_position_embeddings", default))

    def tokens(texts: list[str]) -> torch.Tensor:
        ids: torch.Tensor = words(
            texts, padding="max_length", truncation=True, max_length=context, return_tensors="pt"
        )["input_ids"]
        return ids

    return tokens, ""


def _deciding(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of config.json that decides vectors: not who wrote it, when, or in what type it was stored."""
    return {
        name: _deciding(value) if isinstance(value, dict) else value
        for name, value in config.items()
        if name not in _NOT_DECIDING
    }
