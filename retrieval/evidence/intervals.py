"""Pure: a number from neighbours' numbers, and an interval from the errors made on patients left out.

Intervals are conformal: half of the width is the quantile of the errors on held-out cases that ``level`` of them do
not exceed, with the correction for finite samples, so that it holds for a new case of the same kind whatever the
errors' distribution (Vovk, Gammerman, Shafer, *Algorithmic Learning in a Random World*, 2005; with errors over a
spread, so that intervals are wider where neighbours disagree: Lei et al., "Distribution-free predictive inference for
regression", JASA 113, 2018).
"""

from __future__ import annotations

import math
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from retrieval.evidence.votes import Weights

Reals = npt.NDArray[np.float64]


class Centre(StrEnum):
    """How neighbours' numbers become one."""

    MEAN = "mean"
    MEDIAN = "median"


class Scale(StrEnum):
    """What an error is measured by."""

    CONSTANT = "constant"  # the unit of the label: every interval is as wide
    SPREAD = "spread"  # the neighbours' spread: intervals are wider where these disagree


def centre_of(numbers: Reals, weights: Weights, centre: Centre) -> Reals:
    """Weighted mean or median of each row, [q], of numbers [q, k]; what has no weight may be NaN."""
    known = np.where(weights > 0, numbers, 0.0)
    if centre is Centre.MEAN:
        return np.asarray((weights * known).sum(axis=1), dtype=np.float64)
    order = np.argsort(np.where(weights > 0, numbers, np.inf), axis=1, kind="stable")
    below = np.cumsum(np.take_along_axis(weights, order, axis=1), axis=1)
    at = np.argmax(below >= 0.5 - 1e-12, axis=1)[:, None]
    return np.asarray(np.take_along_axis(np.take_along_axis(known, order, axis=1), at, axis=1)[:, 0])


def spread_of(numbers: Reals, weights: Weights) -> Reals:
    """Weighted standard deviation of each row, [q]."""
    known = np.where(weights > 0, numbers, 0.0)
    mean = (weights * known).sum(axis=1, keepdims=True)
    return np.asarray(np.sqrt((weights * (known - mean) ** 2).sum(axis=1)), dtype=np.float64)


def units_of(spreads: Reals, scale: Scale, typical: float) -> Reals:
    """What each error is divided by, [q]: 1, or the spread added to a ``typical`` one, so that neighbours who happen to
    agree give no interval of no width."""
    if scale is Scale.CONSTANT or typical <= 0:
        return np.ones_like(spreads)
    return np.asarray(spreads + typical, dtype=np.float64)


def quantile(errors: Reals, level: float) -> float:
    """The ``ceil((n + 1) level)``-th smallest error [n]; infinite when there are too few for this level."""
    at = math.ceil((len(errors) + 1) * level - 1e-9)
    return float(np.sort(errors)[at - 1]) if at <= len(errors) else math.inf


def least_for(level: float) -> int:
    """How many errors an interval of this level needs."""
    return math.ceil(level / (1.0 - level) * (1.0 - 1e-9))


def interval_score(truth: Reals, low: Reals, high: Reals, level: float) -> Reals:
    """Width, and 2 / (1 - level) times how far the number lies outside, [n]: least for intervals that are narrow and
    right (Gneiting, Raftery, "Strictly proper scoring rules", JASA 102, 2007)."""
    outside = np.maximum(low - truth, 0.0) + np.maximum(truth - high, 0.0)
    return np.asarray(high - low + 2.0 / (1.0 - level) * outside, dtype=np.float64)
