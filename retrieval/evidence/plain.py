"""Classifications and estimates as plain JSON values: one shape for the command line and for HTTP."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from retrieval.evidence.selection import Way
from retrieval.evidence.types import Classification, Cut, Estimate, ValueAnswer
from retrieval.types import SearchResult


def classification_json(found: Classification) -> dict[str, Any]:
    """Plain JSON values. The operating points that an answer goes by are named among those of its value."""
    return {
        "label": found.label,
        "exclusive": found.exclusive,
        "values": [_value(value) for value in found.values],
        "other": found.other,
        **_way(found.way),
        "method": found.method.value,
        "fitted_on": asdict(found.fitted_on),
        "quality": None if found.quality is None else asdict(found.quality),
        "neighbours": _neighbours(found.neighbours, found.label),
        **_search(found.neighbours),
        "notes": list(found.notes),
    }


def estimate_json(found: Estimate) -> dict[str, Any]:
    """Plain JSON values."""
    return {
        "label": found.label,
        "number": found.number,
        "low": found.low,
        "high": found.high,
        "level": found.level,
        "spread": found.spread,
        "base": found.base,
        **_way(found.way),
        "centre": found.centre.value,
        "scale": found.scale.value,
        "fitted_on": asdict(found.fitted_on),
        "quality": None if found.quality is None else asdict(found.quality),
        "neighbours": [asdict(voter) for voter in found.voters],
        **_search(found.neighbours),
        "notes": list(found.notes),
    }


def _value(value: ValueAnswer) -> dict[str, Any]:
    return {
        "value": value.value,
        "probability": value.probability,
        "answer": value.answer.value,
        "rule_in": None if value.rule_in is None else value.rule_in.name,
        "rule_out": None if value.rule_out is None else value.rule_out.name,
        "operating_points": [_cut(cut) for cut in value.cuts],
        "share": value.votes.share,
        "count": value.votes.count,
        "base_rate": value.votes.base_rate,
        "lift": value.votes.lift,
        "case_ids": list(value.votes.case_ids),
        "patients": value.patients,
        "auc": value.auc,
        "calibration_error": value.calibration_error,
        "note": value.note,
    }


def _cut(cut: Cut) -> dict[str, Any]:
    return {
        **asdict(cut.point),
        "reached_sensitivity": None if cut.reached is None else cut.reached.sensitivity,
        "reached_specificity": None if cut.reached is None else cut.reached.specificity,
    }


def _way(way: Way) -> dict[str, Any]:
    """A temperature at which all votes are equal is null: JSON has no infinity."""
    return {"k": way.k, "temperature": way.temperature if math.isfinite(way.temperature) else None}


def _neighbours(result: SearchResult, label: str) -> list[dict[str, Any]]:
    return [
        {
            "case_id": hit.case.case_id,
            "similarity": hit.similarity,
            "values": [said.value for said in hit.case.labels if said.name == label],
        }
        for hit in result.hits
    ]


def _search(result: SearchResult) -> dict[str, Any]:
    return {
        "encoder": {"name": result.encoder, "fingerprint": result.fingerprint},
        "generation": result.generation,
        "gallery_size": result.gallery_size,
        "no_confident_match": result.no_confident_match,
        "reasons": list(result.reasons),
        "took_ms": round(result.took_ms, 3),
    }
