"""Frames as pictures. Pure: an ``Image`` and a window in, bytes out."""

from __future__ import annotations

import io

import numpy as np

from indexer.pixels import PERCENTILES, to_display
from retrieval.types import Image

Window = tuple[float, float]  # (centre, width) in the units of the pixels; HU for CT

MAX_SIDE = 2048


def stack_window(image: Image) -> Window | None:
    """One window for a whole stack, from one of its frames; None when each frame knows its own (CT, or as stated).

    Without it every slice of an MR series would be stretched by itself, and scrolling would flicker.
    """
    if image.window is not None or image.modality == "CT" or image.pixels.ndim != 2:
        return None
    low, high = (float(value) for value in np.nanpercentile(image.pixels, PERCENTILES))
    return ((low + high) / 2 + 0.5, high - low + 1.0) if high - low >= 1.0 else None


def png(image: Image, window: Window | None, size: int) -> bytes:
    """The frame as PNG, windowed, with square pixels; longest side at most ``size`` px (0: its own size)."""
    from PIL import Image as Picture

    picture = Picture.fromarray(to_display(image, window))
    target = _target(picture.size, image.spacing, size)
    if target != picture.size:
        picture = picture.resize(target, Picture.Resampling.BICUBIC, reducing_gap=2.0)
    packed = io.BytesIO()
    picture.save(packed, "PNG", compress_level=3)
    return packed.getvalue()


def _target(shown: tuple[int, int], spacing: tuple[float, float] | None, size: int) -> tuple[int, int]:
    """(width, height) in px: square in mm, no side over ``size`` or MAX_SIDE."""
    wide, high = float(shown[0]), float(shown[1])
    if spacing and min(spacing) > 0 and 0.1 < spacing[0] / spacing[1] < 10:
        ratio = spacing[0] / spacing[1]
        wide, high = (wide, high * ratio) if ratio >= 1 else (wide / ratio, high)
    scale = min(1.0, (size or MAX_SIDE) / max(wide, high))
    return max(1, round(wide * scale)), max(1, round(high * scale))
