"""A search answer for people and for machines; the fields are named as in the HTTP answer."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from indexer.cli.console import out
from retrieval.types import Composition, Hit, HitParts, SearchResult

EXCERPT = 240  # characters of a report


def result_json(result: SearchResult, warnings: tuple[str, ...]) -> dict[str, Any]:
    """The answer as plain data."""
    return {
        "hits": [_hit_json(hit) for hit in result.hits],
        "encoder": {"name": result.encoder, "fingerprint": result.fingerprint},
        "generation": result.generation,
        "gallery_size": result.gallery_size,
        "plan": result.plan,
        "candidates": result.candidates,
        "exhaustive": result.exhaustive,
        "no_confident_match": result.no_confident_match,
        "reasons": list(result.reasons),
        "cautions": list(result.cautions),
        "p_value": result.p_value,
        "took_ms": round(result.took_ms, 3),
        "yardstick": result.yardstick.value,
        "composition": _composition_json(result.composition),
        "warnings": list(warnings),
    }


def _composition_json(composition: Composition | None) -> dict[str, Any] | None:
    if composition is None:
        return None
    return {"fusion": composition.fusion.value, "text_weight": composition.text_weight}


def _parts_json(parts: HitParts | None) -> dict[str, Any] | None:
    if parts is None:
        return None
    return {
        "image_similarity": round(parts.image_similarity, 6),
        "text_similarity": round(parts.text_similarity, 6),
        "image_rank": parts.image_rank,
        "text_rank": parts.text_rank,
        "score": parts.score,
    }


def _hit_json(hit: Hit) -> dict[str, Any]:
    case = hit.case
    return {
        "rank": hit.rank,
        "case_id": case.case_id,
        "kind": case.kind.value,
        "similarity": round(hit.similarity, 6),
        "percentile": round(hit.percentile, 2),
        "labels": [{"name": label.name, "value": label.value, "number": label.number} for label in case.labels],
        "report_excerpt": case.report[:EXCERPT],
        "modality": case.attributes.modality,
        "body_part": case.attributes.body_part,
        "study_uid": case.study_uid,
        "series_uid": case.series_uid,
        "source": case.attributes.source,
        "matches": [
            {
                "query_slice": match.query_slice,
                "hit_slice": match.hit_slice,
                "similarity": round(match.similarity, 6),
                "query_position_mm": match.query_position_mm,
                "hit_position_mm": match.hit_position_mm,
            }
            for match in hit.matches
        ],
        "parts": _parts_json(hit.parts),
    }


def print_result(result: SearchResult) -> None:
    """A table of hits and a line on how they were found."""
    console = out()
    if not result.hits:
        console.print("No case qualifies: the gallery, the filter or the patient exclusion leaves none.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("similarity", no_wrap=True)
    table.add_column("case", no_wrap=True)
    table.add_column("what", overflow="fold")
    table.add_column("labels", overflow="fold", ratio=1)
    for hit in result.hits:
        table.add_row(*_row(hit))
    console.print(table)
    if result.no_confident_match:
        console.print(f"No confident match. {' '.join(result.reasons)}")
    for caution in result.cautions:
        console.print(caution)
    if result.composition is not None:
        console.print(f"{result.composition.told} Similarities: to both as one; to the image + to the text.")
    how = "every candidate scored" if result.exhaustive else "approximate"
    console.print(
        f"In brackets: share of random {result.yardstick} of this gallery that are less similar. "
        f"{result.gallery_size:,} cases, {result.plan} ({how}), {result.took_ms:.1f} ms, {result.fingerprint}.",
    )


def _parts_words(parts: HitParts | None) -> str:
    if parts is None:
        return ""
    places = f" #{parts.image_rank}+#{parts.text_rank}" if parts.score is not None else ""
    return f" {parts.image_similarity:.3f}+{parts.text_similarity:.3f}{places}"


def _row(hit: Hit) -> tuple[str, ...]:
    case, best = hit.case, hit.matches[0] if hit.matches else None
    slices = f"slice {best.query_slice + 1}↔{best.hit_slice + 1}" if best and len(case.frames) > 1 else ""
    facts = (case.attributes.modality, case.attributes.body_part, case.kind.value, slices, case.attributes.source)
    return (
        str(hit.rank),
        f"{hit.similarity:.3f} ({hit.percentile:.1f} %){_parts_words(hit.parts)}",
        case.case_id,
        " ".join(fact for fact in facts if fact),
        ", ".join(f"{label.name}: {label.value}" for label in case.labels),
    )
