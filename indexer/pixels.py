"""What happens to pixel values between a decoder and an encoder. Pure: arrays in, arrays out.

Rescaling is done once and only here (``rescale`` or ``apply_lut``), so that no caller can apply a slope twice.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval.types import Image, Pixels

CT_WINDOW = (40.0, 400.0)  # centre, width in HU: soft tissue, what a CT is looked at with when the file does not say
PERCENTILES = (0.5, 99.5)

Direction = tuple[float, float, float]
Spacing = tuple[float, float]

# Usual radiological views: which patient direction (LPS) points right on the screen, and which points down.
_VIEWS: dict[str, tuple[Direction, Direction]] = {
    "sagittal": ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),
    "coronal": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0)),
    "axial": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
}
_SAMPLES = 16_384
_OBLIQUE_BELOW = 0.85  # |cosine| between the slice normal and the nearest patient axis: tilted by over 32 degrees


def narrow(values: Pixels) -> Pixels:
    """Integers in the first of uint8 (kept), int16, uint16 that holds them, else float32; floats as float32."""
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind not in "iu" or values.size == 0:
        return values.astype(np.float32, copy=False)
    low, high = int(values.min()), int(values.max())
    for kind in (np.uint16, np.int16) if values.dtype.kind == "u" else (np.int16, np.uint16):
        limits = np.iinfo(kind)
        if limits.min <= low and high <= limits.max:
            return values.astype(kind, copy=False)
    return values.astype(np.float32)


def rescale(stored: Pixels, slope: float = 1.0, intercept: float = 0.0) -> Pixels:
    """``stored * slope + intercept`` (PS3.3 C.11.1.1.2), once. HU for CT.

    int16 (or uint16, or the dtype as stored when nothing changes) when slope and intercept are whole numbers and the
    result fits, so that HU are exact; float32 otherwise.
    """
    if slope == 1.0 and intercept == 0.0:
        return narrow(stored)
    if stored.dtype.kind in "iu" and float(slope).is_integer() and float(intercept).is_integer():
        whole = _whole(stored, int(slope), int(intercept))
        if whole is not None:
            return whole
    return (stored.astype(np.float64) * slope + intercept).astype(np.float32)


def _whole(stored: Pixels, slope: int, intercept: int) -> Pixels | None:
    """Integers times ``slope`` plus ``intercept``, as ``narrow`` would have it; None past 2**24 or without pixels.

    The ends tell the type beforehand, so that every value is touched once and never widened. On the way it may wrap
    around: what is known to fit at the end is right at the end.
    """
    if not stored.size:
        return None
    low, high = sorted(int(end) * slope + intercept for end in (stored.min(), stored.max()))
    if low < -(2**24) or high > 2**24:
        return None
    fitting = (np.int16, np.uint16, np.int32)
    kind = next(kind for kind in fitting if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)
    factor, offset = (np.array(whole).astype(kind) for whole in (slope, intercept))
    values: Any = stored.astype(kind)
    if slope == -1:
        np.subtract(offset, values, out=values)
    else:
        if slope != 1:
            values *= factor
        values += offset
    whole: Pixels = values.astype(np.float32) if kind is np.int32 else values
    return whole


def apply_lut(stored: Pixels, first: int, table: npt.NDArray[np.uint16]) -> Pixels:
    """A Modality LUT (PS3.3 C.11.1.1.1): values below ``first`` take the first entry, values past the end the last."""
    index = np.clip(stored.astype(np.int64) - first, 0, len(table) - 1)
    return narrow(table[index])


def mirror(values: Pixels, total: float) -> Pixels:
    """``total - values``: MONOCHROME1 turned so that more is brighter. ``total``: the range's ends, summed."""
    if values.dtype.kind in "iu" and float(total).is_integer():
        turned = _whole(values, -1, int(total))
        if turned is not None:
            fits = values.dtype == np.uint8 and turned.min() >= 0 and turned.max() <= 255
            return turned.astype(np.uint8) if fits else turned
    return (total - values.astype(np.float64)).astype(np.float32)


