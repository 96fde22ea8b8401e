"""Figures that can be taken of all cases or of some, as they are and in every bootstrap draw.

Overall figures, those of a group, gaps between groups and differences between encoders are all made of these, so
each figure has one definition. ``chosen``: bool ``[cases]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from retrieval.curves import auc, drawn_auc
from retrieval.evidence.reliability import BINS, error_by_chance, mean_calibration_error
from retrieval.resampling import Draws, Flags

LEAST_OUTCOMES = 10  # cases with a value, and cases without, for an area under the curve
Numbers = npt.NDArray[np.float64]


class Statistic(Protocol):
    """One figure. ``value`` is NaN where there is too little to measure it on; ``count`` says on how many cases."""

    @property
    def name(self) -> str: ...

    def count(self, chosen: Flags) -> int: ...

    def value(self, chosen: Flags) -> float: ...

    def drawn(self, draws: Draws, chosen: Flags) -> Numbers: ...


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its interval, on so many cases. NaN where it can't be measured."""

    name: str
    value: float
    low: float
    high: float
    cases: int


@dataclass(frozen=True, slots=True)
class Taken:
    """A figure, and its value in every draw [draws], None where it can't be measured."""

    figure: Figure
    drawn: Numbers | None


def taken(statistic: Statistic, draws: Draws, chosen: Flags) -> Figure:
    """The figure of the chosen cases with its bootstrap interval."""
    return taken_with_draws(statistic, draws, chosen).figure


def taken_with_draws(statistic: Statistic, draws: Draws, chosen: Flags) -> Taken:
    """The same with the draws themselves, to be paired with those of another figure."""
    value, cases = statistic.value(chosen), statistic.count(chosen)
    if not np.isfinite(value):
        return Taken(Figure(statistic.name, float("nan"), float("nan"), float("nan"), cases), None)
    drawn = statistic.drawn(draws, chosen)
    interval = draws.interval(drawn)
    return Taken(Figure(statistic.name, value, interval.low, interval.high, cases), drawn)


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean of ``values`` [cases] where there is one (elsewhere NaN): P@k, sensitivity, specificity and such."""

    name: str
    values: Numbers

    def count(self, chosen: Flags) -> int:
        return int((np.isfinite(self.values) & chosen).sum())

    def value(self, chosen: Flags) -> float:
        kept = self.values[np.isfinite(self.values) & chosen]
        return float(kept.mean()) if len(kept) else float("nan")

    def drawn(self, draws: Draws, chosen: Flags) -> Numbers:
        return draws.means(self.values, chosen)


@dataclass(frozen=True, slots=True)
class Area:
    """Area under the ROC curve of ``scores`` [cases] for ``truth`` [cases]."""

    name: str
    scores: Numbers
    truth: Flags

    def count(self, chosen: Flags) -> int:
        return int(chosen.sum())

    def enough(self, chosen: Flags) -> bool:
        """Whether there are enough cases of both outcomes."""
        positives = int((self.truth & chosen).sum())
        return min(positives, int(chosen.sum()) - positives) >= LEAST_OUTCOMES

    def value(self, chosen: Flags) -> float:
        return auc(self.scores[chosen], self.truth[chosen]) if self.enough(chosen) else float("nan")

    def drawn(self, draws: Draws, chosen: Flags) -> Numbers:
        return drawn_auc(self.scores, self.truth, draws, np.flatnonzero(chosen))


@dataclass(frozen=True, slots=True)
class CalibrationError:
    """Expected calibration error of ``probabilities`` [cases, values] for ``truth``, mean over the values.

    Drawing cases again adds noise to every bin, and noise of either sign adds to this error. So draws are moved by how
    much their mean exceeds the value (the bootstrap estimate of bias; Efron, Tibshirani 1993, chapter 10), not below 0.
    """

    name: str
    probabilities: Numbers
    truth: Flags

    def count(self, chosen: Flags) -> int:
        return int(chosen.sum())

    def value(self, chosen: Flags) -> float:
        if not chosen.any():
            return float("nan")
        return mean_calibration_error(self.probabilities[chosen], self.truth[chosen])

    def by_chance(self, chosen: Flags) -> float:
        """What it would be on these cases if every probability were right: more where they are few."""
        return float(np.mean([error_by_chance(column) for column in self.probabilities[chosen].T]))

    def drawn(self, draws: Draws, chosen: Flags) -> Numbers:
        times = draws.times.astype(np.float64)
        patients = times.shape[1]
        cluster = draws.cluster[chosen]
        whole = times @ np.bincount(cluster, minlength=patients)
        total = np.zeros(len(times))
        for column, outcomes in zip(self.probabilities[chosen].T, self.truth[chosen].T, strict=True):
            cells = cluster * BINS + np.minimum((column * BINS).astype(np.int64), BINS - 1)
            excess = np.bincount(cells, weights=column - outcomes, minlength=patients * BINS)
            total += np.abs(times @ excess.reshape(patients, BINS)).sum(axis=1)
        out = np.full(len(times), np.nan)
        np.divide(total / self.truth.shape[1], whole, out=out, where=whole > 0)
        moved: Numbers = np.maximum(out - (np.nanmean(out) - self.value(chosen)), 0.0)
        return moved


@dataclass(frozen=True, slots=True)
class Average:
    """The mean of several figures, NaN where one of them can't be measured."""

    name: str
    parts: Sequence[Statistic]

    def count(self, chosen: Flags) -> int:
        return max((part.count(chosen) for part in self.parts), default=0)

    def value(self, chosen: Flags) -> float:
        return float(np.mean([part.value(chosen) for part in self.parts])) if self.parts else float("nan")

    def drawn(self, draws: Draws, chosen: Flags) -> Numbers:
        return np.asarray(np.mean([part.drawn(draws, chosen) for part in self.parts], axis=0), dtype=np.float64)
