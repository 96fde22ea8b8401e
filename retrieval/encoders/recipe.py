"""Preprocessing as data. A recipe is named, versioned, part of the fingerprint, and applied by one pure function.

Everything is resized by Pillow on 8-bit pixels, with antialiasing: that is what torchvision, timm and open_clip do to
a PIL image, so a network sees here what it saw in training, to the bit.
"""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from retrieval.encoders.levels import Bytes, luminance, stretch, to_bytes
from retrieval.encoders.raw import standardise
from retrieval.encoders.resizing import centre, cut_to_aspect, reencoded, target
from retrieval.errors import RejectedInput, UsageError
from retrieval.types import Image, Pixels

__all__ = [
    "LATER",
    "RESIZES",
    "WINDOWS_AS",
    "Bytes",
    "Input",
    "RawRecipe",
    "Recipe",
    "apply",
    "fit",
    "hounsfield",
    "luminance",
    "stated",
    "stretch",
    "window",
]

Input = npt.NDArray[np.float32]  # what a network sees: [rows, columns, channels], normalised

RESIZES = ("squash", "pad", "crop", "crop_down")
WINDOWS_AS = ("channels", "vectors")
LATER = {"later": True}  # metadata of a field added since vectors were first stored: see ``stated``
_INTERPOLATIONS = {
    "nearest": PillowImage.Resampling.NEAREST,
    "bilinear": PillowImage.Resampling.BILINEAR,
    "bicubic": PillowImage.Resampling.BICUBIC,
    "lanczos": PillowImage.Resampling.LANCZOS,
    "box": PillowImage.Resampling.BOX,
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a frame becomes what a network sees.

    Grey frames are windowed to 8 bits by the first rule that fits:

    1. modality CT in Hounsfield units (signed or float; unsigned pixels can't be HU): ``ct_window`` (centre, width);
    2. ``use_file_window``, a modality not in ``percentile_modalities``, and the file states a window: that one;
    3. 8-bit frames are ready for display as they are;
    4. the ``percentiles`` (low, high, 0 to 100) of the frame.

    ``ct_windows``, where there are any, take the place of ``ct_window``: as "channels", three windows are red, green
    and blue of one frame; as "vectors", each window is encoded by itself and the mean of the unit rows, at length 1,
    is the row (``several_windows``).

    Colour frames are taken as they are. ``reencode`` (side, JPEG quality): the frame is first squashed to side x side
    and goes through a JPEG, as services do that send their pictures so. ``resize``: "squash" (no crop), "pad"
    (letterbox, ``fill`` 0 to 255 per channel, "pad" only), "crop" (short side, centre crop) or "crop_down" (the same,
    but half of an odd margin is rounded down, as transformers does, not to the even number, as torchvision does).
    ``size`` is (rows, columns). ``crop_fraction``: the frame is resized to ``size / crop_fraction`` and its centre
    kept. ``mean`` and ``std`` are on the 0 to 1 scale, one value or one per channel.
    """

    name: str
    size: tuple[int, int]
    resize: str = "squash"
    interpolation: str = "bicubic"
    ct_window: tuple[float, float] = (40.0, 400.0)
    percentiles: tuple[float, float] = (0.5, 99.5)
    use_file_window: bool = True
    channels: int = 3
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    crop_fraction: float = 1.0
    fill: tuple[int, ...] = (0,)
    ct_windows: tuple[tuple[float, float], ...] = field(default=(), metadata=LATER)
    ct_windows_as: str = field(default="channels", metadata=LATER)
    percentile_modalities: tuple[str, ...] = field(default=(), metadata=LATER)
    reencode: tuple[int, int] | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        low, high = self.percentiles
        faults = [
            (min(self.size) < 1, f"size must be at least 1 x 1, got {self.size}"),
            (self.resize not in RESIZES, f"resize must be one of {', '.join(RESIZES)}, got '{self.resize}'"),
            (
                self.interpolation not in _INTERPOLATIONS,
                f"interpolation must be one of {', '.join(_INTERPOLATIONS)}, got '{self.interpolation}'",
            ),
            (
                min(width for _, width in (self.ct_window, *self.ct_windows)) <= 0,
                f"ct_window must have a width over 0 HU, got {(self.ct_window, *self.ct_windows)}",
            ),
            (
                self.ct_windows_as not in WINDOWS_AS,
                f"ct_windows_as must be one of {', '.join(WINDOWS_AS)}, got '{self.ct_windows_as}'",
            ),
            (
                self.ct_windows_as == "channels"
                and len(self.ct_windows) not in ((0, 3) if self.channels == 3 else (0,)),
                f"windows as channels must be three, for 3 channels; got {len(self.ct_windows)} for {self.channels}",
            ),
            (
                self.reencode is not None and not (self.reencode[0] >= 1 and 1 <= self.reencode[1] <= 95),
                f"reencode must be a side of at least 1 and a JPEG quality of 1 to 95, got {self.reencode}",
            ),
            (not 0 <= low < high <= 100, f"percentiles must rise within 0 to 100, got {self.percentiles}"),
            (self.channels not in (1, 3), f"channels must be 1 or 3, got {self.channels}"),
            (len(self.mean) not in (1, self.channels), f"mean must have 1 or {self.channels} values, got {self.mean}"),
            (len(self.std) not in (1, self.channels), f"std must have 1 or {self.channels} values, got {self.std}"),
            (min(self.std) <= 0, f"std must be over 0, got {self.std}"),
            (not 0 < self.crop_fraction <= 1, f"crop_fraction must be over 0 and at most 1, got {self.crop_fraction}"),
            (
                len(self.fill) not in (1, 3) or not all(0 <= value <= 255 for value in self.fill),
                f"fill must have 1 or 3 values of 0 to 255, got {self.fill}",
            ),
        ]
        for wrong, sentence in faults:
            if wrong:
                raise UsageError(f"The recipe '{self.name}' can't be used: {sentence}.")


def stated(noun: Any) -> dict[str, Any]:
    """A dataclass as plain values for a fingerprint: as ``asdict``, less every field of ``LATER`` at its default.

    So a field can be added to a card or a recipe and what is on file keeps its fingerprint.
    """
    facts = {}
    for each in fields(noun):
        value = getattr(noun, each.name)
        if each.metadata.get("later") and each.default is not MISSING and value == each.default:
            continue
        facts[each.name] = stated(value) if is_dataclass(value) else value
    return facts


@dataclass(frozen=True, slots=True)
class RawRecipe(Recipe):
    """Grey frames are not windowed: their intensities are resized as they are, and each frame is standardised.

    ``floor``: lower intensities are raised to it first, such as -1000 for what CT scanners put outside the field of
    view. ``size``, ``resize`` ("squash" only), ``interpolation``, ``channels``, ``mean`` and ``std`` (applied after the
    frame has mean 0 and deviation 1) are as in any recipe; windows and percentiles have no effect.
    """

    floor: float | None = None

    def __post_init__(self) -> None:
        Recipe.__post_init__(self)  # not super(): a class with slots is made anew by its decorator
        if self.resize != "squash" or self.crop_fraction != 1:
            raise UsageError(f"The recipe '{self.name}' can't be used: raw intensities are squashed, never cropped.")


def apply(recipe: Recipe, image: Image) -> Input:
    """The frame as a network sees it: float32 [rows, columns, channels], C-contiguous, finite."""
    if isinstance(recipe, RawRecipe):
        return _raw(recipe, image)
    frame = _channels(fit(recipe, window(recipe, image)), recipe.channels)
    scaled = frame.astype(np.float32) / np.float32(255)
    normalised = (scaled - np.asarray(recipe.mean, np.float32)) / np.asarray(recipe.std, np.float32)
    return np.ascontiguousarray(normalised, dtype=np.float32)


def _raw(recipe: RawRecipe, image: Image) -> Input:
    frame = _checked(image)
    grey = luminance(frame) if frame.ndim == 3 else frame
    plane = standardise(grey, recipe.size, _INTERPOLATIONS[recipe.interpolation], recipe.floor)[:, :, None]
    normalised = (np.repeat(plane, recipe.channels, axis=2) - np.asarray(recipe.mean)) / np.asarray(recipe.std)
    return np.ascontiguousarray(normalised, dtype=np.float32)


def window(recipe: Recipe, image: Image) -> Bytes:
    """The frame in 8 bits, at its own size; colour stays colour. Raises RejectedInput for what is not a frame."""
    pixels = _checked(image)
    if pixels.ndim == 3:
        return np.ascontiguousarray(pixels)
    if recipe.ct_windows and hounsfield(image):
        if recipe.ct_windows_as == "vectors":
            raise UsageError(f"The recipe '{recipe.name}' gives several frames: encode each window by itself.")
        return np.stack([to_bytes(pixels, *_ends(each)) for each in recipe.ct_windows], axis=2)
    limits = _stated_limits(recipe, image)
    if limits is None:
        return np.ascontiguousarray(pixels) if pixels.dtype == np.uint8 else stretch(pixels, recipe.percentiles)
    return to_bytes(pixels, *limits)


def _checked(image: Image) -> Pixels:
    """The pixels of what is a frame, or RejectedInput."""
    pixels = image.pixels
    if pixels.ndim not in (2, 3) or 0 in pixels.shape or pixels.dtype.kind not in "uif":
        raise RejectedInput(
            "embed", f"Expected a grey or RGB frame with pixels, got an array of shape {pixels.shape}, {pixels.dtype}."
        )
    if pixels.ndim == 3 and (pixels.shape[2] != 3 or pixels.dtype != np.uint8):
        raise RejectedInput(
            "embed", f"Expected RGB of 8 bits, got {pixels.shape[2]} channels of {pixels.dtype}: convert it first."
        )
    return pixels


def fit(recipe: Recipe, frame: Bytes) -> Bytes:
    """A frame of 8 bits resized to ``recipe.size``, after ``recipe.reencode`` if there is one."""
    if recipe.reencode is not None:
        frame = reencoded(frame, *recipe.reencode)
    rows, columns = recipe.size
    scaled = (math.floor(rows / recipe.crop_fraction), math.floor(columns / recipe.crop_fraction))
    resample = _INTERPOLATIONS[recipe.interpolation]
    if recipe.resize.startswith("crop"):
        frame = cut_to_aspect(frame, rows, columns)
    wanted = target(recipe.resize, frame.shape[0], frame.shape[1], scaled)
    if wanted != frame.shape[:2]:
        frame = np.asarray(PillowImage.fromarray(frame).resize((wanted[1], wanted[0]), resample))
    if wanted == recipe.size:
        return frame
    fill = recipe.fill if recipe.resize == "pad" else (0,)
    return centre(frame, rows, columns, fill, math.floor if recipe.resize == "crop_down" else round)


def _stated_limits(recipe: Recipe, image: Image) -> tuple[float, float] | None:
    """The values shown black and white by a window that is known beforehand, if there is one."""
    if hounsfield(image):
        return _ends(recipe.ct_window)
    heeded = recipe.use_file_window and image.modality.upper() not in recipe.percentile_modalities
    if heeded and image.window is not None and image.window[1] > 0 and _finite(image.window):
        return _ends(image.window)
    return None


def hounsfield(image: Image) -> bool:
    """Whether a CT window applies: a grey CT frame whose pixels can be Hounsfield units (unsigned ones can't)."""
    return image.modality.upper() == "CT" and image.pixels.ndim == 2 and image.pixels.dtype.kind in "if"


def _ends(window: tuple[float, float]) -> tuple[float, float]:
    """The values of a (centre, width) shown black and white: DICOM PS3.3 C.11.2.1.3.2, LINEAR_EXACT."""
    middle, width = window
    return middle - width / 2, middle + width / 2


def _finite(values: tuple[float, ...]) -> bool:
    return all(math.isfinite(value) for value in values)


def _channels(frame: Bytes, channels: int) -> Bytes:
    """[rows, columns, channels]: grey repeated, or colour turned to luminance."""
    if channels == 1:
        return luminance(frame)[:, :, None]
    return frame if frame.ndim == 3 else np.repeat(frame[:, :, None], 3, axis=2)
