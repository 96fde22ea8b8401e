"""A bundle as plain JSON values, and back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from retrieval.evidence.cited import CitedCase, Evidence
from retrieval.reading import read


def evidence_json(evidence: Evidence) -> dict[str, Any]:
    """Plain JSON values: every name is that of the dataclass, with the URLs of images and what was left out told."""
    return {
        "query": _listed(asdict(evidence.query)),
        "cases": [_case(case) for case in evidence.cases],
        "votes": [_listed(asdict(votes)) for votes in evidence.votes],
        "no_confident_match": evidence.no_confident_match,
        "reasons": list(evidence.reasons),
        "cautions": list(evidence.cautions),
        "provenance": asdict(evidence.provenance),
        "budget": asdict(evidence.budget),
        "notes": list(evidence.notes),
        "intended_use": evidence.intended_use,
    }


def evidence_of(told: object) -> Evidence:
    """The inverse of ``evidence_json``, for what a service sent or a file holds. UsageError for anything else."""
    return read(Evidence, told)


def _case(case: CitedCase) -> dict[str, Any]:
    plain: dict[str, Any] = _listed(asdict(case))
    plain["report"]["told"] = case.report.told
    for image, ref in zip(plain["images"], case.images, strict=True):
        image["url"] = ref.url
    return plain


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _listed(held) for name, held in value.items()}
    return [_listed(held) for held in value] if isinstance(value, list | tuple) else value
