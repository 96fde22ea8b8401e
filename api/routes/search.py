"""Asking: by files, by a case on file, by a sentence, by an image and a sentence."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Request, Response

from api.access import Reader
from api.forms import Form, ReaderForm
from api.imaging import View
from api.problems import Problem, responses
from api.routes.parameters import CaseId, Count, Filters, view_of
from api.schemas import form_body
from api.search_schemas import QueryBody, SearchAnswer, SearchForm
from api.service import Service
from api.viewing import query_png
from api.wire import answer, as_json, filter_of, image_url, query_body, text_query_body
from indexer.query import QueryCase, read_query
from retrieval.encoders.text import text_encoder
from retrieval.errors import UsageError
from retrieval.gallery import Gallery
from retrieval.types import Fusion, GroupBy, Query, SamePatient

T = TypeVar("T")

router = APIRouter(prefix="/v1", tags=["search"])
FILES = "one DICOM, NIfTI, MHA, NRRD, PNG, JPEG, ... file; a zip; or several files of one series"


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
    query, told = _query(service, form, asked)
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


def _query(service: Service, form: Form, asked: SearchForm) -> tuple[Query, QueryBody]:
    image = bool(form.upload.files) or bool(asked.case_id)
    if (form.upload.files and asked.case_id) or not (image or asked.text):
        raise Problem(422, "Send exactly one of files and case_id, or text, or text beside one of them.")
    if not (image and asked.text) and asked.model_fields_set & {"text_weight", "fusion"}:
        raise Problem(422, "text_weight and fusion put an image and a text together: send both, or neither of these.")
    if not image:
        return _worded(service, lambda: service.gallery.text_query(asked.text)), text_query_body()
    if asked.text:  # before files are read for nothing
        _worded(service, lambda: text_encoder(service.gallery.encoder))
    query, told = _stored(service.gallery, asked.case_id) if asked.case_id else _sent(service, form, asked)
    if asked.text:
        query = _worded(service, partial(_with_text, service.gallery, query, asked))
    return query, told


def _sent(service: Service, form: Form, asked: SearchForm) -> tuple[Query, QueryBody]:
    with service.heavy.slot():
        read = read_query(service.gallery, service.sandbox, [file.path for file in form.upload.files])
    preview = _keep(service, read) if asked.preview else None
    return read.query, query_body(read.case, read.warnings, on_file=bool(read.case.key), preview=preview)


def _stored(gallery: Gallery, case_id: str) -> tuple[Query, QueryBody]:
    case, query = gallery.filed_query(case_id)
    return query, query_body(case, case.warnings, on_file=True, preview=image_url(case.case_id))


def _with_text(gallery: Gallery, query: Query, asked: SearchForm) -> Query:
    return gallery.with_text(query, asked.text, weight=asked.text_weight, fusion=Fusion(asked.fusion))


def _worded(service: Service, make: Callable[[], T]) -> T:
    """What has to do with a text; an encoder without a text tower makes it a request that is not valid."""
    try:
        with service.heavy.slot():
            return make()
    except UsageError as error:
        raise Problem(422, str(error)) from error


def _keep(service: Service, read: QueryCase) -> str:
    return f"/v1/queries/{service.previews.keep(read.images, read.numbers)}/image"


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
    query, told = _stored(service.gallery, case_id)
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
