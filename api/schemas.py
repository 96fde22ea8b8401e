"""The wire: what requests may say and what replies hold. No vector, no path and no patient id has a field here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from retrieval.intended_use import INTENDED_USE as INTENDED_USE

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
ShortText = Annotated[str, StringConstraints(strip_whitespace=True, max_length=200)]


class Wire(BaseModel):
    """Base of all replies."""

    model_config = ConfigDict(frozen=True)


class Asked(BaseModel):
    """Base of all requests: an unknown field is an error, not a surprise."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# problems


class Cause(Wire):
    """One of several reasons: ``where`` names a field of the form, or ``files.3`` for the fourth file sent."""

    where: str
    message: str


class ProblemBody(Wire):
    """RFC 9457. ``detail`` is a sentence for people; switch on ``type``."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[Cause] | None = None


# cases


class LabelBody(Wire):
    name: str
    value: str
    number: float | None = Field(None, description="set when the value is numeric")


class AttributesBody(Wire):
    """What is kept of a header, patient-safe: the age is a decade."""

    body_part: str
    view: str
    laterality: str
    sex: str
    age_band: str = Field(description="'40-49', '90+', or '' when unknown")
    rows: int = Field(description="of a frame")
    columns: int = Field(description="of a frame")
    slices: int = Field(description="frames of the case")
    manufacturer: str
    study_year: int | None


class CaseBody(Wire):
    """A case on file."""

    case_id: str
    kind: Literal["image", "volume", "views"]
    modality: str
    attributes: AttributesBody
    labels: list[LabelBody]
    report: str
    source: str
    study_uid: str
    series_uid: str
    slice_positions_mm: list[float | None] = Field(description="along the normal, one per frame")
    duplicate_of: str
    warnings: list[str]
    created_at: str
    patient_known: bool
    patient_key: str | None = Field(None, description="pseudonym; only for keys with scope write or admin")
    thumbnail_url: str
    image_url: str
    viewer_url: str


class CaseSummary(Wire):
    """A case in a list."""

    case_id: str
    kind: Literal["image", "volume", "views"]
    modality: str
    attributes: AttributesBody
    labels: list[LabelBody]
    source: str
    thumbnail_url: str
    viewer_url: str


class CasePage(Wire):
    """One page of the gallery. ``next`` is null on the last one, else the ``after`` of the next request."""

    cases: list[CaseSummary]
    next: int | None


class LabelAsked(Asked):
    """As a case shows its labels; ``number`` is read from ``value``, so it may be left out."""

    name: Name
    value: Name
    number: Annotated[float, Field(allow_inf_nan=False)] | None = Field(
        None, description="when given, the number that the value says"
    )


class AttributesAsked(Asked):
    """Only the fields that are given are changed."""

    modality: ShortText | None = None
    body_part: ShortText | None = None
    view: ShortText | None = None
    laterality: Literal["L", "R", "B", ""] | None = None
    sex: Literal["F", "M", "O", ""] | None = None
    age: Annotated[float, Field(ge=0, le=130)] | None = None
    source: ShortText | None = None


class CasePatch(Asked):
    """``labels`` replaces all labels of the case; what is absent stays."""

    attributes: AttributesAsked | None = None
    labels: Annotated[list[LabelAsked], Field(max_length=1000)] | None = None
    report: Annotated[str, StringConstraints(max_length=100_000)] | None = None


class CasesForm(Asked):
    """The fields of POST /v1/cases beside ``files``."""

    labels: str = Field("", description='JSON object of name to value or list of values: {"finding": ["mass", "cyst"]}')
    source: ShortText = Field("", description="the data set or site")


class FileStatusBody(Wire):
    """What became of one file: its place in the body, from 0, never its name (names can hold names)."""

    file: int
    status: str = Field(description="indexed, updated, unchanged, skipped, no_pixels or failed")
    case_id: str | None
    reason: str


class CasesAdded(Wire):
    files: list[FileStatusBody]
    indexed: int
    updated: int = Field(description="files whose pixels were on file and whose case has new labels or source now")
    failed: int


class Deleted(Wire):
    deleted: list[str]


# gallery


class EncoderBody(Wire):
    name: str
    fingerprint: str


class FacetValue(Wire):
    value: str
    cases: int


class GalleryBody(Wire):
    """The state of the gallery and what can be filtered by."""

    size: int
    encoder: EncoderBody
    adapter: str = Field(description="the metric head that searches go through; '' for none, the encoder's own vectors")
    dim: int
    pooling: str
    accepts_text: bool
    generation: str
    delta: int
    damaged: str
    facets: dict[str, list[FacetValue]]
    max_upload_mb: int
    version: str
    intended_use: str


class RebuildAsked(Asked):
    backend: str = Field(
        "", max_length=200, description="auto, exact, fastscan, faiss:OPTIONS, milvus://...; '' for the configured one"
    )
    encoder: str = Field(
        "", max_length=400, description="embed every case anew from its files with this encoder; '' keeps the vectors"
    )
    drop_missing: bool = Field(
        False, description="with an encoder: delete the cases whose files are gone; otherwise they end the rebuild"
    )
    dry_run: bool = Field(False, description="build and compare, then throw the new generation away")
    min_overlap: float | None = Field(None, ge=0, le=1, description="least share of the first 10 hits in common")
    min_recall: float | None = Field(None, ge=0, le=1, description="least recall@10 against exact search")
    max_loss: float | None = Field(None, ge=0, le=1, description="most that P@10 of any label may fall")


class SideBody(Wire):
    generation: str = Field(description="'' where there is none: the cases are then searched exactly")
    backend: str
    fingerprint: str
    recall: float | None = Field(description="share of the exact k neighbours that it finds")
    p50_ms: float | None
    p99_ms: float | None


class LabelChangeBody(Wire):
    """P@k of one label; ``low`` to ``high`` is the 95 % interval of new - old."""

    label: str
    queries: int
    old: float
    new: float
    low: float
    high: float


class ShadowBody(Wire):
    """The new generation beside the live one, on held-out queries without their own patients."""

    k: int
    queries: int
    seed: int
    old: SideBody
    new: SideBody
    overlap: float | None = Field(description="share of the first k hits that both have")
    rank_correlation: float | None = Field(description="Spearman's, over the hits that both have")
    labels: list[LabelChangeBody]


class MissingBody(Wire):
    """A case that could not be embedded anew."""

    case_id: str
    reason: str


class RebuildBody(Wire):
    id: int
    state: Literal["queued", "running", "done", "failed", "interrupted"]
    progress: int = Field(description="cases done")
    total: int = Field(description="cases in all; 0 while that is not known")
    message: str
    generation: str = Field(description="the generation that was published, or ''")
    dry_run: bool = Field(description="it was built and compared only; false while it runs")
    report: ShadowBody | None = Field(description="how it compared with what was live; null until that is known")
    missing: int = Field(description="cases that could not be embedded anew")
    missing_cases: list[MissingBody] = Field(description="the first of them")
    created_at: str
    updated_at: str


class RolledBack(Wire):
    generation: str = Field(description="the generation that is live now, '' when only the exact delta is")


class RebuildList(Wire):
    rebuilds: list[RebuildBody]


class Health(Wire):
    status: Literal["ok"]


class Readiness(Health):
    writes: str = Field(
        default="", description="why nothing can be written just now, while searches go on; empty when it can"
    )


def form_body(model: type[BaseModel], *, files: str) -> dict[str, Any]:
    """The OpenAPI request body of a multipart form: the model's fields and ``files``. ``files`` describes them."""
    schema = model.model_json_schema()
    binary = {"type": "array", "items": {"type": "string", "format": "binary"}, "description": files}
    schema["properties"] = {"files": binary, **schema["properties"]}
    content: dict[str, Any] = {"multipart/form-data": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}
