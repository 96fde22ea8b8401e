"""Blocks of the classical descriptor. Pure functions of one 8-bit frame; nothing here was learnt from images.

No BLAS: sums run in one fixed order, so a frame gives the same bits whatever the number of threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from retrieval.encoders.recipe import Bytes

Plane = npt.NDArray[np.float32]  # [rows, columns], 0 to 1
Maps = npt.NDArray[np.float32]  # [features, rows, columns]
Block = npt.NDArray[np.float64]  # one dimension

_NOISE = 1e-5  # variance added to every feature: below it a difference is grain of the 8 bits, not structure


def structure(grey: Bytes, grids: tuple[int, ...] = (1, 2)) -> Block:
    """How intensity, edges, ridges, blobs of several sizes and place vary together: log-covariances on a pyramid.

    Covariance descriptors: Tuzel, Porikli, Meer, ECCV 2006; log-Euclidean metric: Arsigny et al., MRM 2006.
    """
    maps = _structure_maps(grey.astype(np.float32) / np.float32(255))
    return np.concatenate([_log_covariances(maps, cells) / cells for cells in grids])


def _structure_maps(plane: Plane) -> Maps:
    import cv2

    across, down = (cv2.Sobel(plane, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    across2, down2, both = (cv2.Sobel(plane, cv2.CV_32F, *order) for order in ((2, 0), (0, 2), (1, 1)))
    smooth = [plane, *(cv2.GaussianBlur(plane, (0, 0), sigma) for sigma in (2.0, 4.0, 8.0))]
    blobs = [smooth[level] - smooth[level + 1] for level in range(3)]
    rows, columns = np.indices(plane.shape, dtype=np.float32) / np.float32(plane.shape[0]) - np.float32(0.5)
    edges = [np.abs(map_) for map_ in (across, down, across2, down2, *blobs, both)]
    return np.stack([plane, *edges, columns, rows, np.hypot(columns, rows)])


def _log_covariances(maps: Maps, cells: int) -> Block:
    """Upper triangles of log(covariance) of the features in each of cells x cells parts, off-diagonals times sqrt 2."""
    features, rows, columns = maps.shape
    parts = maps.reshape(features, cells, rows // cells, cells, columns // cells).transpose(1, 3, 0, 2, 4)
    values = np.ascontiguousarray(parts).reshape(cells * cells, features, -1)
    values = values - values.mean(axis=2, keepdims=True)
    products = np.einsum("nik,njk->nij", values, values, optimize=False).astype(np.float64)
    covariances = products / values.shape[2] + _NOISE * np.eye(features)
    variances, axes = np.linalg.eigh(covariances)
    logs = np.einsum("nij,nj,nkj->nik", axes, np.log(np.maximum(variances, _NOISE / 2)), axes, optimize=False)
    upper = np.triu_indices(features)
    weights = np.where(upper[0] == upper[1], 1.0, np.sqrt(2.0))
    return np.ravel(logs[:, upper[0], upper[1]] * weights)
