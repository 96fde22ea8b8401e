"""Models of open_clip, image and text: ``open_clip:NAME/PRETRAINED``, ``open_clip:hf-hub:ORG/NAME``,
``open_clip:local-dir:PATH``.

PRETRAINED is a tag of open_clip or a path to a weights file. A folder holds ``open_clip_config.json`` and the weights,
as open_clip publishes them; it needs no network.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval.encoders.base import EncoderCard, KnownEncoder
from retrieval.encoders.recipe import Recipe
from retrieval.encoders.text_tower import ImageTextTowers
from retrieval.encoders.tower import ImageTower, choose_device, inference
from retrieval.encoders.weights import absolute, cached_on_hub, one_line, state_sha256
from retrieval.errors import MissingExtra, NotFoundError, UsageError

if TYPE_CHECKING:
    import torch

_RESIZES = {"shortest": "crop", "squash": "squash", "longest": "pad"}  # open_clip's resize_mode
_HUB, _FOLDER = "hf-hub:", "local-dir:"
_CONFIG = "open_clip_config.json"
_TEXT = "text"  # the folder in a model's folder for the configuration of a text tower of transformers
_BIOMEDCLIP = "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"


def known() -> Sequence[KnownEncoder]:
    """Two well-known models; any other name of open_clip works the same way."""
    return (
        KnownEncoder(
            f"open_clip:{_HUB}{_BIOMEDCLIP}",
            512,
            None,
            "MIT",
            _missing(_BIOMEDCLIP, hf_text=True),
            text=True,
            size=(224, 224),
            recipe_name="open_clip",
        ),
        KnownEncoder(
            "open_clip:ViT-B-32/laion2b_s34b_b79k",
            512,
            None,
            "MIT",
            _missing("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", hf_text=False),
            text=True,
            size=(224, 224),
            recipe_name="open_clip",
        ),
        KnownEncoder(
            f"open_clip:{_FOLDER}PATH",
            None,
            None,
            "as its weights",
            text=True,
            notes=f"a folder with {_CONFIG} and weights",
        ),
    )


def open_encoder(rest: str, device: str | None) -> ImageTower:
    """``rest``: ``NAME/PRETRAINED``, ``hf-hub:ORG/NAME`` or ``local-dir:PATH``."""
    rest = full_spec(rest)
    chosen = choose_device(device)
    model, config = _named(rest) if not rest.startswith((_HUB, _FOLDER)) else _by_schema(rest)
    model = model.eval().requires_grad_(False)
    tokenizer, why_not = _tokenizer(rest)
    card = _card(rest, model, config, tokenizer is not None, why_not)
    model = model.to(chosen)
    if tokenizer is None:
        return ImageTower(card, model.encode_image, chosen)
    return ImageTextTowers(card, model.encode_image, model.encode_text, tokenizer, chosen)


def full_spec(rest: str) -> str:
    """A path in it made absolute, so that a gallery opens from any folder."""
    if rest.startswith(_FOLDER):
        return f"{_FOLDER}{absolute(rest.removeprefix(_FOLDER))}"
    name, _, pretrained = rest.partition("/")
    local = absolute(pretrained)
    return f"{name}/{local}" if not rest.startswith(_HUB) and local.is_file() else rest


def _named(rest: str) -> tuple[torch.nn.Module, Mapping[str, Any]]:
    """A model of open_clip's own list with the weights of a tag or a file."""
    library = _library()
    name, _, pretrained = rest.partition("/")
    config = library.get_model_config(name) if name else None
    if config is None:
        near = [known for known in library.list_models() if name and name[:5].lower() in known.lower()][:5]
        hint = f"Near it: {', '.join(near)}." if near else "open_clip.list_models() lists them."
        raise NotFoundError(f"open_clip has no model '{name}'. {hint}")
    tags = library.list_pretrained_tags_by_model(name)
    path = Path(pretrained).expanduser()
    if pretrained not in tags and not path.is_file():
        offered = ", ".join(tags) if tags else "none, so a path"
        raise NotFoundError(
            f"Expected open_clip:{name}/PRETRAINED with a weights file or one of: {offered}; got '{pretrained}'."
        )
    source = pretrained if pretrained in tags else str(path)
    trained_with = library.get_pretrained_cfg(name, pretrained) if pretrained in tags else {}
    quick = bool(trained_with.get("quick_gelu", False))  # the activation the weights were trained with decides
    model = _create(name, rest, pretrained=source, force_quick_gelu=quick)
    return model, {**config, "quick_gelu": quick or bool(config.get("quick_gelu", False))}


