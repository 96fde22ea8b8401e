"""Cases on file: list, look, add, correct, delete."""

from __future__ import annotations

import hashlib
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from api.access import Reader, Writer
from api.forms import WriterForm
from api.imaging import View
from api.problems import Problem, responses
from api.routes.parameters import CaseId, Filters, view_of
from api.schemas import (
    CaseBody,
    CasePage,
    CasePatch,
    CasesAdded,
    CasesForm,
    Cause,
    Deleted,
    FileStatusBody,
    form_body,
)
from api.viewing import case_png
from api.wire import case_body, case_summary, filter_of, labels_asked, labels_of, patched
from indexer.intake import UploadStatus, add_files, delete_cases
from indexer.labels import RowFacts
from indexer.report import FileStatus
from retrieval.errors import NotFoundError

router = APIRouter(prefix="/v1", tags=["cases"])
USABLE = frozenset({FileStatus.INDEXED, FileStatus.UNCHANGED})
ADD_FILES = "files to index: single images, all files of a series, or a zip; only their pixels are kept"


@router.get("/cases", response_model=CasePage, responses=responses(400))
def list_cases(
    caller: Reader,
    filters: Filters = "",
    after: Annotated[int, Query(ge=0, description="where the page begins: the ``next`` of the page before")] = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> CasePage:
    """A page of the gallery, oldest first."""
    found = caller.service.gallery.catalog.list_cases(filter_of(filters), after, limit + 1)
    page = found[:limit]
    return CasePage(cases=[case_summary(case) for case in page], next=page[-1].key if len(found) > limit else None)


@router.get("/cases/{case_id}", response_model=CaseBody, responses=responses(404))
def get_case(caller: Reader, case_id: CaseId) -> CaseBody:
    """One case with its labels and report."""
    return case_body(caller.service.gallery.case(case_id), with_key=caller.may_see_keys)


@router.get(
    "/cases/{case_id}/image",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}, 304: {"description": "Not modified"}, **responses(404, 410)},
)
def get_image(caller: Reader, request: Request, case_id: CaseId, view: Annotated[View, Depends(view_of)]) -> Response:
    """A slice as PNG, windowed, from the file the case was indexed from."""
    return case_png(caller.service, request, caller.service.gallery.case(case_id), view)


@router.get(
    "/cases/{case_id}/thumbnail",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}, 304: {"description": "Not modified"}, **responses(404)},
)
def get_thumbnail(caller: Reader, request: Request, case_id: CaseId) -> Response:
    """A JPEG of at most 256 px a side, from the database."""
    jpeg = caller.service.gallery.catalog.thumbnail(case_id)
    headers = {"ETag": f'"{hashlib.sha256(jpeg).hexdigest()[:32]}"', "Cache-Control": "private, max-age=600"}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(jpeg, media_type="image/jpeg", headers=headers)


@router.post(
    "/cases",
    response_model=CasesAdded,
    status_code=201,
    openapi_extra=form_body(CasesForm, files=ADD_FILES),
    responses={200: {"model": CasesAdded, "description": "Nothing was new"}, **responses(400, 408, 409, 413, 415, 507)},
)
def add_cases(form: WriterForm, response: Response) -> CasesAdded:
    """Index files. Each has a truthful status; 201 when something was added, 422 when no file could be used.

    409 when every file was refused because its UIDs are on file with other content; the reasons have both hashes.
    """
    service = form.caller.service
    asked = form.fields(CasesForm)
    facts = RowFacts(line=0, labels=labels_of(asked.labels)) if asked.labels.strip() else None
    if not form.upload.files:
        raise Problem(422, "Send at least one file in the field 'files'.")
    places = {file.path: str(place) for place, file in enumerate(form.upload.files)}
    with service.heavy.slot():
        told = add_files(service.gallery, service.sandbox, places, facts=facts, source=asked.source)
    added = _added(told)
    for status in told:
        if status.status is FileStatus.FAILED:
            service.metrics.rejected("intake")
    if not any(status.status in USABLE for status in told):
        raise _none_usable(added, conflict=bool(told) and all(status.conflict for status in told))
    response.status_code = 201 if added.indexed else 200
    return added


def _none_usable(added: CasesAdded, *, conflict: bool) -> Problem:
    causes = [Cause(where=f"files.{status.file}", message=status.reason) for status in added.files]
    why = causes[0].message if causes else "there is none in what was sent."
    return Problem(409 if conflict else 422, f"None of the files could be indexed: {why}", errors=causes[:100])


def _added(told: list[UploadStatus]) -> CasesAdded:
    """Statuses by place in the body. Names are left out: names of files and zip members can hold names of people."""
    bodies = [
        FileStatusBody(
            file=int(status.name.partition("!")[0]),
            status="updated" if status.updated else status.status.value,
            case_id=status.case_id or None,
            reason=status.reason,
        )
        for status in told
    ]
    return CasesAdded(
        files=sorted(bodies, key=lambda body: body.file),
        indexed=sum(status.status is FileStatus.INDEXED for status in told),
        updated=sum(status.updated for status in told),
        failed=sum(status.status is FileStatus.FAILED for status in told),
    )


@router.patch("/cases/{case_id}", response_model=CaseBody, responses=responses(400, 404))
def patch_case(caller: Writer, case_id: CaseId, asked: CasePatch) -> CaseBody:
    """Correct what is known of a case; its pixels and vectors stay."""
    catalog = caller.service.gallery.catalog
    attributes = patched(catalog.case(case_id).attributes, asked.attributes) if asked.attributes else None
    labels = None if asked.labels is None else labels_asked(asked.labels)
    case = catalog.update(case_id, attributes=attributes, labels=labels, report=asked.report)
    return case_body(case, with_key=caller.may_see_keys)


@router.delete("/cases/{case_id}", response_model=Deleted, responses=responses(404, 507))
def delete_case(caller: Writer, case_id: CaseId) -> Deleted:
    """Delete for good: no later answer shows the case, in any process."""
    gone = delete_cases(caller.service.gallery, [case_id])
    if not gone:
        raise NotFoundError(f"No case {case_id} in this gallery: expected the id of a case on file.")
    return Deleted(deleted=gone)
