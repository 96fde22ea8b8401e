"""Each value of the label on its own: curve, operating points, precision at other prevalences, calibration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from retrieval.appraisal.held_out import POINTS, HeldOut
from retrieval.appraisal.observation import Observed
from retrieval.appraisal.statistics import LEAST_OUTCOMES, Area, CalibrationError, Mean, taken
from retrieval.appraisal.types import Curve, PointFigures, Rarer, SmallValue, ValueFigures
from retrieval.curves import GRID, auc, roc, roc_band
from retrieval.leave_one_out import Cohort
from retrieval.prevalence import PREVALENCES, left_after_drawing
from retrieval.resampling import Draws, Flags

LEAST_PATIENTS = 10  # that have a value, and that lack it
MOST_VALUES = 40  # measured on their own, the most frequent
CURVE_POINTS = 120


def measurable(cohort: Cohort, queries: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], tuple[SmallValue, ...]]:
    """Columns of the values that enough queries and patients have, and lack; then the others, frequent ones first."""
    members, patients = cohort.members[queries] > 0, cohort.patients[queries]
    counts, enough = members.sum(axis=0), []
    having = [len(np.unique(patients[members[:, column]])) for column in range(members.shape[1])]
    for column, count in enumerate(counts):
        lacking = len(np.unique(patients[~members[:, column]]))
        if min(count, len(queries) - count) >= LEAST_OUTCOMES and min(having[column], lacking) >= LEAST_PATIENTS:
            enough.append(column)
    by_size = sorted(enough, key=lambda column: (-counts[column], cohort.classes[column]))
    measured = sorted(by_size[:MOST_VALUES])
    others = sorted(set(range(len(counts))) - set(measured), key=lambda column: (-counts[column], column))
    small = tuple(SmallValue(cohort.classes[column], int(counts[column]), having[column]) for column in others)
    return np.array(measured, dtype=np.int64), small


def point_statistics(held: HeldOut, value: int, name: str) -> list[Mean]:
    """Sensitivity and specificity at every operating point, of one value, as figures that any group can have."""
    out = []
    for point, _ in POINTS:
        flagged, truth = held.flagged[point][:, value].astype(np.float64), held.truth[:, value]
        out.append(Mean(f"sensitivity[{name}, {point}]", np.where(truth, flagged, np.nan)))
        out.append(Mean(f"specificity[{name}, {point}]", np.where(truth, np.nan, 1 - flagged)))
    return out


def value_figures(
    cohort: Cohort,
    observed: Observed,
    held: HeldOut,
    measured: npt.NDArray[np.int64],
    areas: Sequence[Area],
    draws: Draws,
    k: int,
) -> tuple[ValueFigures, ...]:
    """The figures of every measured value, in the order of ``measured``."""
    everyone = np.ones(len(held.truth), dtype=bool)
    patients = cohort.patients[observed.queries]
    out = []
    for value, column in enumerate(measured):
        truth, asked = held.truth[:, value], held.truth[:, value] & (observed.scores.totals > 0)
        precision = np.where(asked, _precision(observed, k)[:, column], np.nan)
        chance = np.where(asked, observed.scores.class_chance[:, column], np.nan)
        out.append(
            ValueFigures(
                value=cohort.classes[column],
                cases=int(truth.sum()),
                patients=len(np.unique(patients[truth])),
                auc=taken(areas[value], draws, everyone),
                origin_auc=_origin_auc(cohort, observed, int(column), truth),
                curve=_curve(held.shares[:, value], truth, draws),
                points=tuple(_point(held, value, point, draws) for point, _ in POINTS),
                precision=taken(Mean(f"P@{k}", precision), draws, everyone),
                chance=float(np.nanmean(chance)),
                rarer=_rarer(cohort, observed, value, int(column), draws, k),
                calibration_error=taken(
                    CalibrationError("ECE", held.probabilities[:, [value]], held.truth[:, [value]]), draws, everyone
                ),
            )
        )
    return tuple(out)


def _precision(observed: Observed, k: int) -> npt.NDArray[np.float64]:
    """P@k of each query for each class, [q, classes]."""
    ks = [int(name[2:]) for name in observed.scores.names if name.startswith("P@")]
    return observed.scores.class_precision[:, ks.index(k)]


def _origin_auc(cohort: Cohort, observed: Observed, column: int, truth: Flags) -> float:
    """AUC of how many other patients' cases of the same origin have the value; NaN where there is one origin."""
    if cohort.origins is None:
        return float("nan")
    pairs = np.stack([cohort.origins, cohort.patients], axis=1)
    _, group = np.unique(pairs, axis=0, return_inverse=True)
    has = cohort.members[:, column].astype(np.float64)
    of_origin = np.bincount(cohort.origins, weights=has)[cohort.origins] - np.bincount(group, weights=has)[group]
    size = np.bincount(cohort.origins)[cohort.origins] - np.bincount(group)[group]
    return auc((of_origin / np.maximum(size, 1))[observed.queries], truth)


def _curve(shares: npt.NDArray[np.float64], truth: Flags, draws: Draws) -> Curve:
    whole, band = roc(shares, truth), roc_band(shares, truth, draws)
    kept = np.unique(np.linspace(0, len(whole.thresholds) - 1, CURVE_POINTS).round().astype(np.int64))

    def told(numbers: npt.NDArray[np.float64]) -> tuple[float, ...]:
        return tuple(round(float(number), 4) for number in numbers)

    return Curve(
        told(whole.false_positive[kept]), told(whole.true_positive[kept]), told(GRID), told(band.low), told(band.high)
    )


def _point(held: HeldOut, value: int, point: str, draws: Draws) -> PointFigures:
    flagged, truth = held.flagged[point][:, value], held.truth[:, value]
    everyone = np.ones(len(truth), dtype=bool)
    thresholds = held.thresholds[point][:, value]

    def share(name: str, of: Flags, among: Flags) -> Mean:
        return Mean(name, np.where(among, of.astype(np.float64), np.nan))

    return PointFigures(
        name=point,
        least_threshold=float(thresholds.min()),
        greatest_threshold=float(thresholds.max()),
        sensitivity=taken(share("sensitivity", flagged, truth), draws, everyone),
        specificity=taken(share("specificity", ~flagged, ~truth), draws, everyone),
        positive_predictive_value=taken(share("positive predictive value", truth, flagged), draws, everyone),
        negative_predictive_value=taken(share("negative predictive value", ~truth, ~flagged), draws, everyone),
    )


def _rarer(cohort: Cohort, observed: Observed, value: int, column: int, draws: Draws, k: int) -> tuple[Rarer, ...]:
    everyone = np.ones(len(observed.queries), dtype=bool)
    having = int(cohort.members[:, column].sum())
    out = []
    for which, prevalence in enumerate(PREVALENCES):
        left = left_after_drawing(having, len(cohort.members) - having, prevalence)
        figure = taken(Mean(f"P@{k}", observed.rarer[:, value, which]), draws, everyone)
        measured = np.isfinite(figure.value)
        chance = left[0] / max(sum(left), 1) if measured else float("nan")
        out.append(Rarer(prevalence, figure, chance, min(1.0, left[0] / k) if measured else float("nan")))
    return tuple(out)
