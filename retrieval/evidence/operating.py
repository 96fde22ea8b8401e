"""Pure: where to cut a probability. Each operating point is chosen on scores that are held, so another one is free.

``scores``: float ``[n]``, higher says "true" more firmly; ``truth``: bool ``[n]``, with both outcomes. A case is called
true at or above a threshold. Thresholds are scores that occurred; where several do equally well, the highest is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from retrieval.errors import UsageError

Scores = npt.NDArray[np.float64]
Truth = npt.NDArray[np.bool_]
SENSITIVITY = 0.90  # of the rule-out point, unless another is asked for


class Answer(StrEnum):
    """What two thresholds say of a probability."""

    POSITIVE = "positive"  # at or above both
    POSSIBLE = "possible"  # between them
    NEGATIVE = "negative"  # below both
    UNKNOWN = "unknown"  # there are no thresholds: too few patients, or votes that tell nothing


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A threshold, how it was chosen, and what it reaches on the scores it was chosen on."""

    name: str  # as "youden", "sensitivity>=0.90", "specificity>=0.95"
    threshold: float
    sensitivity: float  # share of the true that lie at or above it
    specificity: float  # share of the others that lie below it


Chooser = Callable[[Scores, Truth], OperatingPoint | None]


def youden(scores: Scores, truth: Truth) -> OperatingPoint:
    """Where sensitivity + specificity is greatest (Youden, "Index for rating diagnostic tests", Cancer 3, 1950)."""
    curve = _curve(scores, truth)
    return curve.point("youden", int(np.argmax(curve.sensitivity + curve.specificity)))


def at_sensitivity(scores: Scores, truth: Truth, wanted: float = SENSITIVITY) -> OperatingPoint:
    """The highest threshold that at least this share of the true cases reaches."""
    check_share("sensitivity", wanted)
    curve = _curve(scores, truth)
    return curve.point(f"sensitivity>={wanted:.2f}", int(np.argmax(curve.sensitivity >= wanted)))


def at_specificity(scores: Scores, truth: Truth, wanted: float) -> OperatingPoint | None:
    """The lowest threshold that at least this share of the other cases stays below; None when no score has it."""
    check_share("specificity", wanted)
    curve = _curve(scores, truth)
    reached = np.flatnonzero(curve.specificity >= wanted)
    return curve.point(f"specificity>={wanted:.2f}", int(reached[-1])) if len(reached) else None


def check_share(name: str, wanted: float) -> None:
    """UsageError unless it is above 0 and at most 1."""
    if not 0 < wanted <= 1:
        raise UsageError(f"Expected a {name} above 0 and at most 1, got {wanted}.")


def judged(probability: float, rule_in: OperatingPoint, rule_out: OperatingPoint) -> Answer:
    """Positive at or above both thresholds, negative below both, possible between.

    With good scores the rule-out threshold lies above the rule-in one: the sensitivity asked for is reached at a
    stricter cut than the best compromise. Then, too, what is between is neither ruled in nor out by both.
    """
    low, high = sorted((rule_in.threshold, rule_out.threshold))
    if probability >= high:
        return Answer.POSITIVE
    return Answer.POSSIBLE if probability >= low else Answer.NEGATIVE


@dataclass(frozen=True, slots=True)
class Reached:
    """What a way of choosing thresholds reaches on cases that it was not chosen on."""

    sensitivity: float
    specificity: float


def reached(scores: Scores, truth: Truth, folds: npt.NDArray[np.int64], choose: Chooser) -> Reached | None:
    """Sensitivity and specificity on each fold of the threshold chosen on the others, over all cases.

    None when the others never hold both outcomes, or choose no threshold.
    """
    called, judged_ = np.zeros(len(scores), dtype=bool), np.zeros(len(scores), dtype=bool)
    for fold in np.unique(folds).tolist():
        here, others = folds == fold, folds != fold
        if truth[others].all() or not truth[others].any():
            continue
        if point := choose(scores[others], truth[others]):
            called[here], judged_[here] = scores[here] >= point.threshold, True
    true, other = truth & judged_, ~truth & judged_
    if not true.any() or not other.any():
        return None
    return Reached(float(called[true].mean()), float(1.0 - called[other].mean()))


@dataclass(frozen=True, slots=True)
class _Curve:
    """Every threshold there is, from the highest, [m] each."""

    sensitivity: Scores
    specificity: Scores
    thresholds: Scores

    def point(self, name: str, at: int) -> OperatingPoint:
        return OperatingPoint(
            name, float(self.thresholds[at]), float(self.sensitivity[at]), float(self.specificity[at])
        )


def _curve(scores: Scores, truth: Truth) -> _Curve:
    """By scikit-learn; the first of its thresholds, infinity, which nothing reaches, is left out."""
    from sklearn.metrics import roc_curve

    if truth.all() or not truth.any():
        raise ValueError("Thresholds need cases where it is true and cases where it is not; got one kind only.")
    false_positive, true_positive, thresholds = roc_curve(truth, scores, drop_intermediate=False)
    others = int((~truth).sum())
    below = others - np.round(false_positive[1:] * others)  # whole cases: 1 - 0.8 would be less than 0.2
    return _Curve(true_positive[1:], below / others, thresholds[1:])
