"""Bringing a frame of 8 bits to another size: where to cut, where to border. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import Image as PillowImage

from retrieval.encoders.levels import Bytes

_LONGEST_ASPECT = 8  # in "crop", a longer frame is first cut to this aspect: the rest could not be seen anyway


def target(resize: str, rows: int, columns: int, scaled: tuple[int, int]) -> tuple[int, int]:
    """(rows, columns) to resize to, before any crop or padding; rounding as in torchvision and timm."""
    if resize == "squash":
        return scaled
    if resize == "pad":
        ratio = max(rows / scaled[0], columns / scaled[1])
        return max(1, round(rows / ratio)), max(1, round(columns / ratio))
    if scaled[0] == scaled[1]:
        side = scaled[0]
        return (side, int(side * columns / rows)) if rows <= columns else (int(side * rows / columns), side)
    ratio = min(rows / scaled[0], columns / scaled[1])
    return max(1, round(rows / ratio)), max(1, round(columns / ratio))


def cut_to_aspect(frame: Bytes, rows: int, columns: int) -> Bytes:
    """The centre of a very long frame: scaling its short side up would need memory without bound."""
    longest = _LONGEST_ASPECT * max(1, math.ceil(max(rows, columns) / min(rows, columns)))
    height, width = frame.shape[:2]
    if height > longest * width:
        return centre(frame, longest * width, width, (0,))
    if width > longest * height:
        return centre(frame, height, longest * height, (0,))
    return frame


def centre(
    frame: Bytes, rows: int, columns: int, fill: tuple[int, ...], whole: Callable[[float], int] = round
) -> Bytes:
    """The centre of the frame, bordered with ``fill`` where it is smaller."""
    height, width = frame.shape[:2]
    if height < rows or width < columns:
        canvas_shape = (max(rows, height), max(columns, width))
        if frame.ndim == 2 and len(set(fill)) > 1:
            frame = np.repeat(frame[:, :, None], 3, axis=2)
        canvas = np.empty(canvas_shape + frame.shape[2:], np.uint8)
        canvas[...] = fill[0] if frame.ndim == 2 else fill
        top, left = (canvas_shape[0] - height) // 2, (canvas_shape[1] - width) // 2
        canvas[top : top + height, left : left + width] = frame
        frame, (height, width) = canvas, canvas_shape
    top, left = whole((height - rows) / 2), whole((width - columns) / 2)
    return np.ascontiguousarray(frame[top : top + rows, left : left + columns])


def reencoded(frame: Bytes, side: int, quality: int) -> Bytes:
    """RGB [side, side, 3] as it comes back from a JPEG of that quality."""
    stored = BytesIO()
    square = PillowImage.fromarray(frame).convert("RGB").resize((side, side), PillowImage.Resampling.BICUBIC)
    square.save(stored, "JPEG", quality=quality)
    with PillowImage.open(stored, formats=["JPEG"]) as decoded:
        return np.asarray(decoded)
