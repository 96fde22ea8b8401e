"""Frames that are always at hand: noise with the spectrum of natural images, and shapes with edges, from a seed.

A path is best checked on the frames it will encode; these stand in where there are none yet.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from retrieval.types import Image

SIDE = 256  # pixels
_SHAPES = 6


def sample_images(count: int) -> tuple[Image, ...]:
    """``count`` grey 8-bit frames, no two alike, the same ones in every process."""
    return tuple(Image(_frame(np.random.default_rng([17, n]))) for n in range(count))


def _frame(rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Clouds, ellipses of their own brightness over them, and a border of black as radiographs have it."""
    picture = _clouds(rng)
    rows, columns = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    for _ in range(_SHAPES):
        centre, radii, angle = rng.uniform(-0.7, 0.7, 2), rng.uniform(0.05, 0.5, 2), rng.uniform(0, np.pi)
        across = (rows - centre[0]) * np.cos(angle) + (columns - centre[1]) * np.sin(angle)
        along = (columns - centre[1]) * np.cos(angle) - (rows - centre[0]) * np.sin(angle)
        picture[(across / radii[0]) ** 2 + (along / radii[1]) ** 2 < 1] += rng.uniform(-2, 2)
    low, high = np.percentile(picture, (1, 99))
    shown = np.clip((picture - low) / (high - low), 0, 1) ** rng.uniform(0.6, 1.6)
    shown[np.abs(rows) > rng.uniform(0.8, 1.0)] = 0
    frame: npt.NDArray[np.uint8] = np.round(255 * shown).astype(np.uint8)
    return frame


def _clouds(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Gaussian noise whose amplitude falls with frequency as 1/f (Field, 1987), of unit variance."""
    spectrum = np.fft.rfft2(rng.standard_normal((SIDE, SIDE)))
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None, :])
    spectrum /= np.maximum(frequency, 1 / SIDE)
    picture: npt.NDArray[np.float64] = np.fft.irfft2(spectrum, s=(SIDE, SIDE))
    picture /= picture.std()
    return picture
