"""The nouns of a bundle of evidence. All text of others is cleaned and cut already; nothing here names a patient."""

from __future__ import annotations

from dataclasses import dataclass, field

from retrieval.evidence.votes import LabelVotes
from retrieval.types import Label, Match


@dataclass(frozen=True, slots=True)
class AskedWith:
    """What the query is: no identifier and no text of its own report. ``kind``: image, volume, views or text.

    ``frames``: how many slices or views it has. ``text``: the sentence asked with, "" for none. ``warnings``: on its
    quality and on what can't be told of it, as sentences.
    """

    kind: str
    modality: str = ""
    body_part: str = ""
    frames: int = 0
    text: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageRef:
    """A slice or view of a case on file. ``slice`` counts from 0; ``position_mm`` along the stack's normal, LPS."""

    case_id: str
    slice: int
    position_mm: float | None = None

    @property
    def url(self) -> str:
        """Where the service shows it, relative to its root."""
        return f"/v1/cases/{self.case_id}/image?slice={self.slice}"


@dataclass(frozen=True, slots=True)
class Quoted:
    """What is quoted of a report, in its own words and order. ``left_out``: of its ``sentences`` of findings and
    impression, how many the budget left out. ``other_sections``: heads of what is never quoted, as HISTORY."""

    findings: str = ""
    impression: str = ""
    sentences: int = 0
    left_out: int = 0
    other_sections: tuple[str, ...] = ()

    @property
    def told(self) -> str:
        """What was left out, as a sentence; "" for nothing."""
        return f"{self.left_out} of {self.sentences} sentences left out." if self.left_out else ""


@dataclass(frozen=True, slots=True)
class CitedCase:
    """A neighbour under its citation ``number``, from 1. ``similarity``: cosine; ``percentile``: 0 to 100.

    ``age_band``: a decade, "90+" from 90, "" when unknown. ``matches``: which slices met, the best first.
    """

    number: int
    case_id: str
    kind: str
    modality: str
    body_part: str
    view: str
    sex: str
    age_band: str
    labels: tuple[Label, ...]
    similarity: float
    percentile: float
    report: Quoted
    matches: tuple[Match, ...]
    images: tuple[ImageRef, ...]


@dataclass(frozen=True, slots=True)
class Provenance:
    """What the evidence came from. ``created``: ISO 8601, UTC. ``version``: of Precedent."""

    encoder: str
    fingerprint: str
    generation: str
    gallery_size: int
    plan: str
    exhaustive: bool
    version: str
    created: str


@dataclass(frozen=True, slots=True)
class Budget:
    """What a bundle may hold and holds. ``tokens``: estimated, of it as it is written; see ``budget.token_estimate``.

    ``images`` counts the query's own, which formats with pixels end with. ``cases_left_out``: neighbours without room.
    """

    max_tokens: int
    max_images: int
    tokens: int = 0
    images: int = 0
    cases_left_out: int = 0


@dataclass(frozen=True, slots=True)
class Evidence:
    """Neighbours that can be cited, with what is needed to trust them or not. ``notes``: on the pictures, sentences."""

    query: AskedWith
    cases: tuple[CitedCase, ...]
    votes: tuple[LabelVotes, ...]
    no_confident_match: bool
    reasons: tuple[str, ...]
    cautions: tuple[str, ...]
    provenance: Provenance
    budget: Budget
    intended_use: str
    notes: tuple[str, ...] = field(default=())

    def cited(self, citation: str) -> CitedCase | None:
        """The case of a citation: its number, as "1", or else its case id; None for one that is not in the bundle."""
        numbered = (case for case in self.cases if str(case.number) == citation)
        return next(numbered, next((case for case in self.cases if case.case_id == citation), None))

    @property
    def own_images(self) -> int:
        """How many of its images are the query's."""
        return self.budget.images - sum(len(case.images) for case in self.cases)
