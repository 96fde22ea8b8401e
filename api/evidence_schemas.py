"""The wire of bundles of evidence and of answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from api.schemas import LabelBody, Wire
from api.search_schemas import MatchBody, QueryForm
from retrieval.evidence.bundle import CASES, MAX_IMAGES, MAX_TOKENS, MOST_IMAGES, MOST_TOKENS


class BundleForm(QueryForm):
    """What a bundle is asked with, and how much it may hold."""

    k: int = Field(CASES, ge=1, le=100, description="how many neighbours, one per patient, none of the query's own")
    filters: str = Field("", description='JSON, as {"modality": "CT", "body_part": ["CHEST", "ABDOMEN"]}')
    max_tokens: int = Field(MAX_TOKENS, ge=1, le=MOST_TOKENS, description="of all its text, estimated on the high side")
    max_images: int = Field(MAX_IMAGES, ge=0, le=MOST_IMAGES, description="in all, the query's own among them")


class EvidenceForm(BundleForm):
    """The fields of POST /v1/evidence."""

    format: Literal["json", "markdown", "messages"] = "json"


class AnswerForm(BundleForm):
    """The fields of POST /v1/answer."""

    question: Annotated[str, StringConstraints(strip_whitespace=True, max_length=4000)] = Field(
        "", description="what to tell of the cases; a general question if absent"
    )
    stream: bool = Field(False, description="server-sent events, one for each sentence as soon as it is checked")


class AskedWithBody(Wire):
    kind: Literal["image", "volume", "views", "text"]
    modality: str
    body_part: str
    frames: int
    text: str
    warnings: list[str]


class QuotedBody(Wire):
    """What is quoted of a report, in its own words."""

    findings: str
    impression: str
    sentences: int = Field(description="of findings and impression in the whole report")
    left_out: int = Field(description="of them, for want of tokens")
    other_sections: list[str] = Field(description="heads of sections that are never quoted")
    told: str = Field(description="what was left out, as a sentence")


class ImageRefBody(Wire):
    case_id: str
    slice: int
    position_mm: float | None
    url: str


class CitedCaseBody(Wire):
    number: int = Field(description="what it is cited by, as [1]")
    case_id: str
    kind: Literal["image", "volume", "views"]
    modality: str
    body_part: str
    view: str
    sex: str
    age_band: str
    labels: list[LabelBody]
    similarity: float
    percentile: float
    report: QuotedBody
    matches: list[MatchBody]
    images: list[ImageRefBody]


class ValueVotesBody(Wire):
    value: str
    share: float = Field(description="of the votes, 0 to 1")
    count: int
    base_rate: float
    lift: float | None
    case_ids: list[str]


class LabelVotesBody(Wire):
    label: str
    voters: int
    values: list[ValueVotesBody]


class ProvenanceBody(Wire):
    encoder: str
    fingerprint: str
    generation: str
    gallery_size: int
    plan: str
    exhaustive: bool
    version: str
    created: str


class BudgetBody(Wire):
    max_tokens: int
    max_images: int
    tokens: int
    images: int
    cases_left_out: int


class EvidenceAnswer(Wire):
    query: AskedWithBody
    cases: list[CitedCaseBody]
    votes: list[LabelVotesBody]
    no_confident_match: bool
    reasons: list[str]
    cautions: list[str]
    provenance: ProvenanceBody
    budget: BudgetBody
    notes: list[str]
    intended_use: str


class MessagesAnswer(Wire):
    """With ``format=messages``: what a chat endpoint takes as ``messages``."""

    messages: list[dict[str, Any]]
    notes: list[str]


class SentenceBody(Wire):
    text: str
    case_ids: list[str]


class RemovedBody(Wire):
    text: str
    why: str


class GeneratedAnswer(Wire):
    text: str = Field(description="the sentences that passed")
    sentences: list[SentenceBody]
    removed: list[RemovedBody] = Field(description="sentences that cite nothing, or what is not in the evidence")
    refused: str = Field(description="why there is no answer, or ''")
    reasons: list[str]
    model: str
    sent_to: str = Field(description="host that reports and images were sent to; '' when nothing was")
    evidence: EvidenceAnswer
