"""The wire of classifying and estimating by neighbours."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.schemas import EncoderBody, Wire
from api.search_schemas import QueryBody, QueryForm
from retrieval.evidence.estimating import LEVEL
from retrieval.evidence.operating import SENSITIVITY


class JudgingForm(QueryForm):
    """What classifying and estimating are asked with alike."""

    label: str = Field(min_length=1, max_length=200, description="which label")
    k: int | None = Field(None, ge=1, le=1000, description="how many neighbours count; fitted on the gallery if absent")
    filters: str = Field("", description='JSON, as {"modality": "CT", "body_part": ["CHEST", "ABDOMEN"]}')
    same_patient: Literal["exclude", "include", "only"] = "exclude"


class ClassifyForm(JudgingForm):
    """The fields of POST /v1/classify."""

    sensitivity: float = Field(SENSITIVITY, gt=0, le=1, description="share of the true cases that rule-out must keep")
    specificity: float | None = Field(
        None, gt=0, le=1, description="rule in at this specificity; at Youden's point if absent"
    )


class EstimateForm(JudgingForm):
    """The fields of POST /v1/estimate."""

    level: float = Field(LEVEL, gt=0, lt=1, description="share of new cases that the interval is to hold")


class FittedOnBody(Wire):
    """What was left out, patient by patient, to choose and calibrate."""

    cases: int = Field(description="with the label, that pass the filter")
    patients: int = Field(description="of them; a case whose patient is unknown counts as one of its own")
    queries: int = Field(description="cases that were asked, drawn by the seed")
    folds: int = Field(description="patient-disjoint; 0 when there are too few patients")
    seed: int
    gallery_size: int = Field(description="of the whole gallery then; fitted anew when a tenth of it has changed")


class OperatingPointBody(Wire):
    name: str = Field(description="'youden', 'sensitivity>=0.90', 'specificity>=0.95'")
    threshold: float = Field(description="of the probability, which is called true at or above it")
    sensitivity: float = Field(description="on the cases it was chosen on")
    specificity: float = Field(description="on the cases it was chosen on")
    reached_sensitivity: float | None = Field(description="on patients it was not chosen on, fold by fold")
    reached_specificity: float | None = Field(description="on patients it was not chosen on, fold by fold")


class ValueBody(Wire):
    """One value of the label."""

    value: str
    probability: float
    answer: Literal["positive", "possible", "negative", "unknown"] = Field(
        description="positive at or above both thresholds, negative below both, possible between; unknown without any"
    )
    rule_in: str | None = Field(description="name of the operating point that rules in")
    rule_out: str | None = Field(description="name of the operating point that rules out")
    operating_points: list[OperatingPointBody]
    share: float = Field(description="of the votes, weighted by similarity, 0 to 1")
    count: int = Field(description="neighbours that have it")
    base_rate: float = Field(description="over the gallery's patients; cases without the label are not counted")
    lift: float | None = Field(description="share over base rate")
    case_ids: list[str] = Field(description="those neighbours, the most similar first")
    patients: int = Field(description="of the gallery that have it")
    auc: float | None = Field(description="on held-out patients")
    calibration_error: float | None = Field(description="expected, on held-out patients")
    note: str = Field(description="why there are no thresholds, or what they mean when they cross; else ''")


class VoterBody(Wire):
    case_id: str
    similarity: float
    values: list[str] = Field(description="of the label")


class CalibrationBody(Wire):
    """Expected calibration errors on held-out patients, before and after calibration."""

    mean_before: float = Field(description="mean over values")
    mean_after: float
    confidence_before: float = Field(description="of the most probable value of each case")
    confidence_after: float
    expected: float = Field(description="what mean_after would be by chance if every probability were right")


class JudgingAnswer(Wire):
    """What both answers tell."""

    label: str
    query: QueryBody
    k: int = Field(description="neighbours asked for, one per patient")
    temperature: float | None = Field(description="of the weights exp(similarity / temperature); null: equal votes")
    fitted_on: FittedOnBody
    encoder: EncoderBody
    generation: str
    gallery_size: int
    no_confident_match: bool
    reasons: list[str] = Field(description="why there is no confident match, as sentences; empty when there is one")
    took_ms: float = Field(description="of the search; fitting comes on top of the first question")
    notes: list[str] = Field(description="where this may be off, as sentences")
    intended_use: str


class ClassifyAnswer(JudgingAnswer):
    exclusive: bool = Field(description="every case has one value; the probabilities and other then sum to 1")
    values: list[ValueBody] = Field(description="the most probable first")
    other: float = Field(description="probability of the rarer values that are not listed")
    method: Literal["none", "temperature", "isotonic"] = Field(description="how votes were calibrated")
    quality: CalibrationBody | None = Field(description="null when there were too few patients to leave some out")
    neighbours: list[VoterBody]


class NumberVoterBody(Wire):
    case_id: str
    similarity: float
    number: float
    weight: float = Field(description="0 to 1")


class EstimateQualityBody(Wire):
    """On held-out patients."""

    coverage: float = Field(description="share of numbers within their interval")
    width: float = Field(description="mean, of the intervals")
    error: float = Field(description="mean absolute error")
    error_of_mean: float = Field(description="the same of always saying the mean")


class EstimateAnswer(JudgingAnswer):
    number: float = Field(description="in the unit of the label")
    low: float | None = Field(description="of the prediction interval; null when there are too few cases for the level")
    high: float | None
    level: float
    spread: float = Field(description="weighted standard deviation of the neighbours' numbers")
    base: float = Field(description="mean of the label over the gallery's patients")
    centre: Literal["mean", "median"]
    scale: Literal["constant", "spread"] = Field(
        description="what errors are measured by: the unit of the label, or the neighbours' spread"
    )
    quality: EstimateQualityBody | None = Field(description="null when there are too few patients or cases")
    neighbours: list[NumberVoterBody]
