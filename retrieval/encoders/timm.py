"""Image towers of timm: ``timm:NAME`` (weights from the hub or its cache), ``timm:NAME@PATH`` (a file or a folder).

A folder may hold the ``config.json`` that timm writes beside weights; its ``pretrained_cfg`` then decides the
preprocessing and its ``model_args`` the layers. A classifier in the weights is left out: the vector is what the
classifier would have seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval.encoders.base import EncoderCard, KnownEncoder
from retrieval.encoders.recipe import Recipe
from retrieval.encoders.tower import ImageTower, choose_device
from retrieval.encoders.weights import (
    absolute,
    cached_on_hub,
    check_keys,
    find_checkpoint,
    one_line,
    read_object,
    read_state,
    state_sha256,
)
from retrieval.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    import torch

_RESIZES = {"center": "crop", "squash": "squash", "border": "pad"}  # timm's crop_mode
_SUGGESTIONS = 5

# NAME, dim, (rows, columns), licence of the weights as their cards state it
_WELL_KNOWN = (
    ("mobilenetv3_small_100.lamb_in1k", 1024, (224, 224), "Apache-2.0"),
    ("resnet50.a1_in1k", 2048, (224, 224), "Apache-2.0"),
    ("convnext_tiny.fb_in22k", 768, (224, 224), "Apache-2.0"),
    ("vit_base_patch14_dinov2.lvd142m", 768, (518, 518), "Apache-2.0"),
    ("vit_small_patch16_dinov3.lvd1689m", 384, (256, 256), "DINOv3 licence"),
)


def known() -> Sequence[KnownEncoder]:
    """A few well-known models; any other name of ``timm.list_models()`` works the same way."""
    entries = []
    for name, dim, size, licence in _WELL_KNOWN:
        ready = cached_on_hub(f"timm/{name}")
        missing = "" if ready else f"its weights: run once online, or give a local copy as timm:{name}@PATH"
        entries.append(KnownEncoder(f"timm:{name}", dim, None, licence, missing, size=size, recipe_name="timm"))
    entries.append(
        KnownEncoder("timm:NAME@PATH", None, None, "as its weights", notes="a local file or folder of weights")
    )
    return entries


def open_encoder(rest: str, device: str | None) -> ImageTower:
    """``rest``: ``NAME`` or ``NAME@PATH``."""
    rest = full_spec(rest)
    name, _, path = rest.partition("@")
    if not name:
        raise UsageError("Expected timm:NAME or timm:NAME@PATH, such as timm:resnet50.a1_in1k; the name is empty.")
    chosen = choose_device(device)
    _check_name(name)
    model, arguments = _local(name, Path(path)) if path else (_from_hub(name), {})
    model = model.eval().requires_grad_(False)
    return ImageTower(_card(rest, model, arguments), model.to(chosen), chosen)


def full_spec(rest: str) -> str:
    """The path made absolute, so that a gallery opens from any folder."""
    name, at, path = rest.partition("@")
    return f"{name}@{absolute(path)}" if at else rest


def _check_name(name: str) -> None:
    timm = _library()
    architecture = name.partition(".")[0]
    if timm.is_model(architecture):
        return
    near = timm.list_models(f"*{architecture.split('_')[0]}*")[:_SUGGESTIONS]
    hint = f"Near it: {', '.join(near)}." if near else "timm.list_models() lists them."
    raise NotFoundError(f"timm has no model '{architecture}'. {hint}")


def _from_hub(name: str) -> torch.nn.Module:
    timm = _library()
    source = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if source is None or not source.has_weights:
        raise NotFoundError(f"timm has no published weights for '{name}': give your own as timm:{name}@PATH.")
    try:
        model: torch.nn.Module = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:
        raise NotFoundError(
            f"The weights of timm:{name} are not on this machine and could not be fetched ({one_line(error)}): "
            f"run once online, or give a local copy as timm:{name}@PATH."
        ) from error
    return model


def _local(name: str, path: Path) -> tuple[torch.nn.Module, Mapping[str, Any]]:
    """The model with the weights at ``path``, and the ``model_args`` it was built with."""
    timm = _library()
    checkpoint = find_checkpoint(path)
    config = _read_config(checkpoint.parent / "config.json") if path.is_dir() else {}
    declared = str(config.get("architecture", ""))
    if declared and declared != name.partition(".")[0]:
        raise UsageError(f"The folder {path} is for timm:{declared}, not timm:{name}: name it so.")
    arguments = dict(config.get("model_args") or {})
    # the licence timm knows is that of its own weights, not of these
    overlay = {"license": "", "hf_hub_id": "", **dict(config.get("pretrained_cfg") or {}), "num_classes": 0}
    arguments.pop("num_classes", None)
    try:
        model: torch.nn.Module = timm.create_model(
            name, pretrained=False, num_classes=0, pretrained_cfg_overlay=overlay, **arguments
        )
    except (RuntimeError, TypeError, ValueError) as error:
        raise UsageError(
            f"timm can't build '{name}' as {path} asks ({one_line(error)}): mend its config.json."
        ) from error
    state = _without_classifier(model, read_state(checkpoint))
    expected = model.state_dict()
    check_keys(f"timm:{name}", expected, state)
    model.load_state_dict(state)
    return model, arguments


def _read_config(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    return read_object(path, "timm")


def _without_classifier(model: torch.nn.Module, state: Mapping[str, Any]) -> dict[str, Any]:
    """The state less the layers that are a classifier by the model's own account, unless the model has kept them."""
    named = model.pretrained_cfg.get("classifier") or ()
    classifiers = (named,) if isinstance(named, str) else tuple(named)
    expected = model.state_dict()
    prefixes = tuple(f"{classifier}." for classifier in classifiers)
    return {key: value for key, value in state.items() if key in expected or not key.startswith(prefixes)}


def _card(rest: str, model: torch.nn.Module, arguments: Mapping[str, Any]) -> EncoderCard:
    source: Any = model.pretrained_cfg
    architecture = rest.partition("@")[0].partition(".")[0]
    return EncoderCard(
        name=f"timm-{architecture}",
        spec=f"timm:{rest}",
        dim=int(getattr(model, "head_hidden_size", None) or model.num_features),
        recipe=_recipe(model),
        weights_sha256=state_sha256(model.state_dict(), arguments),
        licence=str(source.get("license") or ""),
        notes=str(source.get("hf_hub_id") or ""),
    )


def _recipe(model: torch.nn.Module) -> Recipe:
    """timm's own evaluation preprocessing of this model, as data."""
    from timm.data import resolve_data_config

    config = resolve_data_config(model=model)
    mode = config["crop_mode"] or "center"
    if mode not in _RESIZES:
        raise UsageError(f"timm prepares this model by crop mode '{mode}', which is not one of {', '.join(_RESIZES)}.")
    mean = tuple(float(value) for value in config["mean"])
    channels, rows, columns = config["input_size"]
    return Recipe(
        name="timm",
        size=(rows, columns),
        resize=_RESIZES[mode],
        interpolation=config["interpolation"],
        channels=channels,
        mean=mean,
        std=tuple(float(value) for value in config["std"]),
        crop_fraction=float(config["crop_pct"]),
        fill=tuple(round(255 * value) for value in mean),
    )


def _library() -> Any:
    import timm

    return timm
