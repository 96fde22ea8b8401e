"""Raw intensities, resized as floats and standardised frame by frame: what Curia and its kin were trained on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from retrieval.types import Pixels

_FLAT = 1e-6  # a frame that deviates less is centred only
_LARGE = 1e30  # beyond, float32 could overflow; the result does not depend on the scale


def standardise(
    pixels: Pixels, size: tuple[int, int], resample: PillowImage.Resampling, floor: float | None
) -> npt.NDArray[np.float64]:
    """A grey frame squashed to ``size`` (rows, columns), mean 0, deviation 1 (of a sample, n - 1); zeros when flat.

    Resized in float32 with antialiasing. NaN counts as the least finite value of the frame, or as ``floor``.
    """
    values = pixels.astype(np.float64)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    bottom = low if floor is None else max(low, floor)
    np.nan_to_num(values, copy=False, nan=bottom, posinf=max(high, bottom), neginf=bottom)
    peak = max(abs(low), abs(high))
    if peak > _LARGE:
        values /= peak
        floor = None if floor is None else floor / peak
    plane = PillowImage.fromarray(values.astype(np.float32))
    if plane.size != size[::-1]:
        plane = plane.resize(size[::-1], resample)
    resized = np.asarray(plane, dtype=np.float64)
    if floor is not None:
        resized = np.maximum(resized, floor)
    centred: npt.NDArray[np.float64] = resized - resized.mean()
    deviation = float(resized.std(ddof=1)) if resized.size > 1 else 0.0
    if deviation > _FLAT:
        centred /= deviation
    return centred
