"""From the engine's nouns to the wire, and back. Pure."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from starlette.responses import Response

from api.problems import Problem
from api.schemas import (
    INTENDED_USE,
    AttributesAsked,
    AttributesBody,
    CaseBody,
    CaseSummary,
    EncoderBody,
    FacetValue,
    LabelAsked,
    LabelBody,
    Wire,
)
from api.search_schemas import CompositionBody, HitBody, MatchBody, PartsBody, QueryBody, SearchAnswer
from retrieval.ages import age_band
from retrieval.catalog.types import GalleryCounts
from retrieval.filters import Filter, parse
from retrieval.types import Attributes, Case, Composition, Hit, HitParts, Label, SearchResult

EXCERPT_CHARACTERS = 280


def filter_of(text: str) -> Filter | None:
    """The filter of a form field or query parameter; None for "" and "{}". A 422 problem when it is no JSON."""
    if not text.strip():
        return None
    try:
        value = _json(text)
    except (ValueError, RecursionError) as error:
        raise Problem(422, 'filters: expected a JSON object, as {"modality": "CT"}.') from error
    return None if value == {} else parse(value)


def labels_of(text: str) -> tuple[Label, ...]:
    """``{"name": "value" | number | [values]}`` as labels; a 422 problem when it is something else."""
    if not text.strip():
        return ()
    wrong = Problem(
        422, 'labels: expected a JSON object of names to values, as {"finding": ["mass", "cyst"], "bmi": 24}.'
    )
    try:
        given = _json(text)
    except (ValueError, RecursionError) as error:
        raise wrong from error
    if not isinstance(given, dict):
        raise wrong
    labels = []
    for name, values in given.items():
        for value in values if isinstance(values, list) else [values]:
            if not name or not _can_label(value):
                raise wrong
            labels.append(label_of(name, str(value)))
    return tuple(labels)


def _json(text: str) -> Any:
    """JSON as RFC 8259 has it: Python alone would take NaN and Infinity too."""
    return json.loads(text, parse_constant=_no_number)


def _no_number(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _can_label(value: object) -> bool:
    """Whether it is a text or a finite number; 1e400 is too large to be one."""
    if isinstance(value, str):
        return bool(value.strip())
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def label_of(name: str, value: str) -> Label:
    """A label, numeric when its text is a finite number."""
    try:
        number = float(value)
    except ValueError:
        return Label(name, value)
    return Label(name, value, number if abs(number) < 1e15 else None)


def patched(attributes: Attributes, asked: AttributesAsked) -> Attributes:
    """The attributes with the fields that were given."""
    return replace(attributes, **asked.model_dump(exclude_unset=True))


def labels_asked(asked: Sequence[LabelAsked]) -> tuple[Label, ...]:
    """The labels as a case has them; a 422 problem when a number is not what its value says."""
    for place, label in enumerate(asked):
        if label.number is not None and not _says(label.value, label.number):
            raise Problem(422, f"labels.{place}: expected the number of its value, or null, or no number at all.")
    return tuple(label_of(label.name, label.value) for label in asked)


def _says(value: str, number: float) -> bool:
    try:
        return float(value) == number
    except ValueError:
        return False


def excerpt(report: str) -> str:
    """The beginning of a report, cut between words."""
    text = " ".join(report.split())
    if len(text) <= EXCERPT_CHARACTERS:
        return text
    return text[:EXCERPT_CHARACTERS].rsplit(" ", 1)[0] + " …"


def attributes_body(case: Case) -> AttributesBody:
    kept = case.attributes
    return AttributesBody(
        body_part=kept.body_part,
        view=kept.view,
        laterality=kept.laterality,
        sex=kept.sex,
        age_band=age_band(kept.age),
        rows=case.rows,
        columns=case.columns,
        slices=len(case.frames),
        manufacturer=kept.manufacturer,
        study_year=kept.study_year,
    )


def label_bodies(case: Case) -> list[LabelBody]:
    return [LabelBody(name=label.name, value=label.value, number=label.number) for label in case.labels]


def case_body(case: Case, *, with_key: bool) -> CaseBody:
    """``with_key``: whether the caller may see the patient's pseudonym."""
    return CaseBody(
        case_id=case.case_id,
        kind=case.kind.value,
        modality=case.attributes.modality,
        attributes=attributes_body(case),
        labels=label_bodies(case),
        report=case.report,
        source=case.attributes.source,
        study_uid=case.study_uid,
        series_uid=case.series_uid,
        slice_positions_mm=[frame.position_mm for frame in case.frames],
        duplicate_of=case.duplicate_of,
        warnings=list(case.warnings),
        created_at=case.created_at,
        patient_known=bool(case.patient_key),
        patient_key=(case.patient_key or None) if with_key else None,
        thumbnail_url=thumbnail_url(case.case_id),
        image_url=image_url(case.case_id),
        viewer_url=viewer_url(case.case_id),
    )


