"""What learning an adapter came to: figures of the stored vectors and of the head, on parts that share no patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from retrieval.adapters.choice import Choice, Tried
from retrieval.adapters.gain import gain_of
from retrieval.adapters.split import Cohort, Numbers, Part, Split
from retrieval.evaluation import EvaluationReport, Measure, evaluate
from retrieval.types import UnitRows

KS = (1, 5)
MEASURES = ("P@1", "P@5", "mAP")


@dataclass(frozen=True, slots=True)
class PartSize:
    """How much a part holds."""

    part: Part
    cases: int
    patients: int


@dataclass(frozen=True, slots=True)
class BeforeAfter:
    """One measure on the test part: of the stored vectors, and of what the head makes of them."""

    before: Measure
    after: Measure


@dataclass(frozen=True, slots=True)
class HeldGain:
    """Difference in mAP on the test part, and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class AdaptReport:
    """``validation_*``: mAP by which the head was chosen; ``validation_gain_low``: what its gain exceeds but for luck.

    ``improves``: judged on the validation part alone. ``holds``: whether mAP on the test part is no lower than before.
    """

    label: str
    classes: tuple[str, ...]
    left_out: tuple[tuple[str, int], ...]  # values with too few patients, and how many they have
    parts: tuple[PartSize, ...]
    tried: tuple[Tried, ...]
    chosen: str
    validation_before: float
    validation_after: float
    validation_gain_low: float
    improves: bool
    test: tuple[BeforeAfter, ...]
    test_gain: HeldGain
    fingerprint_before: str
    fingerprint_after: str
    seed: int
    seconds: float
    notes: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return self.test_gain.value >= 0.0

    @property
    def worth_using(self) -> bool:
        """Whether searches should go through the head."""
        return self.improves and self.holds

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        tried = [{"plan": str(each.plan), "validation": each.validation, "steps": each.steps} for each in self.tried]
        return asdict(self) | {"tried": tried, "holds": self.holds}


def report_of(
    label: str, rows: UnitRows, cohort: Cohort, parts: Split, choice: Choice, base: str, seed: int, seconds: float,
    notes: Sequence[str],
) -> AdaptReport:  # fmt: skip
    """The figures of a choice. This is where the test part is looked at, once, after everything has been chosen."""
    test = parts.test
    mapped = choice.head.apply(rows[test])
    before, after = (_evaluated(vectors, cohort, test, seed) for vectors in (rows[test], mapped))
    members, groups = cohort.members[test], cohort.groups[test]
    gain = gain_of(rows[test], mapped, members, groups)
    return AdaptReport(
        label=label,
        classes=cohort.classes,
        left_out=cohort.left_out,
        parts=tuple(_size(part, cohort, parts) for part in Part),
        tried=choice.tried,
        chosen=str(choice.plan),
        validation_before=choice.before,
        validation_after=choice.after,
        validation_gain_low=choice.gain_low,
        improves=choice.improves,
        test=tuple(BeforeAfter(before.measure(name), after.measure(name)) for name in MEASURES),
        test_gain=HeldGain(gain.value, *gain.interval()),
        fingerprint_before=base,
        fingerprint_after=choice.head.fingerprint,
        seed=seed,
        seconds=round(seconds, 2),
        notes=tuple(notes),
    )


def _evaluated(vectors: UnitRows, cohort: Cohort, test: Numbers, seed: int) -> EvaluationReport:
    values = [[cohort.classes[c] for c in np.flatnonzero(row)] for row in cohort.members[test]]
    return evaluate(vectors, [str(group) for group in cohort.groups[test].tolist()], values, KS, seed)


def _size(part: Part, cohort: Cohort, parts: Split) -> PartSize:
    chosen = parts.of(part)
    return PartSize(part, len(chosen), len(np.unique(cohort.groups[chosen])))
