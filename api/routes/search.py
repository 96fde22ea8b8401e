"""Asking: by files, by a case on file, by a sentence, by an image and a sentence."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from api.access import Reader
from api.asking import FILES, query_of, stored
from api.forms import ReaderForm
from api.imaging import View
from api.problems import responses
from api.routes.parameters import CaseId, Count, Filters, view_of
from api.schemas import form_body
from api.search_schemas import SearchAnswer, SearchForm
from api.viewing import query_png
from api.wire import answer, as_json, filter_of
from retrieval.types import GroupBy, SamePatient

router = APIRouter(prefix="/v1", tags=["search"])


@router.post(
    "/search",
    response_model=SearchAnswer,
    openapi_extra=form_body(SearchForm, files=FILES),
    responses=responses(400, 404, 408, 409, 413, 415, 507),
)
def search(form: ReaderForm) -> Response:
    """The most similar cases to an image, a series, a case on file, a sentence, or an image and a sentence."""
    service = form.caller.service
    asked = form.fields(SearchForm)
    filters = filter_of(asked.filters)
    query, told = query_of(service, form, asked, preview=asked.preview)
    with service.searching.slot():
        result = service.gallery.search(
            query,
            k=asked.k,
            filters=filters,
            same_patient=SamePatient(asked.same_patient),
            group=GroupBy(asked.group),
            rerank=asked.rerank,
        )
    return as_json(answer(result, told))


@router.get("/cases/{case_id}/similar", response_model=SearchAnswer, responses=responses(400, 404))
def similar(
    caller: Reader,
    case_id: CaseId,
    k: Count = 10,
    filters: Filters = "",
    same_patient: SamePatient = SamePatient.EXCLUDE,
    group: GroupBy = GroupBy.PATIENT,
    rerank: bool = False,
) -> Response:
    """The cases most like one on file; itself is left out."""
    service = caller.service
    query, told = stored(service.gallery, case_id)
    wanted = filter_of(filters)
    with service.searching.slot():
        result = service.gallery.search(
            query, k=k, filters=wanted, same_patient=same_patient, group=group, rerank=rerank
        )
    return as_json(answer(result, told))


@router.get(
    "/queries/{token}/image",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}, 304: {"description": "Not modified"}, **responses(404, 410)},
)
def query_image(caller: Reader, request: Request, token: str, view: Annotated[View, Depends(view_of)]) -> Response:
    """A slice of a query that was sent with ``preview``, as PNG. Held in memory for half an hour at most."""
    return query_png(caller.service, request, token, view)
