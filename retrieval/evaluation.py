"""Leave-one-patient-out evaluation of a gallery on a label.

Every labelled case asks for all labelled cases of *other* patients; a case is relevant when it shares a value with the
query. Similarities are exhaustive, in blocks, so memory does not grow with the square of the gallery.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval import metrics
from retrieval.errors import UsageError
from retrieval.leave_one_out import BLOCK_CELLS, Cohort, Scores, cohort_of, score, unknown_patients
from retrieval.types import UnitRows

DEFAULT_KS = (1, 5, 10)


@dataclass(frozen=True, slots=True)
class Measure:
    """The mean of one measure over the queries, its interval, what a random ranking would have.

    ``origin`` is the expected value of a ranking that knows only where each case came from (the origin oracle), for
    P@k when origins are given: a result that does not beat it may have learnt the data set and not the disease.
    """

    name: str
    value: float
    low: float
    high: float
    chance: float
    origin: float | None = None


@dataclass(frozen=True, slots=True)
class ClassPrecision:
    """One value of the label: P@k of its queries, counting as relevant only cases with this very value."""

    value: str
    cases: int
    queries: int
    patients: int
    chance: float
    precision: tuple[tuple[int, float], ...]  # (k, P@k)


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """``unanswerable``: labelled cases with no relevant case of another patient; they ask nothing and are counted."""

    cases: int
    queries: int
    unanswerable: int
    patients: int
    classes: int
    measures: tuple[Measure, ...]
    per_class: tuple[ClassPrecision, ...]
    level: float
    resamples: int
    seed: int
    notes: tuple[str, ...]

    def measure(self, name: str) -> Measure:
        """One measure by its name, for instance ``P@5``, ``R@10``, ``S@5``, ``mAP``, ``nDCG@10``."""
        return next(measure for measure in self.measures if measure.name == name)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; a figure that does not exist is null."""
        plain: dict[str, Any] = without_nan(asdict(self))
        return plain


def evaluate(
    vectors: UnitRows,
    patient_keys: Sequence[str],
    values: Sequence[Sequence[str]],
    ks: Sequence[int] = DEFAULT_KS,
    seed: int = 0,
    *,
    origins: Sequence[str] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    block_cells: int = BLOCK_CELLS,
) -> EvaluationReport:
    """Evaluate ``vectors`` [n, d] with one patient key ("" when unknown) and the label's values for each case.

    Cases without a value are left out. A case without a patient key counts as a patient of its own. ``origins``
    (a data set or site per case) adds the origin oracle. Ties rank by position. Raises ``UsageError`` when nothing
    can be evaluated or the arguments do not fit together.
    """
    ks = checked_ks(ks)
    if not len(vectors) == len(patient_keys) == len(values) == len(origins or values):
        raise UsageError("Expected one vector, one patient key, one set of values (and one origin) for each case.")
    labelled = np.array([i for i, of_case in enumerate(values) if of_case], dtype=np.int64)
    cohort = cohort_of(vectors, patient_keys, values, origins, labelled)
    unknown = unknown_patients([patient_keys[i] for i in labelled])
    scores = score(cohort, ks, block_cells)
    return report_of(cohort, scores, np.arange(len(labelled)), ks, unknown, seed, resamples, level)


def report_of(
    cohort: Cohort,
    scores: Scores,
    queries: npt.NDArray[np.int64],
    ks: tuple[int, ...],
    unknown: int,
    seed: int,
    resamples: int,
    level: float,
) -> EvaluationReport:
    """The report on the scores of ``queries`` (rows of the cohort). ``unknown``: cases without a patient id.

    Raises ``UsageError`` when no query has a relevant case of another patient.
    """
    asked = scores.totals > 0
    if not asked.any():
        raise UsageError(
            f"None of the {len(queries)} labelled cases shares a value with a case of another patient: "
            "nothing can be evaluated. Check the label's name, the filter and the patient ids."
        )
    return EvaluationReport(
        cases=len(cohort.patients),
        queries=int(asked.sum()),
        unanswerable=int((~asked).sum()),
        patients=len(np.unique(cohort.patients)),
        classes=len(cohort.classes),
        measures=_measures(scores, asked, cohort.patients[queries], seed, resamples, level),
        per_class=_per_class(scores, asked, cohort, queries, ks),
        level=level,
        resamples=resamples,
        seed=seed,
        notes=_notes(len(cohort.patients), unknown, int((~asked).sum())),
    )


def checked_ks(ks: Sequence[int]) -> tuple[int, ...]:
    if not ks or min(ks) < 1:
        raise UsageError("Expected ranks k of at least 1.")
    return tuple(sorted(set(ks)))


def _measures(
    scores: Scores,
    asked: npt.NDArray[np.bool_],
    patients: npt.NDArray[np.int64],
    seed: int,
    resamples: int,
    level: float,
) -> tuple[Measure, ...]:
    out = []
    for column, name in enumerate(scores.names):
        values = scores.values[asked, column]
        interval = metrics.patient_bootstrap(values, patients[asked], seed, resamples, level)
        oracle = scores.origin[asked, column]
        out.append(
            Measure(
                name=name,
                value=float(values.mean()),
                low=interval.low,
                high=interval.high,
                chance=float(scores.chance[asked, column].mean()),
                origin=None if np.isnan(oracle).all() else float(oracle.mean()),
            )
        )
    return tuple(out)


def _per_class(
    scores: Scores,
    asked: npt.NDArray[np.bool_],
    cohort: Cohort,
    rows: npt.NDArray[np.int64],
    ks: tuple[int, ...],
) -> tuple[ClassPrecision, ...]:
    out = []
    for column, value in enumerate(cohort.classes):
        carriers = cohort.members[:, column] > 0
        queries = carriers[rows] & asked
        means = scores.class_precision[queries, :, column].mean(axis=0) if queries.any() else np.full(len(ks), np.nan)
        out.append(
            ClassPrecision(
                value=value,
                cases=int(carriers.sum()),
                queries=int(queries.sum()),
                patients=len(np.unique(cohort.patients[carriers])),
                chance=float(scores.class_chance[queries, column].mean()) if queries.any() else float("nan"),
                precision=tuple(zip(ks, map(float, means), strict=True)),
            )
        )
    return tuple(out)


def _notes(cases: int, unknown: int, unanswerable: int) -> tuple[str, ...]:
    notes = []
    if unknown:
        notes.append(
            f"{unknown} of {cases} cases have no patient id and count as patients of their own (those of one study as "
            "one): near-copies of one patient, if there are any, raise the figures."
        )
    if unanswerable:
        notes.append(
            f"{unanswerable} of {cases} cases have no case of another patient with their value and were not asked."
        )
    return tuple(notes)


def without_nan(value: Any) -> Any:
    """The same with None for every figure that does not exist, as JSON needs it."""
    if isinstance(value, dict):
        return {key: without_nan(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(part) for part in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