def mirror_window(window: tuple[float, float], total: float) -> tuple[float, float]:
    """The same window on mirrored values: PS3.3 C.11.2.1.2 is symmetric about centre - 0.5."""
    return (total - window[0] + 1.0, window[1])


def to_8_bit(values: Pixels, bits: int) -> npt.NDArray[np.uint8]:
    """Unsigned samples of ``bits`` significant bits, any shape, as uint8 (the high bits)."""
    if bits < 8:
        return _bytes(values.astype(np.float32) * np.float32(255.0 / (2**bits - 1)) + np.float32(0.5))
    return _bytes(values.astype(np.uint64) >> (bits - 8))


def _bytes(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    clipped: npt.NDArray[np.uint8] = np.clip(values, 0, 255).astype(np.uint8)
    return clipped


def palette_to_rgb(stored: Pixels, first: int, table: npt.NDArray[np.uint16], bits: int) -> Pixels:
    """``stored`` [rows, columns] through ``table`` [entries, 3], ``bits`` a value: uint8 RGB (PS3.3 C.7.6.3.1.5)."""
    if bits == 16 and table.size and int(table.max()) <= 255:
        bits = 8  # a common slip: 8-bit entries declared as 16
    colours = to_8_bit(table, bits)
    return colours[np.clip(stored.astype(np.int64) - first, 0, len(table) - 1)]


def ybr_to_rgb(pixels: Pixels, *, partial: bool = False) -> Pixels:
    """8-bit YBR_FULL (or YBR_PARTIAL: 16..235 and 16..240) [rows, columns, 3] as RGB (PS3.3 C.7.6.3.1.2)."""
    luma = pixels[..., 0].astype(np.float32)
    blue = pixels[..., 1].astype(np.float32) - 128.0
    red = pixels[..., 2].astype(np.float32) - 128.0
    if partial:
        luma, blue, red = (luma - 16.0) * (255.0 / 219.0), blue * (255.0 / 224.0), red * (255.0 / 224.0)
    rgb = np.stack([luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue], axis=-1)
    return _bytes(rgb + 0.5)


def plane_of(row: Direction, column: Direction) -> str:
    """axial, coronal or sagittal by the patient axis nearest the slice normal; oblique when none is near."""
    name, cosine = _nearest(row, column)
    return name if cosine >= _OBLIQUE_BELOW else "oblique"


def _nearest(row: Direction, column: Direction) -> tuple[str, float]:
    normal = np.abs(np.cross(np.asarray(row, float), np.asarray(column, float)))
    axis = int(np.argmax(np.round(normal, 6)[::-1]))  # ties go to axial, then coronal
    return ("axial", "coronal", "sagittal")[axis], float(normal[2 - axis])


def turn_of(row: Direction, column: Direction) -> tuple[bool, bool, bool]:
    """(transpose, then flip rows, then flip columns) that bring a frame into its radiological view."""
    right, down = (np.asarray(axis) for axis in _VIEWS[_nearest(row, column)[0]])
    across, along = np.asarray(row, float), np.asarray(column, float)
    transpose = abs(across @ down) + abs(along @ right) > abs(across @ right) + abs(along @ down) + 1e-9
    if transpose:
        across, along = along, across
    return bool(transpose), bool(along @ down < 0), bool(across @ right < 0)


def to_radiological(
    pixels: Pixels, row: Direction, column: Direction, spacing: Spacing | None
) -> tuple[Pixels, Spacing | None, str]:
    """Turn a frame the way a radiologist looks at it, by transposing and flipping only: no value is resampled.

    ``row``/``column``: unit LPS direction of increasing column index / row index (PS3.3 C.7.6.2.1.1). Axial: x to the
    patient's left, y to posterior. Coronal: x to left, y to inferior. Sagittal: x to posterior, y to inferior. An
    oblique frame is turned to the nearest of the three. Returns the frame, its (between rows, between columns)
    spacing, and the plane's name.
    """
    transpose, flip_rows, flip_columns = turn_of(row, column)
    if transpose:
        pixels = pixels.swapaxes(0, 1)
        spacing = None if spacing is None else (spacing[1], spacing[0])
    if flip_rows:
        pixels = pixels[::-1]
    if flip_columns:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels), spacing, plane_of(row, column)


