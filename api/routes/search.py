"""Asking: by files, by a case on file, by a sentence."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from api.access import Reader
from api.forms import Form, ReaderForm
from api.imaging import View
from api.problems import Problem, responses
from api.routes.parameters import CaseId, Count, Filters, view_of
from api.schemas import QueryBody, SearchAnswer, SearchForm, form_body
from api.service import Service
from api.viewing import query_png
from api.wire import answer, filter_of, image_url, query_body, text_query_body
from indexer.query import QueryCase, read_query
from retrieval.errors import UsageError
from retrieval.gallery import Gallery
from retrieval.types import GroupBy, Query, SamePatient

router = APIRouter(prefix="/v1", tags=["search"])
FILES = "one DICOM, NIfTI, MHA, NRRD, PNG, JPEG, ... file; a zip; or several files of one series"


@router.post(
    "/search",
    response_model=SearchAnswer,
    openapi_extra=form_body(SearchForm, files=FILES),
    responses=responses(400, 404, 408, 409, 413, 415, 507),
)
def search(form: ReaderForm) -> SearchAnswer:
    """The most similar cases to an image, a series, a case on file or a sentence."""
    service = form.caller.service
    asked = form.fields(SearchForm)
    filters = filter_of(asked.filters)
    query, told = _query(service, form, asked)
    with service.heavy.slot():
        result = service.gallery.search(
            query,
            k=asked.k,
            filters=filters,
            same_patient=SamePatient(asked.same_patient),
            group=GroupBy(asked.group),
            rerank=asked.rerank,
        )
    return answer(result, told)


def _query(service: Service, form: Form, asked: SearchForm) -> tuple[Query, QueryBody]:
    ways = [bool(form.upload.files), bool(asked.case_id), bool(asked.text)]
    if sum(ways) != 1:
        raise Problem(422, "Send exactly one of files, case_id and text: that is what is searched for.")
    if asked.case_id:
        return _stored(service.gallery, asked.case_id)
    if asked.text:
        return _sentence(service, asked.text)
    with service.heavy.slot():
        read = read_query(service.gallery, service.sandbox, [file.path for file in form.upload.files])
    preview = _keep(service, read) if asked.preview else None
    return read.query, query_body(read.case, read.warnings, on_file=bool(read.case.key), preview=preview)


def _stored(gallery: Gallery, case_id: str) -> tuple[Query, QueryBody]:
    case = gallery.case(case_id)
    told = query_body(case, case.warnings, on_file=True, preview=image_url(case.case_id))
    return gallery.query_of(case_id), told


def _sentence(service: Service, text: str) -> tuple[Query, QueryBody]:
    try:
        with service.heavy.slot():
            return Query(service.gallery.embed_text(text)), text_query_body()
    except UsageError as error:
        raise Problem(422, str(error)) from error


def _keep(service: Service, read: QueryCase) -> str:
    numbers = read.query.embedding.slice_frames or tuple(range(len(read.images)))
    return f"/v1/queries/{service.previews.keep(read.images, numbers)}/image"


@router.get("/cases/{case_id}/similar", response_model=SearchAnswer, responses=responses(400, 404))
def similar(
    caller: Reader,
    case_id: CaseId,
    k: Count = 10,
    filters: Filters = "",
    same_patient: SamePatient = SamePatient.EXCLUDE,
    group: GroupBy = GroupBy.PATIENT,
    rerank: bool = False,
) -> SearchAnswer:
    """The cases most like one on file; itself is left out."""
    service = caller.service
    query, told = _stored(service.gallery, case_id)
    wanted = filter_of(filters)
    with service.heavy.slot():
        result = service.gallery.search(
            query, k=k, filters=wanted, same_patient=same_patient, group=group, rerank=rerank
        )
    return answer(result, told)


@router.get(
    "/queries/{token}/image",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}, 304: {"description": "Not modified"}, **responses(404, 410)},
)
def query_image(caller: Reader, request: Request, token: str, view: Annotated[View, Depends(view_of)]) -> Response:
    """A slice of a query that was sent with ``preview``, as PNG. Held in memory for half an hour at most."""
    return query_png(caller.service, request, token, view)
