"""All figures of one gallery on one label, from vectors and what is known of each case."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from retrieval.appraisal.answered import Answered, answered
from retrieval.appraisal.calibration import calibration
from retrieval.appraisal.confusions import Confusion, confusions
from retrieval.appraisal.doubles import Picture, doubles
from retrieval.appraisal.fairness import AttributeFigures, by_group
from retrieval.appraisal.observation import MAX_QUERIES
from retrieval.appraisal.statistics import Average, CalibrationError, taken
from retrieval.appraisal.subjects import Subjects, groupings
from retrieval.appraisal.types import Appraisal
from retrieval.appraisal.values import point_statistics, value_figures
from retrieval.evaluation import DEFAULT_KS, report_of
from retrieval.evidence.neighbours import NOBODY
from retrieval.leave_one_out import unknown_patients
from retrieval.resampling import Draws

VOTERS = 10  # nearest cases that vote where confusions are counted


def _no_picture(row: int) -> Picture | None:
    return None


def appraise(
    subjects: Subjects,
    ks: Sequence[int] = DEFAULT_KS,
    seed: int = 0,
    *,
    picture: Callable[[int], Picture | None] = _no_picture,
    resamples: int = 1000,
    level: float = 0.95,
    most: int = MAX_QUERIES,
) -> Appraisal:
    """Appraise the subjects, each of which must have a value of the label.

    ``picture`` gives a small grey picture of a subject by its row, for duplicates. Raises ``UsageError`` when nothing
    can be evaluated. Above ``most`` queries or ``observation.MAX_CELLS`` pairs a random sample is asked.
    """
    asked = answered(subjects, ks, seed, most)
    cohort, observed, held = asked.cohort, asked.observed, asked.held
    queries = observed.queries
    unknown = unknown_patients(subjects.patient_keys)
    report = report_of(cohort, observed.scores, queries, asked.ks, unknown, seed, resamples, level)
    draws = Draws.of(asked.patients, seed, resamples, level)
    values = (
        () if held is None else value_figures(cohort, observed, held, asked.measured, asked.areas(), draws, asked.k)
    )
    origin = [of_value.origin_auc for of_value in values]
    return Appraisal(
        report=report,
        asked=len(queries),
        k=asked.k,
        ways=held.ways if held else (),
        values=values,
        small_values=asked.small,
        auc=taken(Average("AUC", asked.areas()), draws, np.ones(len(queries), dtype=bool)),
        origin_auc=float(np.mean(origin)) if origin else float("nan"),
        calibration=calibration(held.probabilities, held.shares, held.truth, draws, seed) if held else None,
        fairness=_fairness(subjects, asked, draws),
        confusions=_confusions(asked),
        doubles=doubles(subjects, queries, observed.near, observed.similarities, picture),
        notes=report.notes + _notes(len(subjects), len(queries)),
    )


def _fairness(subjects: Subjects, asked: Answered, draws: Draws) -> tuple[AttributeFigures, ...]:
    statistics, held = asked.measures(), asked.held
    if held is not None:
        for value, name in enumerate(asked.names):
            statistics += point_statistics(held, value, name)
            statistics.append(CalibrationError(f"ECE[{name}]", held.probabilities[:, [value]], held.truth[:, [value]]))
    of_queries = [subjects.attributes[row] for row in asked.observed.queries]
    groups = groupings(of_queries)
    return tuple(by_group(grouping, statistics, asked.areas(), asked.patients, draws) for grouping in groups)


def _confusions(asked: Answered) -> tuple[Confusion, ...]:
    """By the plain vote of the nearest ``VOTERS``: what a reader of the hits would think."""
    observed, members = asked.observed, asked.cohort.members > 0
    near, similarities = observed.near[:, :VOTERS], observed.similarities[:, :VOTERS]
    weights = (near != NOBODY) / np.maximum((near != NOBODY).sum(axis=1, keepdims=True), 1)
    votes = np.zeros((len(near), members.shape[1]))
    for place in range(near.shape[1]):
        votes += weights[:, place, None] * members[near[:, place]]
    rows = observed.queries
    return confusions(asked.cohort.classes, members[rows], votes, near, similarities, rows)


def _notes(cases: int, asked: int) -> tuple[str, ...]:
    if asked == cases:
        return ()
    return (f"A random sample of {asked:,} of the {cases:,} cases was asked, each against all cases.",)
