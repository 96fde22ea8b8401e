"""From pixel values to 8 bits. Pure."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from retrieval.types import Pixels

Bytes = npt.NDArray[np.uint8]  # a frame of 8 bits: [rows, columns] grey or [rows, columns, 3] RGB

_SAMPLED_PIXELS = 1 << 16  # percentiles of a larger frame are taken on a regular grid of about this many pixels
_STRIP_PIXELS = 1 << 22


def stretch(pixels: Pixels, percentiles: tuple[float, float]) -> Bytes:
    """A grey frame in 8 bits from its low to its high percentile; black when it has no contrast."""
    return to_bytes(pixels, *_percentile_limits(pixels, percentiles))


def luminance(frame: Bytes) -> Bytes:
    """Grey of an RGB frame (ITU-R BT.601, as Pillow's "L"); a grey frame as it is."""
    return frame if frame.ndim == 2 else np.asarray(PillowImage.fromarray(frame).convert("L"))


def _percentile_limits(pixels: Pixels, percentiles: tuple[float, float]) -> tuple[float, float]:
    """The two percentiles; the least and greatest value when those are equal (a small object on a flat ground)."""
    step = max(1, math.isqrt(pixels.size // _SAMPLED_PIXELS))
    sample = pixels[::step, ::step]
    if pixels.dtype.kind == "f":
        sample = sample[np.isfinite(sample)]
        if sample.size == 0:
            sample = pixels[np.isfinite(pixels)]
        if sample.size == 0:
            return 0.0, 0.0
        sample = sample.astype(np.float64)  # interpolating between extreme float32 values would overflow
    low, high = _counted(sample, percentiles) if sample.dtype.itemsize <= 2 else _sorted(sample, percentiles)
    if high > low:
        return low, high
    finite = pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels
    return float(finite.min()), float(finite.max())


def _sorted(sample: Pixels, percentiles: tuple[float, float]) -> tuple[float, float]:
    low, high = (float(value) for value in np.percentile(sample, percentiles))
    return low, high


def _counted(sample: Pixels, percentiles: tuple[float, float]) -> tuple[float, float]:
    """As ``_sorted``, of integers of 8 or 16 bits: counting them takes half the time of putting them in order."""
    least = int(sample.min())
    upto = np.cumsum(np.bincount(sample.ravel().astype(np.intp) - least))

    def at(percentile: float) -> float:
        place = percentile / 100 * (sample.size - 1)
        below, above = np.searchsorted(upto, (math.floor(place), math.ceil(place)), side="right")
        return least + float(below + (above - below) * (place - math.floor(place)))

    return at(percentiles[0]), at(percentiles[1])


def to_bytes(pixels: Pixels, low: float, high: float) -> Bytes:
    """``low`` to 0, ``high`` to 255, rounded; a frame without contrast is black. NaN counts as ``low``."""
    shown = np.zeros(pixels.shape, np.uint8)
    if high > low:
        step = max(1, _STRIP_PIXELS // pixels.shape[1])  # strips, so that a huge frame is never held as float at once
        for top in range(0, pixels.shape[0], step):
            shown[top : top + step] = _strip_to_bytes(pixels[top : top + step], low, high)
    return shown


def _strip_to_bytes(pixels: Pixels, low: float, high: float) -> Bytes:
    extreme = max(abs(low), abs(high)) > 1e30 or high - low < 1e-30  # float32 would over- or underflow
    values: npt.NDArray[Any] = pixels.astype(np.float64 if extreme else np.float32)
    if pixels.dtype.kind == "f":
        np.nan_to_num(values, copy=False, nan=low, posinf=high, neginf=low)
    np.clip(values, low, high, out=values)
    np.subtract(values, low, out=values)
    np.divide(values, high - low, out=values)
    np.multiply(values, 255, out=values)
    np.add(values, 0.5, out=values)
    return np.clip(values, 0, 255, out=values).astype(np.uint8)
