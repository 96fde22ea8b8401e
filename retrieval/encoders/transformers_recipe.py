"""What an image processor of transformers does, read from its settings as a ``Recipe``; refused where it can't be.

transformers resizes in torchvision or Pillow, before or after scaling to 0 to 1; all differ from ours by rounding
alone: at most one grey level of 255 per pixel, under a third of one on average.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrieval.encoders.recipe import RawRecipe, Recipe
from retrieval.encoders.weights import one_line, read_object
from retrieval.errors import NotFoundError, UsageError

PROCESSOR_FILE = "preprocessor_config.json"
_CURIA = "CuriaImageProcessor"
_PLAIN = (
    "BitImageProcessor",
    "CLIPImageProcessor",
    "DINOv3ViTImageProcessor",
    "SiglipImageProcessor",
    "ViTImageProcessor",
)
_STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb")  # what a recipe knows
_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box"}  # Pillow's numbers
_AIR = -1000.0  # Hounsfield units
_BYTE = 255


def recipe_of(folder: Path, channels: int) -> Recipe:
    """The recipe of the processor beside a model. ``channels``: what the model takes."""
    stated = _stated(folder)
    kind = str(stated.get("image_processor_type") or stated.get("feature_extractor_type") or "")
    plain = kind.removesuffix("Fast").removesuffix("Pil").replace("FeatureExtractor", "ImageProcessor")
    if kind == _CURIA:
        return _curia(stated, channels)
    if stated.get("auto_map") or plain not in _PLAIN:
        raise UsageError(
            f"The model in {folder} prepares images with '{kind or 'no named processor'}', and code that comes with a "
            f"model is never run. What can be expressed: {', '.join((*_PLAIN, _CURIA))}. Export the model to ONNX and "
            "write its preparation on a card instead: 'precedent encoders card'."
        )
    return _recipe(_with_defaults(folder), channels, folder)


def _stated(folder: Path) -> Mapping[str, Any]:
    file = folder / PROCESSOR_FILE
    if not file.is_file():
        raise NotFoundError(f"There is no {PROCESSOR_FILE} in {folder}: it says how images are prepared; fetch it too.")
    return read_object(file, "transformers")


def _with_defaults(folder: Path) -> Mapping[str, Any]:
    """All settings: files of older versions leave out what the processor's class knows."""
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:
        raise UsageError(f"The {PROCESSOR_FILE} in {folder} can't be used ({one_line(error)}).") from error
    settings: Mapping[str, Any] = processor.to_dict()
    return settings


def _recipe(settings: Mapping[str, Any], channels: int, folder: Path) -> Recipe:
    extra = [name for name, value in settings.items() if name.startswith("do_") and value and name not in _STEPS]
    if extra or settings.get("crop_pct") is not None:
        raise _inexpressible(folder, ", ".join(extra) or "crop_pct")
    if not settings.get("do_resize"):
        raise _inexpressible(folder, "do_resize off, so that frames of any size reach the model")
    if (resample := settings.get("resample")) not in _RESAMPLE:
        raise _inexpressible(folder, f"resample {resample}")
    size, resize, fraction = _geometry(settings, folder)
    mean, std = _scale(settings)
    return Recipe(
        name="transformers",
        size=size,
        resize=resize,
        interpolation=_RESAMPLE[int(resample)],
        channels=channels,
        mean=mean,
        std=std,
        crop_fraction=fraction,
    )


def _geometry(settings: Mapping[str, Any], folder: Path) -> tuple[tuple[int, int], str, float]:
    """(size, resize, crop_fraction)."""
    asked = {name: int(value) for name, value in dict(settings.get("size") or {}).items() if value is not None}
    crop = {name: int(value) for name, value in dict(settings.get("crop_size") or {}).items() if value is not None}
    cropped = (crop.get("height", 0), crop.get("width", 0)) if settings.get("do_center_crop") else None
    if asked.keys() == {"height", "width"}:
        whole = (asked["height"], asked["width"])
        if cropped is None or cropped == whole:
            return whole, "squash", 1.0
        margins = {whole[axis] - cropped[axis] for axis in (0, 1)}
        if min(margins) >= 0 and not any(margin % 4 == 3 for margin in margins) and min(cropped) > 0:
            fractions = {_fraction(cropped[axis], whole[axis]) for axis in (0, 1)}
            if len(fractions) == 1:
                return cropped, "squash", fractions.pop()
    elif asked.keys() == {"shortest_edge"} and cropped is not None and cropped[0] == cropped[1] > 0:
        side = asked["shortest_edge"]
        if side >= cropped[0]:
            return cropped, "crop_down", _fraction(cropped[0], side)
    raise _inexpressible(folder, f"size {asked} with crop {cropped or 'none'}")


def _fraction(kept: int, whole: int) -> float:
    """kept / whole, such that the recipe's floor(kept / fraction) is ``whole`` again."""
    fraction = kept / whole
    return fraction if math.floor(kept / fraction) == whole else math.nextafter(fraction, 0)


def _scale(settings: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation on the 0 to 1 scale of a recipe, whatever the processor's own scale is."""
    factor = float(settings["rescale_factor"]) if settings.get("do_rescale") else 1.0
    unit = 1.0 if math.isclose(factor * _BYTE, 1.0, rel_tol=1e-6) else factor * _BYTE
    if not settings.get("do_normalize"):
        return (0.0,), (1.0 / unit,)
    mean, std = (_values(settings[name]) for name in ("image_mean", "image_std"))
    return tuple(value / unit for value in mean), tuple(value / unit for value in std)


def _values(stated: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in stated) if isinstance(stated, list | tuple) else (float(stated),)


def _curia(stated: Mapping[str, Any], channels: int) -> RawRecipe:
    """Raw intensities of one slice, bicubic in floats, air clipped, each frame standardised; known from its settings,
    as its code is not run."""
    if not (stated.get("do_resize", True) and stated.get("do_normalize", True)):
        raise UsageError(
            f"Expected a {_CURIA} that resizes and normalises, got one with do_resize or do_normalize off."
        )
    side = int(stated.get("crop_size", 512))
    floor = _AIR if stated.get("clip_below_air", False) else None
    return RawRecipe(name="curia", size=(side, side), interpolation="bicubic", channels=channels, floor=floor)


def _inexpressible(folder: Path, what: str) -> UsageError:
    return UsageError(
        f"The preparation of images in {folder / PROCESSOR_FILE} can't be expressed as a recipe: {what}. "
        "Export the model to ONNX and write its preparation on a card instead: 'precedent encoders card'."
    )