def case_summary(case: Case) -> CaseSummary:
    return CaseSummary(
        case_id=case.case_id,
        kind=case.kind.value,
        modality=case.attributes.modality,
        attributes=attributes_body(case),
        labels=label_bodies(case),
        source=case.attributes.source,
        thumbnail_url=thumbnail_url(case.case_id),
        viewer_url=viewer_url(case.case_id),
    )


def hit_body(hit: Hit) -> HitBody:
    case = hit.case
    return HitBody(
        rank=hit.rank,
        case_id=case.case_id,
        kind=case.kind.value,
        similarity=hit.similarity,
        percentile=hit.percentile,
        labels=label_bodies(case),
        report_excerpt=excerpt(case.report),
        modality=case.attributes.modality,
        study_uid=case.study_uid,
        series_uid=case.series_uid,
        matches=[
            MatchBody(
                query_slice=match.query_slice,
                hit_slice=match.hit_slice,
                similarity=match.similarity,
                query_position_mm=match.query_position_mm,
                hit_position_mm=match.hit_position_mm,
            )
            for match in hit.matches
        ],
        thumbnail_url=thumbnail_url(case.case_id),
        viewer_url=viewer_url(case.case_id),
        source=case.attributes.source,
        attributes=attributes_body(case),
        parts=None if hit.parts is None else parts_body(hit.parts),
    )


def parts_body(parts: HitParts) -> PartsBody:
    return PartsBody(
        image_similarity=parts.image_similarity,
        text_similarity=parts.text_similarity,
        image_rank=parts.image_rank,
        text_rank=parts.text_rank,
        score=parts.score,
    )


def composition_body(composition: Composition) -> CompositionBody:
    return CompositionBody(fusion=composition.fusion.value, text_weight=composition.text_weight, told=composition.told)


def query_body(case: Case, warnings: Sequence[str], *, on_file: bool, preview: str | None) -> QueryBody:
    return QueryBody(
        kind=case.kind.value,
        case_id=case.case_id if on_file else None,
        modality=case.attributes.modality,
        body_part=case.attributes.body_part,
        slices=len(case.frames),
        warnings=list(warnings),
        patient_known=bool(case.patient_key),
        preview=preview,
    )


def text_query_body() -> QueryBody:
    return QueryBody(
        kind="text", case_id=None, modality="", body_part="", slices=0, warnings=[], patient_known=False, preview=None
    )


def as_json(body: Wire) -> Response:
    """A body that is right by construction: the framework would check and copy it once more."""
    return Response(body.model_dump_json(), media_type="application/json")


def answer(result: SearchResult, query: QueryBody) -> SearchAnswer:
    return SearchAnswer(
        hits=[hit_body(hit) for hit in result.hits],
        query=query,
        encoder=EncoderBody(name=result.encoder, fingerprint=result.fingerprint),
        generation=result.generation,
        gallery_size=result.gallery_size,
        plan=result.plan,
        candidates=result.candidates,
        exhaustive=result.exhaustive,
        no_confident_match=result.no_confident_match,
        reasons=list(result.reasons),
        cautions=list(result.cautions),
        p_value=result.p_value,
        yardstick=result.yardstick.value,
        composition=None if result.composition is None else composition_body(result.composition),
        took_ms=round(result.took_ms, 3),
        intended_use=INTENDED_USE,
    )


def facets(counts: GalleryCounts) -> dict[str, list[FacetValue]]:
    """What can be filtered by, under the names that filters use."""
    columns = {
        "modality": counts.modalities,
        "body_part": counts.body_parts,
        "kind": counts.kinds,
        "source": counts.sources,
    }
    columns |= {f"label.{label.name}": label.values for label in counts.labels}
    return {
        name: [FacetValue(value=value, cases=cases) for value, cases in values if value]
        for name, values in columns.items()
    }


def thumbnail_url(case_id: str) -> str:
    return f"/v1/cases/{case_id}/thumbnail"


def image_url(case_id: str) -> str:
    return f"/v1/cases/{case_id}/image"


def viewer_url(case_id: str) -> str:
    return f"/#case={case_id}"
