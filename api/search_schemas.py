"""The wire of searching: what may be asked and what is answered."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from api.schemas import Asked, AttributesBody, EncoderBody, LabelBody, Wire

Sentence = Annotated[str, StringConstraints(strip_whitespace=True, max_length=4000)]


class QueryForm(Asked):
    """What is asked with: ``files``, ``case_id`` or ``text``, or ``text`` beside one of the other two."""

    case_id: str = Field("", max_length=64, description="a case on file as the query")
    text: Sentence = Field("", description="a sentence, alone or beside an image; needs an encoder with a text tower")
    text_weight: float = Field(
        0.5, ge=0, le=1, description="share of the text beside an image: 0 is the image alone, 1 the text alone"
    )
    fusion: Literal["sum", "rrf"] = Field(
        "sum", description="image and text as one weighted sum, or as two full rankings joined by reciprocal rank"
    )


class SearchForm(QueryForm):
    """The fields of POST /v1/search."""

    k: int = Field(10, ge=1, le=1000, description="how many hits")
    filters: str = Field("", description='JSON, as {"modality": "CT", "body_part": ["CHEST", "ABDOMEN"]}')
    rerank: bool = Field(False, description="reorder by the best matching slices")
    same_patient: Literal["exclude", "include", "only"] = "exclude"
    group: Literal["patient", "study", "none"] = "patient"
    preview: bool = Field(False, description="keep the query's pixels in memory for half an hour, to be looked at")


class MatchBody(Wire):
    """Slices that met, counted from 0."""

    query_slice: int
    hit_slice: int
    similarity: float
    query_position_mm: float | None
    hit_position_mm: float | None


class PartsBody(Wire):
    """How a hit meets the image and the text of a composed query."""

    image_similarity: float = Field(description="cosine")
    text_similarity: float = Field(description="cosine; on a lower scale than that of two images")
    image_rank: int | None = Field(description="place in the full ranking by image, with fusion=rrf")
    text_rank: int | None = Field(description="place in the full ranking by text, with fusion=rrf")
    score: float | None = Field(description="what fusion=rrf orders by")


class HitBody(Wire):
    rank: int
    case_id: str
    kind: Literal["image", "volume", "views"]
    similarity: float = Field(description="cosine, -1 to 1; of a composed query: with the weighted sum")
    percentile: float = Field(description="share (0 to 100) of the yardstick's random pairs that are less similar")
    labels: list[LabelBody]
    report_excerpt: str
    modality: str
    study_uid: str
    series_uid: str
    matches: list[MatchBody]
    thumbnail_url: str
    viewer_url: str
    source: str
    attributes: AttributesBody
    parts: PartsBody | None = Field(description="only of a composed query")


class CompositionBody(Wire):
    """How image and text were put together."""

    fusion: Literal["sum", "rrf"]
    text_weight: float
    told: str = Field(description="the same as a sentence")


class QueryBody(Wire):
    """What the service understood of the query."""

    kind: Literal["image", "volume", "views", "text"]
    case_id: str | None
    modality: str
    body_part: str
    slices: int
    warnings: list[str]
    patient_known: bool = Field(description="false: same-patient cases can't be told apart from others")
    preview: str | None = Field(description="URL of the query's rendering, takes slice, window and size")


class SearchAnswer(Wire):
    hits: list[HitBody]
    query: QueryBody
    encoder: EncoderBody
    generation: str
    gallery_size: int
    plan: str
    candidates: int
    exhaustive: bool
    no_confident_match: bool = Field(description="none of the hits should be taken for a similar case")
    reasons: list[str] = Field(description="why there is no confident match, as sentences; empty when there is one")
    cautions: list[str] = Field(description="what else should be known of the match, as sentences")
    p_value: float | None = Field(description="share of cases on file that are no closer to their nearest cases")
    yardstick: str = Field(description="the random pairs of this gallery that percentiles count")
    composition: CompositionBody | None = Field(description="of image and text; null for a query of one of them")
    took_ms: float
    intended_use: str