def _by_schema(rest: str) -> tuple[torch.nn.Module, Mapping[str, Any]]:
    """A model that brings its configuration along, from the hub or a folder."""
    if rest.startswith(_FOLDER):
        file = Path(rest.removeprefix(_FOLDER)).expanduser() / _CONFIG
        if not file.is_file():
            raise NotFoundError(f"There is no {_CONFIG} in {file.parent}: expected a folder as open_clip publishes it.")
        rest = f"{_FOLDER}{file.parent}"
    else:
        file = _hub_config(rest)
    try:
        config = json.loads(file.read_text(encoding="utf-8"))["model_cfg"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"The file {file} is not a configuration of open_clip ({one_line(error)}): fetch it again."
        ) from error
    config = {**config, "quick_gelu": bool(config.get("quick_gelu", False))}  # left out or stated, it is one encoder
    text = config.get("text_cfg", {})
    if "hf_model_name" not in text:
        return _create(rest, rest), config
    if find_spec("transformers") is None:
        raise MissingExtra("transformers", "transformers")
    beside = file.parent / _TEXT  # the text tower's own config.json, which else is asked of the hub by name
    if not (beside / "config.json").is_file():
        return _create(rest, rest), config
    local = {**text, "hf_model_name": str(beside), "hf_model_pretrained": False}
    return _create(rest, rest, text_cfg=local), config  # the text tower's config decides no image's vector


def _hub_config(rest: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(rest.removeprefix(_HUB), _CONFIG))
    except Exception as error:
        raise NotFoundError(_unreachable(rest, error)) from error


def _create(name: str, rest: str, **options: Any) -> torch.nn.Module:
    library = _library()
    try:
        model: torch.nn.Module = library.create_model(
            name, precision="fp32", device="cpu", require_pretrained=True, weights_only=True, **options
        )
    except Exception as error:
        if rest.startswith(_FOLDER) or "/" not in rest or Path(rest.partition("/")[2]).expanduser().is_file():
            raise UsageError(
                f"The weights of open_clip:{rest} can't be used ({one_line(error)}): check that weights and "
                "configuration belong together. A text tower of transformers (hf_model_name, as BiomedCLIP has) also "
                f"needs its own config.json: in the hub's cache, or in the folder '{_TEXT}' beside {_CONFIG}."
            ) from error
        raise NotFoundError(_unreachable(rest, error)) from error
    return model


def _unreachable(rest: str, error: Exception) -> str:
    return (
        f"The weights of open_clip:{rest} are not on this machine and could not be fetched ({one_line(error)}): "
        f"run once online, or give a local copy as open_clip:{_FOLDER}PATH."
    )


def _tokenizer(rest: str) -> tuple[Callable[[list[str]], torch.Tensor] | None, str]:
    """The model's tokenizer, or None and why it can't be had; images can be encoded without it."""
    name = rest if rest.startswith((_HUB, _FOLDER)) else rest.partition("/")[0]
    if rest.startswith(_FOLDER):
        name = f"{_FOLDER}{Path(rest.removeprefix(_FOLDER)).expanduser()}"
    try:
        return _library().get_tokenizer(name), ""
    except Exception as error:  # noqa: BLE001 - whatever a tokenizer's library raises, it is the text tower alone
        return None, f"no text: its tokenizer can't be loaded ({one_line(error)})"


def _card(rest: str, model: Any, config: Mapping[str, Any], text: bool, notes: str) -> EncoderCard:
    recipe = _recipe(_library().get_model_preprocess_cfg(model))
    return EncoderCard(
        name="open_clip",
        spec=f"open_clip:{rest}",
        dim=_dim(model, recipe),
        recipe=recipe,
        weights_sha256=state_sha256(model.state_dict(), config),
        text=text,
        logit_scale=math.exp(float(model.logit_scale)),
        notes=notes,
    )


def _dim(model: Any, recipe: Recipe) -> int:
    import torch

    with inference():
        device = next(model.parameters()).device
        return int(model.encode_image(torch.zeros(1, recipe.channels, *recipe.size, device=device)).shape[1])


def _recipe(config: Mapping[str, Any]) -> Recipe:
    """open_clip's own preprocessing of this model, as data."""
    size = config["size"]
    fill = config.get("fill_color", 0)
    return Recipe(
        name="open_clip",
        size=(size, size) if isinstance(size, int) else (int(size[0]), int(size[1])),
        resize=_RESIZES[config["resize_mode"]],
        interpolation=config["interpolation"],
        mean=tuple(float(value) for value in config["mean"]),
        std=tuple(float(value) for value in config["std"]),
        fill=(int(fill),) if isinstance(fill, int) else tuple(int(value) for value in fill),
    )


def _missing(repository: str, *, hf_text: bool) -> str:
    if hf_text and find_spec("transformers") is None:
        return "the library 'transformers': pip install 'precedent[transformers]'"
    return (
        ""
        if cached_on_hub(repository)
        else f"its weights: run once online, or give a local copy as open_clip:{_FOLDER}PATH"
    )


def _library() -> Any:
    import open_clip

    return open_clip
