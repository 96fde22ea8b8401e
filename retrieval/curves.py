"""ROC curves of scores that should be high where something is true. Pure.

``scores``: float ``[n]``, higher says "true" more firmly; ``truth``: bool ``[n]``. Ties count half, as in the
Mann-Whitney statistic, to which the area is equal (Hanley, McNeil, *Radiology* 143, 1982).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval.resampling import Draws, Weights

Scores = npt.NDArray[np.float64]
Truth = npt.NDArray[np.bool_]
_ONE_IN_TWENTY = 1.6449  # normal quantile of 0.95
GRID = np.linspace(0.0, 1.0, 51)  # false-positive rates at which bands are given


@dataclass(frozen=True, slots=True)
class Roc:
    """False-positive rate, true-positive rate and threshold, rising from (0, 0) to (1, 1)."""

    false_positive: Scores
    true_positive: Scores
    thresholds: Scores


@dataclass(frozen=True, slots=True)
class Band:
    """Interval of the true-positive rate at each false-positive rate of ``GRID``, [51] each."""

    low: Scores
    high: Scores


def roc(scores: Scores, truth: Truth) -> Roc:
    """The curve, corners only, by scikit-learn. Raises ``ValueError`` unless both outcomes occur."""
    from sklearn.metrics import roc_curve

    _check(truth)
    return Roc(*(np.asarray(part, dtype=np.float64) for part in roc_curve(truth, scores)))


def auc(scores: Scores, truth: Truth) -> float:
    """Area under the ROC curve, by scikit-learn. Raises ``ValueError`` unless both outcomes occur."""
    from sklearn.metrics import roc_auc_score

    _check(truth)
    return float(roc_auc_score(truth, scores))


def area_by_chance(true: int, others: int) -> float:
    """The area that scores which know nothing exceed one time in twenty, where so many are true and so many are not.

    By the normal limit of the Mann-Whitney statistic (Mann, Whitney, *Annals of Mathematical Statistics* 18, 1947).
    """
    return 0.5 + _ONE_IN_TWENTY * math.sqrt((true + others + 1) / (12 * true * others))


def weighted_auc(scores: Scores, truth: Truth, weights: Weights) -> Scores:
    """The area for each row of ``weights`` [draws, n], [draws]; NaN for a draw without one of the outcomes."""
    others = np.flatnonzero(~truth)
    others = others[np.argsort(scores[others], kind="stable")]
    below = np.searchsorted(scores[others], scores[truth], side="left")
    not_above = np.searchsorted(scores[others], scores[truth], side="right")
    of_others = _from_zero(np.cumsum(weights.T[others], axis=0))
    of_true = weights.T[truth]
    won = (of_true * (of_others[below] + of_others[not_above])).sum(axis=0, dtype=np.float64) / 2
    pairs = of_true.sum(axis=0, dtype=np.float64) * of_others[-1]
    out = np.full(len(weights), np.nan)
    np.divide(won, pairs, out=out, where=pairs > 0)
    return out


def drawn_auc(scores: Scores, truth: Truth, draws: Draws, chosen: npt.NDArray[np.int64]) -> Scores:
    """The area in every bootstrap draw, [draws], over the ``chosen`` cases (rows of ``scores`` and ``truth``)."""
    parts = [weighted_auc(scores[chosen], truth[chosen], weights) for weights in draws.weights(chosen)]
    return np.concatenate(parts)


def roc_band(scores: Scores, truth: Truth, draws: Draws) -> Band:
    """Pointwise interval of the curve over the draws, at the false-positive rates of ``GRID``."""
    order, starts = _by_score(-scores)
    curves = []
    for weights in draws.weights(order):
        true = truth[order, None]
        positive = _cumulated(np.where(true, weights.T, 0), starts)
        negative = _cumulated(np.where(true, 0, weights.T), starts)
        both = (positive[:, -1] > 0) & (negative[:, -1] > 0)
        rates = zip(negative[both], positive[both], strict=True)
        curves += [np.interp(GRID, n / n[-1], p / p[-1]) for n, p in rates]
    tail = (1 - draws.level) / 2
    low, high = np.quantile(np.array(curves), [tail, 1 - tail], axis=0)
    return Band(low, high)


def _by_score(scores: Scores) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Cases by rising score, and where each run of equal scores begins."""
    order = np.argsort(scores, kind="stable")
    sorted_scores = scores[order]
    return order, np.flatnonzero(np.concatenate([[True], sorted_scores[1:] != sorted_scores[:-1]]))


def _cumulated(of_cases: npt.NDArray[Any], starts: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Sums of [n, draws] up to the end of each run of cases, from 0 on, [draws, runs + 1]."""
    ends = np.append(starts[1:], len(of_cases))
    return np.ascontiguousarray(_from_zero(np.cumsum(of_cases, axis=0)[ends - 1]).T)


def _from_zero(sums: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.concatenate([np.zeros((1, sums.shape[1]), dtype=sums.dtype), sums])


def _check(truth: Truth) -> None:
    if truth.all() or not truth.any():
        raise ValueError("An ROC curve needs cases where it is true and cases where it is not; got one kind only.")
