"""The subjects asked: rankings, held-out probabilities, and the figures that can be taken of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrieval.appraisal.held_out import HeldOut, hold_out
from retrieval.appraisal.observation import MAX_QUERIES, Observed, observe, sampled
from retrieval.appraisal.statistics import Area, CalibrationError, Mean, Statistic
from retrieval.appraisal.subjects import Subjects
from retrieval.appraisal.types import SmallValue
from retrieval.appraisal.values import measurable
from retrieval.errors import UsageError
from retrieval.evaluation import checked_ks
from retrieval.leave_one_out import Cohort, cohort_of


@dataclass(frozen=True, slots=True)
class Answered:
    """``measured``: columns of the values with figures of their own; ``held``: None when there is no such value."""

    cohort: Cohort
    observed: Observed
    measured: npt.NDArray[np.int64]
    small: tuple[SmallValue, ...]
    held: HeldOut | None
    ks: tuple[int, ...]
    k: int  # of P@k at other prevalences

    @property
    def names(self) -> tuple[str, ...]:
        """The values with figures of their own."""
        return tuple(self.cohort.classes[column] for column in self.measured)

    @property
    def patients(self) -> npt.NDArray[np.int64]:
        """The patient of each query, [q]."""
        return self.cohort.patients[self.observed.queries]

    def areas(self) -> list[Area]:
        """One for each measured value."""
        if self.held is None:
            return []
        shares, truth = self.held.shares, self.held.truth
        return [Area(f"AUC[{name}]", shares[:, v], truth[:, v]) for v, name in enumerate(self.names)]

    def measures(self) -> list[Statistic]:
        """P@k and the other measures of a ranking, and the calibration error."""
        asked, scores = self.observed.scores.totals > 0, self.observed.scores
        out: list[Statistic] = [
            Mean(name, np.where(asked, scores.values[:, column], np.nan)) for column, name in enumerate(scores.names)
        ]
        if self.held is not None:
            out.append(CalibrationError("ECE", self.held.probabilities, self.held.truth))
        return out


def answered(subjects: Subjects, ks: Sequence[int], seed: int, most: int = MAX_QUERIES) -> Answered:
    """Ask all subjects, or a sample of ``most``. UsageError when one of them has no value, or for a wrong k."""
    checked = checked_ks(ks)
    if not all(subjects.values):
        raise UsageError("Expected a value of the label for every case to appraise: leave out those without one.")
    origins = [one.source for one in subjects.attributes]
    rows = np.arange(len(subjects), dtype=np.int64)
    known_origins = origins if len(set(origins)) > 1 else None
    cohort = cohort_of(subjects.vectors, subjects.patient_keys, subjects.values, known_origins, rows)
    queries = sampled(len(subjects), seed, most)
    measured, small = measurable(cohort, queries)
    k = 5 if 5 in checked else checked[0]
    observed = observe(cohort, queries, checked, measured, k)
    held = hold_out(cohort, observed, measured, seed) if len(measured) else None
    return Answered(cohort, observed, measured, small, held, checked, k)
