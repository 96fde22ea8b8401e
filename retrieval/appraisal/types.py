"""What an appraisal comes to: plain figures, ready for JSON and for the page."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from retrieval.appraisal.confusions import Confusion
from retrieval.appraisal.doubles import Double
from retrieval.appraisal.fairness import AttributeFigures
from retrieval.appraisal.statistics import Figure
from retrieval.evaluation import EvaluationReport, without_nan
from retrieval.evidence.reliability import ReliabilityBin


@dataclass(frozen=True, slots=True)
class Curve:
    """An ROC curve, thinned to what can be seen; the interval of its height at each false-positive rate of ``grid``."""

    false_positive: tuple[float, ...]
    true_positive: tuple[float, ...]
    grid: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class PointFigures:
    """One operating point: thresholds (least and greatest over the folds) set on the other folds, figures held out."""

    name: str
    least_threshold: float
    greatest_threshold: float
    sensitivity: Figure
    specificity: Figure
    positive_predictive_value: Figure
    negative_predictive_value: Figure


@dataclass(frozen=True, slots=True)
class Rarer:
    """P@k of queries with a value, were its prevalence this; ``best``: of a perfect ranking. NaN: too few on file."""

    prevalence: float
    precision: Figure
    chance: float
    best: float


@dataclass(frozen=True, slots=True)
class ValueFigures:
    """One value of the label, against all others. ``origin_auc``: of a score that knows only where a case came from."""

    value: str
    cases: int
    patients: int
    auc: Figure
    origin_auc: float
    curve: Curve
    points: tuple[PointFigures, ...]
    precision: Figure  # P@k of its queries, only cases with this very value counting
    chance: float
    rarer: tuple[Rarer, ...]
    calibration_error: Figure


@dataclass(frozen=True, slots=True)
class SmallValue:
    """A value that is named and not measured on its own: too few cases or patients have it, or lack it."""

    value: str
    cases: int
    patients: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far held-out probabilities can be believed. ``raw``: shares of the vote, as they are.

    ``error_by_chance``: what the error would be if all probabilities were right, for so many cases.
    """

    bins: tuple[ReliabilityBin, ...]
    error: Figure
    error_by_chance: float
    raw_error: Figure
    brier: Figure
    raw_brier: Figure


@dataclass(frozen=True, slots=True)
class Appraisal:
    """All figures of one gallery on one label. ``asked``: queries, a sample of the cases where there are very many.

    ``auc``: mean over the measured values. ``origin_auc``: that of the origin oracle, NaN where there is one origin.
    """

    report: EvaluationReport
    asked: int
    k: int  # of P@k at other prevalences
    ways: tuple[str, ...]  # how neighbours vote, as each fold chose; () where nothing could be held out
    values: tuple[ValueFigures, ...]
    small_values: tuple[SmallValue, ...]
    auc: Figure
    origin_auc: float
    calibration: Calibration | None
    fairness: tuple[AttributeFigures, ...]
    confusions: tuple[Confusion, ...]
    doubles: tuple[Double, ...]
    notes: tuple[str, ...]

    def figures(self) -> dict[str, float]:
        """Every overall figure by its name: ``P@5``, ``mAP``, ``nDCG@10``, ``AUC``, ``AUC[value]``, ``ECE`` ..."""
        out = {measure.name: measure.value for measure in self.report.measures}
        out["AUC"] = self.auc.value
        out |= {f"AUC[{of.value}]": of.auc.value for of in self.values}
        if self.calibration is not None:
            out |= {"ECE": self.calibration.error.value, "Brier": self.calibration.brier.value}
        return out

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; a figure that does not exist is null."""
        plain: dict[str, Any] = without_nan(asdict(self))
        return plain
