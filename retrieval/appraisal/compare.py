"""Two encoders side by side on the same cases: every figure of both, and the paired interval of the difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from retrieval.appraisal.answered import answered
from retrieval.appraisal.statistics import Average, CalibrationError, Figure, Statistic, taken_with_draws
from retrieval.appraisal.subjects import Subjects
from retrieval.errors import UsageError
from retrieval.evaluation import DEFAULT_KS, without_nan
from retrieval.resampling import Draws

LEAST_SHARED = 20  # cases


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure of both; ``difference`` is the other less this one, its interval from the same draws of patients."""

    name: str
    this: Figure
    other: Figure
    difference: float
    low: float
    high: float

    @property
    def told(self) -> str:
        """Which is greater, in a word, where the interval allows to say so."""
        if self.low > 0:
            return "the other is higher"
        return "this one is higher" if self.high < 0 else "no difference shown"


@dataclass(frozen=True, slots=True)
class Comparison:
    """``shared``: cases that both galleries hold, on which alone both are asked; ``only_this``: those left out."""

    encoder: str
    fingerprint: str
    shared: int
    only_this: int
    differences: tuple[Difference, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        plain: dict[str, Any] = without_nan(asdict(self))
        return plain


def matched(this: Subjects, other: Subjects) -> list[tuple[int, int]]:
    """Rows of the same case in both: by the content of its files, else by its id."""
    by_content = {sha: row for row, sha in enumerate(other.content) if sha}
    by_id = {case_id: row for row, case_id in enumerate(other.case_ids)}
    pairs = []
    for row, case_id in enumerate(this.case_ids):
        sha = this.content[row] if this.content else ""
        found = by_content.get(sha, by_id.get(case_id)) if sha else by_id.get(case_id)
        if found is not None:
            pairs.append((row, found))
    return pairs


def compare(
    this: Subjects,
    other: Subjects,
    encoder: str,
    fingerprint: str,
    ks: Sequence[int] = DEFAULT_KS,
    seed: int = 0,
    *,
    resamples: int = 1000,
    level: float = 0.95,
) -> Comparison:
    """Ask the cases that both hold, with the patients, values and attributes of ``this``, by the vectors of each.

    ``encoder`` and ``fingerprint`` are the other's. Raises ``UsageError`` when they share fewer than 20 cases.
    """
    pairs = matched(this, other)
    if len(pairs) < LEAST_SHARED:
        raise UsageError(
            f"The two galleries share {len(pairs)} of the {len(this)} cases asked for; expected at least "
            f"{LEAST_SHARED}, matched by the content of their files or by case id: index the same files in both."
        )
    ours = this.only([row for row, _ in pairs])
    theirs = replace(ours, vectors=other.vectors[np.array([row for _, row in pairs])])
    both = answered(ours, ks, seed), answered(theirs, ks, seed)
    draws = Draws.of(both[0].patients, seed, resamples, level)
    figures = [_figures(one.measures(), one.areas()) for one in both]
    differences = [_difference(mine, yours, draws) for mine, yours in zip(*figures, strict=True)]
    return Comparison(encoder, fingerprint, len(pairs), len(this) - len(pairs), tuple(differences))


def _figures(measures: Sequence[Statistic], areas: Sequence[Statistic]) -> list[Statistic]:
    ranking = [one for one in measures if not isinstance(one, CalibrationError)]
    errors = [one for one in measures if isinstance(one, CalibrationError)]
    return [*ranking, *([Average("AUC", areas)] if areas else []), *areas, *errors]


def _difference(mine: Statistic, yours: Statistic, draws: Draws) -> Difference:
    everyone = np.ones(len(draws.cluster), dtype=bool)
    one, other = taken_with_draws(mine, draws, everyone), taken_with_draws(yours, draws, everyone)
    if one.drawn is None or other.drawn is None:
        return Difference(mine.name, one.figure, other.figure, float("nan"), float("nan"), float("nan"))
    interval = draws.interval(other.drawn - one.drawn)
    return Difference(
        mine.name, one.figure, other.figure, other.figure.value - one.figure.value, interval.low, interval.high
    )
