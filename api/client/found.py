"""What searches and single cases are answered with. ``Label``, ``Match`` and the like are those of a bundle."""

from __future__ import annotations

from dataclasses import dataclass

from retrieval.types import Composition, HitParts, Label, Match


@dataclass(frozen=True, slots=True)
class Encoder:
    name: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class CaseAttributes:
    """What is kept of a header; "" or None for what is unknown. ``age_band``: a decade, "90+" from 90."""

    body_part: str
    view: str
    laterality: str
    sex: str
    age_band: str
    rows: int
    columns: int
    slices: int
    manufacturer: str
    study_year: int | None


@dataclass(frozen=True, slots=True)
class Understood:
    """What the service understood of the query. ``case_id``: None for one that is not on file. ``preview``: a URL."""

    kind: str
    case_id: str | None
    modality: str
    body_part: str
    slices: int
    warnings: tuple[str, ...]
    patient_known: bool
    preview: str | None


@dataclass(frozen=True, slots=True)
class FoundCase:
    """One hit. ``similarity``: cosine; ``percentile``: share, 0 to 100, of random pairs that are less similar.

    ``matches``: which slices met, the best first. ``parts``: only of an image asked together with a sentence.
    """

    rank: int
    case_id: str
    kind: str
    similarity: float
    percentile: float
    labels: tuple[Label, ...]
    report_excerpt: str
    modality: str
    study_uid: str
    series_uid: str
    matches: tuple[Match, ...]
    thumbnail_url: str
    viewer_url: str
    source: str
    attributes: CaseAttributes
    parts: HitParts | None


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """Hits, best first. ``reasons``: why there is no confident match, as sentences. ``cautions``: what else to know."""

    hits: tuple[FoundCase, ...]
    query: Understood
    encoder: Encoder
    generation: str
    gallery_size: int
    plan: str
    candidates: int
    exhaustive: bool
    no_confident_match: bool
    reasons: tuple[str, ...]
    cautions: tuple[str, ...]
    p_value: float | None
    yardstick: str
    composition: Composition | None
    took_ms: float
    intended_use: str


@dataclass(frozen=True, slots=True)
class CaseOnFile:
    """A case with its labels and report. ``patient_key``: a pseudonym, only for keys of the scope write or admin."""

    case_id: str
    kind: str
    modality: str
    attributes: CaseAttributes
    labels: tuple[Label, ...]
    report: str
    source: str
    study_uid: str
    series_uid: str
    slice_positions_mm: tuple[float | None, ...]
    duplicate_of: str
    warnings: tuple[str, ...]
    created_at: str
    patient_known: bool
    patient_key: str | None
    thumbnail_url: str
    image_url: str
    viewer_url: str
