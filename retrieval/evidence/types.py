"""What classifying and estimating by neighbours answer with."""

from __future__ import annotations

from dataclasses import dataclass

from retrieval.evidence.calibration import Method
from retrieval.evidence.intervals import Centre, Scale
from retrieval.evidence.operating import Answer, OperatingPoint, Reached
from retrieval.evidence.sample import FittedOn
from retrieval.evidence.selection import Way
from retrieval.evidence.votes import ValueVotes
from retrieval.types import SearchResult


@dataclass(frozen=True, slots=True)
class Cut:
    """An operating point. ``reached``: what this way of choosing it reaches on patients it was not chosen on."""

    point: OperatingPoint
    reached: Reached | None


@dataclass(frozen=True, slots=True)
class ValueAnswer:
    """What the neighbours make of one value of a label.

    ``cuts``: every operating point asked for, by probability. ``rule_in`` and ``rule_out`` are the two of them that
    ``answer`` goes by; None, with the answer ``unknown`` and a ``note`` that says why, when there are too few patients,
    votes don't tell the value from the others, or there is no confident match.
    ``auc`` and ``calibration_error`` are of held-out patients.
    """

    value: str
    probability: float
    answer: Answer
    rule_in: OperatingPoint | None
    rule_out: OperatingPoint | None
    cuts: tuple[Cut, ...]
    votes: ValueVotes
    patients: int  # of the gallery that have it
    auc: float | None
    calibration_error: float | None
    note: str


@dataclass(frozen=True, slots=True)
class CalibrationQuality:
    """Expected calibration errors on held-out patients, before and after; ``mean``: over values; ``confidence``: of the
    most probable value of each case; ``expected``: what the mean would be if every probability were right."""

    mean_before: float
    mean_after: float
    confidence_before: float
    confidence_after: float
    expected: float


@dataclass(frozen=True, slots=True)
class Classification:
    """Probabilities of a label's values, the most probable first. ``exclusive``: a case has one value, and they sum to
    1 with ``other``, the probability of all the rarer values that are not listed.

    ``quality``: None where there were too few patients to calibrate on. ``neighbours``: who voted.
    """

    label: str
    exclusive: bool
    values: tuple[ValueAnswer, ...]
    other: float
    way: Way
    method: Method
    fitted_on: FittedOn
    quality: CalibrationQuality | None
    neighbours: SearchResult
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EstimateQuality:
    """On held-out patients: the share of numbers within their interval, the intervals' mean width, the mean absolute
    error, and beside it that of always saying the mean of the others."""

    coverage: float
    width: float
    error: float
    error_of_mean: float


@dataclass(frozen=True, slots=True)
class NumberVote:
    """What one neighbour has, and its weight, 0 to 1."""

    case_id: str
    similarity: float
    number: float
    weight: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with a prediction interval that holds ``level`` of the cases of new patients.

    ``low`` and ``high``: None, with a note, where there were too few patients to measure errors on, or no match is
    confident. ``spread``:
    weighted standard deviation of the neighbours' numbers. In the unit of the label.
    """

    label: str
    number: float
    low: float | None
    high: float | None
    level: float
    spread: float
    base: float  # the mean of the label over the gallery's patients
    way: Way
    centre: Centre
    scale: Scale
    fitted_on: FittedOn
    quality: EstimateQuality | None
    voters: tuple[NumberVote, ...]  # the most similar first
    neighbours: SearchResult
    notes: tuple[str, ...]
