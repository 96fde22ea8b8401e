"""What is asked with: files, a case on file, a sentence, or one of the first two with a sentence. For every route."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from api.forms import Form
from api.problems import Problem
from api.search_schemas import QueryBody, QueryForm
from api.service import Service
from api.wire import image_url, query_body, text_query_body
from indexer.query import QueryCase, read_query
from retrieval.encoders.text import text_encoder
from retrieval.errors import UsageError
from retrieval.gallery import Gallery
from retrieval.types import Fusion, Image, Query

T = TypeVar("T")

FILES = "one DICOM, NIfTI, MHA, NRRD, PNG, JPEG, ... file; a zip; or several files of one series"


def query_of(service: Service, form: Form, asked: QueryForm, *, preview: bool = False) -> tuple[Query, QueryBody]:
    """The query of a form, decoded and embedded, and what was understood of it; see ``query_and_images``."""
    query, told, _ = query_and_images(service, form, asked, preview=preview)
    return query, told


def query_and_images(
    service: Service, form: Form, asked: QueryForm, *, preview: bool = False
) -> tuple[Query, QueryBody, tuple[Image, ...]]:
    """The query of a form, decoded and embedded, what was understood of it, and the frames of sent files.

    ``preview`` keeps the pixels of sent files to be looked at. A 422 problem for none or too many ways of asking.
    """
    image = bool(form.upload.files) or bool(asked.case_id)
    if (form.upload.files and asked.case_id) or not (image or asked.text):
        raise Problem(422, "Send exactly one of files and case_id, or text, or text beside one of them.")
    if not (image and asked.text) and asked.model_fields_set & {"text_weight", "fusion"}:
        raise Problem(422, "text_weight and fusion put an image and a text together: send both, or neither of these.")
    if not image:
        return _worded(service, lambda: service.gallery.text_query(asked.text)), text_query_body(), ()
    if asked.text:  # before files are read for nothing
        _worded(service, lambda: text_encoder(service.gallery.encoder))
    images: tuple[Image, ...] = ()
    if asked.case_id:
        query, told = stored(service.gallery, asked.case_id)
    else:
        query, told, images = _sent(service, form, preview=preview)
    if asked.text:
        query = _worded(service, partial(_with_text, service.gallery, query, asked))
    return query, told, images


def stored(gallery: Gallery, case_id: str) -> tuple[Query, QueryBody]:
    """A case on file as the query. NotFoundError when there is none."""
    case, query = gallery.filed_query(case_id)
    return query, query_body(case, case.warnings, on_file=True, preview=image_url(case.case_id))


def _sent(service: Service, form: Form, *, preview: bool) -> tuple[Query, QueryBody, tuple[Image, ...]]:
    with service.heavy.slot():
        read = read_query(service.gallery, service.sandbox, [file.path for file in form.upload.files])
    url = _keep(service, read) if preview else None
    told = query_body(read.case, read.warnings, on_file=bool(read.case.key), preview=url)
    return read.query, told, read.images


def _with_text(gallery: Gallery, query: Query, asked: QueryForm) -> Query:
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
