"""Blocks of the classical descriptor: pure functions of one small 8-bit frame. Nothing here was learnt from images.

Sums run in one fixed order (no BLAS), so a frame gives the same bits whatever the number of threads.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from retrieval.encoders.recipe import Bytes

Plane = npt.NDArray[np.float32]  # [rows, columns], 0 to 1
Maps = npt.NDArray[np.float32]  # [features, rows, columns]
Block = npt.NDArray[np.float64]  # [length]

SIDE = 128  # the frames of ``structure`` and ``spectrum`` are SIDE x SIDE
_CHROMA_SIDE = 64  # colour needs less
_NOISE = 1e-4  # variance added to every feature, (1 % of the range) squared: less than that is grain, not structure
_RINGS, _SECTORS = 12, 6  # of the spectrum: half octaves of frequency, 30 degrees of direction
_CHROMA_MEAN = 10.0  # brings mean chroma (a few hundredths) to the scale of the log-covariances
_GREY_FEATURES = 3  # of the colour features, those that know no colour
COLOUR_LENGTH = 24


def structure(grey: Bytes) -> Block:
    """How intensity, edges, ridges, blobs of three sizes and place vary together, whole and in quarters. [390]

    Log-covariances of 12 features: covariance descriptors after Tuzel, Porikli, Meer (ECCV 2006) in the log-Euclidean
    metric of Arsigny et al. (MRM 2006). They sum over a region, hence bear small shifts and deformations.
    """
    maps = _structure_maps(grey.astype(np.float32) / np.float32(255))
    return np.concatenate([_triangle(_log_covariances(maps, cells)).ravel() / cells for cells in (1, 2)])


def spectrum(grey: Bytes) -> Block:
    """Log power by frequency (half octaves) and direction (30 degrees): grain, stripes, the fineness of texture. [72]

    From a Hann-windowed FFT without its phase, so shifts hardly matter.
    """
    plane = grey.astype(np.float64)
    taper = np.hanning(SIDE)
    power = np.abs(np.fft.rfft2((plane - plane.mean()) * taper[:, None] * taper[None])) ** 2
    cells, sizes = _spectral_cells()
    sums = np.bincount(cells, power.ravel(), _RINGS * _SECTORS)
    means: Block = np.log1p(sums / np.maximum(sizes, 1))
    return means


def colour(frame: Bytes) -> Block:
    """How red-green and yellow-blue vary with lightness and place, and their means; zeros for a grey frame. [24]

    Log-covariances as in ``structure``, less what a grey frame would have: the block says how far from grey a frame
    is, and in what way.
    """
    import cv2

    if frame.ndim == 2 or bool((frame == frame[:, :, :1]).all()):
        return np.zeros(COLOUR_LENGTH)
    small = cv2.resize(frame, (_CHROMA_SIDE, _CHROMA_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    red, green, blue = small[..., 0], small[..., 1], small[..., 2]
    light = np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue
    chroma = ((red - green) / 2, (red + green - 2 * blue) / 4)
    maps = np.stack([light, _place(_CHROMA_SIDE)[2], _slope(light), *chroma, *(_slope(plane) for plane in chroma)])
    logs = _log_covariances(maps, 1)
    coloured = np.arange(_GREY_FEATURES, len(maps))
    logs[:, coloured, coloured] -= np.log(_NOISE)
    means = [float(plane.mean(dtype=np.float64)) * _CHROMA_MEAN for plane in chroma]
    return np.concatenate([_triangle(logs, _GREY_FEATURES).ravel(), means])


def _structure_maps(plane: Plane) -> Maps:
    import cv2

    across, down, across2, down2, both = (
        cv2.Sobel(plane, cv2.CV_32F, *order) for order in ((1, 0), (0, 1), (2, 0), (0, 2), (1, 1))
    )
    levels = [plane, *(cv2.GaussianBlur(plane, (0, 0), sigma) for sigma in (2.0, 4.0, 8.0))]
    blobs = [fine - coarse for fine, coarse in pairwise(levels)]
    strengths = [np.abs(signed) for signed in (across, down, across2, down2, *blobs, both)]
    return np.stack([plane, *strengths, *_place(SIDE)])


def _slope(plane: Plane) -> Plane:
    """Gradient magnitude per pixel, over 3 x 3 pixels."""
    import cv2

    steps = (cv2.Sobel(plane, cv2.CV_32F, 1, 0), cv2.Sobel(plane, cv2.CV_32F, 0, 1))
    magnitude: Plane = np.hypot(*steps) / np.float32(4)
    return magnitude


@cache
def _place(side: int) -> tuple[Plane, Plane, Plane]:
    """Column, row and distance from the centre, each pixel of a side x side frame, in sides."""
    rows, columns = np.indices((side, side), dtype=np.float32) / np.float32(side) - np.float32(0.5)
    return columns, rows, np.hypot(columns, rows)


def _log_covariances(maps: Maps, cells: int) -> npt.NDArray[np.float64]:
    """log(covariance + noise) of the features in each of cells x cells parts: [cells ** 2, features, features]."""
    features, rows, columns = maps.shape
    parts = maps.reshape(features, cells, rows // cells, cells, columns // cells).transpose(1, 3, 0, 2, 4)
    values = np.ascontiguousarray(parts).reshape(cells * cells, features, -1)
    values = values - values.mean(axis=2, keepdims=True)
    products = np.einsum("nik,njk->nij", values, values, optimize=False).astype(np.float64)
    variances, axes = np.linalg.eigh(products / values.shape[2] + _NOISE * np.eye(features))
    logs = np.log(np.maximum(variances, _NOISE / 2))  # rounding may leave a variance a little under the noise
    matrices: npt.NDArray[np.float64] = np.einsum("nij,nj,nkj->nik", axes, logs, axes, optimize=False)
    return matrices


def _triangle(matrices: npt.NDArray[np.float64], first: int = 0) -> npt.NDArray[np.float64]:
    """Upper triangles from column ``first`` on, [n, length]; off-diagonals times sqrt 2 keep the Frobenius norm."""
    rows, columns = np.triu_indices(matrices.shape[1])
    rows, columns = rows[columns >= first], columns[columns >= first]
    weighted: npt.NDArray[np.float64] = matrices[:, rows, columns] * np.where(rows == columns, 1.0, np.sqrt(2.0))
    return weighted


@cache
def _spectral_cells() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Which ring and sector each value of the half-plane FFT belongs to, and how many values each has."""
    down, across = np.meshgrid(np.fft.fftfreq(SIDE), np.fft.rfftfreq(SIDE), indexing="ij")
    cycles = np.maximum(np.hypot(across, down) * SIDE, 1)  # per frame
    rings = np.minimum((2 * np.log2(cycles)).astype(np.int64), _RINGS - 1)
    sectors = np.minimum((np.arctan2(down, across) % np.pi / np.pi * _SECTORS).astype(np.int64), _SECTORS - 1)
    cells = (rings * _SECTORS + sectors).ravel()
    return cells, np.bincount(cells, minlength=_RINGS * _SECTORS)
