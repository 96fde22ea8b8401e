"""What classifying and estimating by neighbours are answered with: docs/evidence.md says what the figures mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from api.client.found import Encoder, Understood


@dataclass(frozen=True, slots=True)
class FittedOn:
    """What was left out, patient by patient, to choose and calibrate."""

    cases: int
    patients: int
    queries: int
    folds: int
    seed: int
    gallery_size: int


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A threshold of the probability, called true at or above it. ``reached_...``: on patients it was not chosen on."""

    name: str
    threshold: float
    sensitivity: float
    specificity: float
    reached_sensitivity: float | None
    reached_specificity: float | None


@dataclass(frozen=True, slots=True)
class ValueAnswer:
    """One value of a label. ``rule_in`` and ``rule_out`` name the operating points that ``answer`` goes by; without any
    it is unknown, and ``note`` says why. ``lift``: share of the votes over base rate. ``case_ids``: who voted so."""

    value: str
    probability: float
    answer: Literal["positive", "possible", "negative", "unknown"]
    rule_in: str | None
    rule_out: str | None
    operating_points: tuple[OperatingPoint, ...]
    share: float
    count: int
    base_rate: float
    lift: float | None
    case_ids: tuple[str, ...]
    patients: int
    auc: float | None
    calibration_error: float | None
    note: str


@dataclass(frozen=True, slots=True)
class Voter:
    case_id: str
    similarity: float
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Expected calibration errors on held-out patients, before and after; ``expected``: by chance, were all right."""

    mean_before: float
    mean_after: float
    confidence_before: float
    confidence_after: float
    expected: float


@dataclass(frozen=True, slots=True)
class ClassifyAnswer:
    """Probabilities of a label's values, the most probable first. ``exclusive``: they sum to 1 with ``other``.

    ``temperature``: None for equal votes. ``quality``: None where there were too few patients to leave some out.
    """

    label: str
    exclusive: bool
    values: tuple[ValueAnswer, ...]
    other: float
    method: str
    quality: Calibration | None
    neighbours: tuple[Voter, ...]
    query: Understood
    k: int
    temperature: float | None
    fitted_on: FittedOn
    encoder: Encoder
    generation: str
    gallery_size: int
    no_confident_match: bool
    reasons: tuple[str, ...]
    took_ms: float
    notes: tuple[str, ...]
    intended_use: str


@dataclass(frozen=True, slots=True)
class NumberVoter:
    case_id: str
    similarity: float
    number: float
    weight: float


@dataclass(frozen=True, slots=True)
class EstimateQuality:
    """On held-out patients, in the unit of the label but for ``coverage``, a share."""

    coverage: float
    width: float
    error: float
    error_of_mean: float


@dataclass(frozen=True, slots=True)
class EstimateAnswer:
    """A number in the unit of its label, with the interval ``low`` to ``high`` that is to hold ``level`` of new cases.

    ``low``, ``high`` and ``quality``: None where there are too few patients. ``base``: the mean over the gallery.
    """

    label: str
    number: float
    low: float | None
    high: float | None
    level: float
    spread: float
    base: float
    centre: str
    scale: str
    quality: EstimateQuality | None
    neighbours: tuple[NumberVoter, ...]
    query: Understood
    k: int
    temperature: float | None
    fitted_on: FittedOn
    encoder: Encoder
    generation: str
    gallery_size: int
    no_confident_match: bool
    reasons: tuple[str, ...]
    took_ms: float
    notes: tuple[str, ...]
    intended_use: str
