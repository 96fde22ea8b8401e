"""Classifying and estimating by neighbours."""

from __future__ import annotations

from fastapi import APIRouter, Response

from api.asking import FILES, query_of
from api.forms import ReaderForm
from api.judging_schemas import ClassifyAnswer, ClassifyForm, EstimateAnswer, EstimateForm
from api.problems import responses
from api.schemas import INTENDED_USE, form_body
from api.wire import as_json, filter_of
from retrieval.evidence.classify import classify as classify_by_neighbours
from retrieval.evidence.estimate import estimate as estimate_by_neighbours
from retrieval.evidence.plain import classification_json, estimate_json
from retrieval.types import SamePatient

router = APIRouter(prefix="/v1", tags=["evidence"])
PROBLEMS = responses(400, 404, 408, 409, 413, 415, 507)


@router.post(
    "/classify",
    response_model=ClassifyAnswer,
    openapi_extra=form_body(ClassifyForm, files=FILES),
    responses=PROBLEMS,
)
def classify(form: ReaderForm) -> Response:
    """Probabilities of a label's values by neighbours, calibrated on the gallery with each patient left out."""
    service = form.caller.service
    asked = form.fields(ClassifyForm)
    filters = filter_of(asked.filters)
    query, told = query_of(service, form, asked)
    with service.heavy.slot():  # the first question fits, which takes seconds: searches must not wait for it
        found = classify_by_neighbours(
            service.gallery,
            query,
            label=asked.label,
            k=asked.k,
            filters=filters,
            same_patient=SamePatient(asked.same_patient),
            sensitivity=asked.sensitivity,
            specificity=asked.specificity,
        )
    return as_json(ClassifyAnswer(**classification_json(found), query=told, intended_use=INTENDED_USE))


@router.post(
    "/estimate",
    response_model=EstimateAnswer,
    openapi_extra=form_body(EstimateForm, files=FILES),
    responses=PROBLEMS,
)
def estimate(form: ReaderForm) -> Response:
    """A number by neighbours, with a prediction interval measured on the gallery with each patient left out."""
    service = form.caller.service
    asked = form.fields(EstimateForm)
    filters = filter_of(asked.filters)
    query, told = query_of(service, form, asked)
    with service.heavy.slot():  # the first question fits, which takes seconds: searches must not wait for it
        found = estimate_by_neighbours(
            service.gallery,
            query,
            label=asked.label,
            k=asked.k,
            filters=filters,
            same_patient=SamePatient(asked.same_patient),
            level=asked.level,
        )
    return as_json(EstimateAnswer(**estimate_json(found), query=told, intended_use=INTENDED_USE))
