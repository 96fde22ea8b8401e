"""Centres and axes of rows: the general blocks are fitted in closed form, without labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.floating[Any]]

_LEAST = 1e-3  # of the largest variance, added to each


def balanced(of_set: npt.NDArray[np.int64]) -> Rows:
    """A share for every frame, adding up to 1: sets count by the root of their size, so none drowns the others."""
    shares = 1 / np.sqrt(np.bincount(of_set)[of_set])
    return np.asarray(shares / shares.sum())


def principal(rows: Rows, shares: Rows, dim: int, shrinkage: float | None) -> tuple[Rows, Rows]:
    """The mean [d] of ``rows`` [n, d] and the matrix [d, dim] onto their principal axes.

    Each axis is divided by its deviation, which ``shrinkage`` (of the mean variance, added to each) keeps from being
    small; with None axes are only turned. Axes point to where their largest entry is positive.
    """
    centre = shares @ rows
    centred = (rows - centre).astype(np.float64)
    covariance = centred.T @ (centred * shares[:, None])
    variances, axes = np.linalg.eigh(covariance)
    variances, axes = np.clip(variances[::-1][:dim], 0, None), axes[:, ::-1][:, :dim]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    if shrinkage is None:
        return centre, axes
    return centre, axes / np.sqrt(variances + shrinkage * np.trace(covariance) / len(covariance))


def channel_axes(means: Rows, covariances: Rows, shares: Rows, kept: int) -> Rows:
    """[channels, kept]: whitens the channels of a map by their covariance over the positions of all frames.

    ``means`` [n, channels] and ``covariances`` [n, channels, channels] are those of each frame.
    """
    centre = shares @ means
    between = (means - centre).T @ ((means - centre) * shares[:, None])
    variances, axes = np.linalg.eigh(np.tensordot(shares, covariances, 1) + between)
    variances, axes = variances[::-1][:kept], axes[:, ::-1][:, :kept]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(kept)])
    return np.asarray(axes / np.sqrt(variances + _LEAST * variances[0]))
