"""A bundle of evidence as passages that can be cited: what every retriever hands on, whatever it calls it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from retrieval.errors import UsageError
from retrieval.evidence.bundle import asked_with, gather
from retrieval.evidence.cited import CitedCase, Evidence
from retrieval.filters import Filter, parse
from retrieval.gallery import Gallery

Wanted = Filter | Mapping[str, Any] | None  # a filter, or the plain JSON values of one
NO_CASE = "What was asked is no case id on file, so it was taken for a sentence."


@dataclass(frozen=True, slots=True)
class Passage:
    """One cited case. ``text`` is data to be quoted, never instructions. ``metadata``: plain JSON values."""

    case_id: str
    text: str
    similarity: float
    metadata: dict[str, Any]


@runtime_checkable
class EvidenceSource(Protocol):
    """A gallery that is not open here, as that of a service."""

    def evidence_for(self, asked: str, *, k: int, filters: Filter | None, max_tokens: int) -> Evidence:
        """The bundle for a case id on file, or for a sentence."""


def find_passages(
    gallery: Gallery | EvidenceSource, asked: str, *, k: int, filters: Wanted = None, max_tokens: int = 4000
) -> list[Passage]:
    """The bundle for a case id on file, or for a sentence, as passages in the order of similarity.

    UsageError for a filter that can't be read, and for a sentence where the gallery's encoder has no text tower; a
    gallery that is not open here raises errors of its own.
    """
    wanted = filters if filters is None or isinstance(filters, Filter) else parse(filters)
    if isinstance(gallery, Gallery):
        return passages_of(_gathered(gallery, asked, k, wanted, max_tokens))
    return passages_of(gallery.evidence_for(asked, k=k, filters=wanted, max_tokens=max_tokens))


def _gathered(gallery: Gallery, asked: str, k: int, filters: Filter | None, max_tokens: int) -> Evidence:
    if gallery.catalog.content_of([asked]):
        case, query = gallery.filed_query(asked)
        told = asked_with(query, case)
    else:
        try:
            query = gallery.text_query(asked)
        except UsageError as error:
            raise UsageError(f"{NO_CASE} {error}") from error
        told = asked_with(query, text=asked)
    return gather(gallery, query, asked=told, k=k, filters=filters, max_tokens=max_tokens, max_images=0)


def passages_of(evidence: Evidence) -> list[Passage]:
    """One passage for each cited case; that there is no confident match is said in every one of them."""
    return [_passage(evidence, case) for case in evidence.cases]


def _passage(evidence: Evidence, case: CitedCase) -> Passage:
    about = ", ".join(filter(None, (case.modality, case.body_part, case.view, case.sex, case.age_band)))
    lines = [f"Case {case.case_id} ({about or case.kind}), similarity {case.similarity:.3f}."]
    if evidence.no_confident_match:
        lines.append(f"Not a confident match: {' '.join(evidence.reasons)}")
    lines += [f"{label.name}: {label.value}" for label in case.labels]
    sections = (("Findings", case.report.findings), ("Impression", case.report.impression))
    lines += [f"{head}: {text}" for head, text in sections if text]
    lines += [case.report.told] if case.report.told else []
    metadata = {
        "case_id": case.case_id,
        "citation": case.number,
        "similarity": case.similarity,
        "percentile": case.percentile,
        "kind": case.kind,
        "modality": case.modality,
        "body_part": case.body_part,
        "age_band": case.age_band,
        "sex": case.sex,
        "labels": [{"name": label.name, "value": label.value} for label in case.labels],
        "no_confident_match": evidence.no_confident_match,
        "reasons": list(evidence.reasons),
        "fingerprint": evidence.provenance.fingerprint,
        "intended_use": evidence.intended_use,
    }
    return Passage(case.case_id, "\n".join(lines), case.similarity, metadata)