def to_display(image: Image, window: tuple[float, float] | None = None) -> npt.NDArray[np.uint8]:
    """uint8 [rows, columns] or [rows, columns, 3] to show: the linear VOI function of PS3.3 C.11.2.1.2.

    The window (centre, width; in the units of the pixels) is the one given, else the file's own, else 40/400 HU for
    CT, else the frame's 0.5 to 99.5 percentiles. Colour, and 8-bit grey without a window, is returned as it is. NaN
    shows as black.
    """
    pixels = image.pixels
    chosen = window or image.window or (CT_WINDOW if image.modality == "CT" else None)
    if pixels.ndim == 3 or (chosen is None and pixels.dtype == np.uint8):
        return np.ascontiguousarray(pixels, dtype=np.uint8)
    if chosen is not None and np.isfinite(chosen).all() and chosen[1] >= 1:
        centre, width = chosen[0] - 0.5, max(chosen[1] - 1.0, 1e-6)
        return _stretch(pixels, centre - width / 2, centre + width / 2)
    if chosen is not None and chosen[1] > 0:  # a width under 1 is meant for fractional values, as of PET or ADC maps
        return _stretch(pixels, chosen[0] - chosen[1] / 2, chosen[0] + chosen[1] / 2)
    return _stretch(pixels, *_range(pixels))


def _range(pixels: Pixels) -> tuple[float, float]:
    """The 0.5 and 99.5 percentiles, of a regular sample of a large frame; all of it where the sample is flat."""
    stride = max(1, math.ceil((pixels.size / _SAMPLES) ** 0.5))
    for values in (pixels[::stride, ::stride], pixels):
        finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        if finite.size:
            low, high = (min(int(share / 100 * finite.size), finite.size - 1) for share in PERCENTILES)
            parted = np.partition(finite, (low, high), axis=None)
            if parted[low] < parted[high]:
                return float(parted[low]), float(parted[high])
    # A few bright pixels on nothing: percentiles see only the nothing.
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def _stretch(pixels: Pixels, low: float, high: float) -> npt.NDArray[np.uint8]:
    if high <= low:
        return np.zeros(pixels.shape, np.uint8)
    shown = (pixels.astype(np.float32) - np.float32(low)) * np.float32(255.0 / (high - low)) + np.float32(0.5)
    if pixels.dtype.kind == "f":
        shown = np.nan_to_num(shown, nan=0.0, posinf=255.0, neginf=0.0)
    return _bytes(shown)


def thumbnail(image: Image, side: int = 256) -> bytes:
    """JPEG bytes, longest side ``side`` px at most, never enlarged; pixels that are not square in mm are made so.

    Made smaller first and windowed then: a tenth of the work on a radiograph, and nobody sees the difference.
    """
    import cv2

    cv2.setNumThreads(0)  # one small picture at a time; and a forked worker must not count on a pool of threads
    pixels = image.pixels
    rows, columns = pixels.shape[:2]
    high, wide = float(rows), float(columns)
    if image.spacing and min(image.spacing) > 0 and 0.1 < image.spacing[0] / image.spacing[1] < 10:
        high *= image.spacing[0] / image.spacing[1]
    scale = min(1.0, side / max(high, wide))
    size = (max(1, round(wide * scale)), max(1, round(high * scale)))
    whole = min(rows // size[1], columns // size[0])
    if whole > 1:  # averaging whole blocks first is several times faster, and leaves less than a factor of two
        blocks = (columns // whole, rows // whole)
        even = np.ascontiguousarray(pixels[: blocks[1] * whole, : blocks[0] * whole])
        pixels = cv2.resize(even, blocks, interpolation=cv2.INTER_AREA)
    if size != (pixels.shape[1], pixels.shape[0]):
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)
    shown = to_display(replace(image, pixels=pixels))
    packed = cv2.imencode(".jpg", shown[:, :, ::-1] if shown.ndim == 3 else shown, [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return bytes(packed)
