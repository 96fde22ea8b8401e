"""Bundles of evidence, and answers written from them."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator
from functools import partial
from itertools import chain
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from api.asking import FILES, query_and_images
from api.evidence_schemas import AnswerForm, BundleForm, EvidenceAnswer, EvidenceForm, GeneratedAnswer, MessagesAnswer
from api.forms import Form, ReaderForm
from api.problems import kind_of, problem_json, responses
from api.schemas import form_body
from api.service import Service
from api.streaming import ClosingStream
from api.wire import as_json, filter_of
from indexer.evidence_images import filed_pictures, pictures_of, query_pictures
from retrieval.answers.answer import QUESTION, answer_of, answering
from retrieval.answers.checking import Judged, Sentence
from retrieval.answers.endpoint import Endpoint, endpoint_of
from retrieval.answers.plain import answer_json, judged_json
from retrieval.errors import PrecedentError
from retrieval.evidence.bundle import gather
from retrieval.evidence.cited import AskedWith, Evidence
from retrieval.evidence.formats.markdown import markdown
from retrieval.evidence.formats.messages import Picture, messages, text_of
from retrieval.evidence.formats.plain import evidence_json
from retrieval.types import CaseKind, Image

router = APIRouter(prefix="/v1", tags=["evidence"])


@router.post(
    "/evidence",
    response_model=EvidenceAnswer | MessagesAnswer,
    openapi_extra=form_body(EvidenceForm, files=FILES),
    responses={200: {"content": {"text/markdown": {}}}, **responses(400, 404, 408, 409, 413, 415, 507)},
)
def evidence(form: ReaderForm) -> Response:
    """Similar cases of other patients, cited and cut to a budget, for a language model or a person."""
    service = form.caller.service
    asked = form.fields(EvidenceForm)
    found, images = _gathered(service, form, asked, text_of if asked.format == "messages" else markdown)
    if asked.format == "markdown":
        return PlainTextResponse(markdown(found), media_type="text/markdown")
    if asked.format == "json":
        return as_json(EvidenceAnswer(**evidence_json(found)))
    found, told = _messages(service, found, images, asked, "")
    return as_json(MessagesAnswer(messages=told, notes=list(found.notes)))


@router.post(
    "/answer",
    response_model=GeneratedAnswer,
    openapi_extra=form_body(AnswerForm, files=FILES),
    responses={
        200: {"content": {"text/event-stream": {}}},
        **responses(400, 404, 408, 409, 413, 415, 501, 502, 503, 504, 507),
    },
)
def answer(form: ReaderForm, request: Request) -> Response:
    """An answer by the configured model, every sentence of which cites cases; off unless an endpoint is configured."""
    service = form.caller.service
    asked = form.fields(AnswerForm)
    endpoint = endpoint_of(service.gallery.settings)
    question = asked.question or QUESTION
    found, images = _gathered(service, form, asked, partial(text_of, question=question))
    found, told = _messages(service, found, images, asked, question)
    judged = answering(found, told, endpoint)
    if not asked.stream:
        return as_json(_generated(found, list(chain.from_iterable(judged)), endpoint))
    begun = next(filter(None, judged), ())  # what fails before the first sentence is a problem, not a broken stream
    return ClosingStream(_events(request, found, chain([begun], judged), endpoint))


def _gathered(
    service: Service, form: Form, asked: BundleForm, written: Callable[[Evidence], str]
) -> tuple[Evidence, tuple[Image, ...]]:
    filters = filter_of(asked.filters)
    query, told, images = query_and_images(service, form, asked)
    about = AskedWith(told.kind, told.modality, told.body_part, told.slices, asked.text, tuple(told.warnings))
    with service.searching.slot():
        found = gather(
            service.gallery, query, asked=about, k=asked.k, filters=filters, max_tokens=asked.max_tokens,
            max_images=asked.max_images, written=written,
        )  # fmt: skip
    return found, images


def _messages(
    service: Service, found: Evidence, images: tuple[Image, ...], asked: BundleForm, question: str
) -> tuple[Evidence, list[dict[str, Any]]]:
    with service.heavy.slot():
        found, pictures = pictures_of(service.gallery, service.sandbox, found)
        own = _own_pictures(service, images, asked, found)
    return found, messages(found, pictures, own, question)


def _own_pictures(service: Service, images: tuple[Image, ...], asked: BundleForm, found: Evidence) -> list[Picture]:
    if asked.case_id:
        case = service.gallery.case(asked.case_id)
        return filed_pictures(service.gallery, service.sandbox, case, found.own_images)
    return query_pictures(images, CaseKind(found.query.kind), found.own_images) if images else []


def _generated(found: Evidence, judged: list[Judged], endpoint: Endpoint) -> GeneratedAnswer:
    return GeneratedAnswer(
        **answer_json(answer_of(found, judged, endpoint)), evidence=EvidenceAnswer(**evidence_json(found))
    )


def _events(
    request: Request, found: Evidence, judged: Iterator[tuple[Judged, ...]], endpoint: Endpoint
) -> Generator[str, None, None]:
    """``sentence`` and ``removed`` as they are judged, then ``done`` with the whole, or ``problem``.

    Each piece of the model's answer is at least a comment, which says nothing: between two of them it is seen that the
    client has gone, and the model is asked no more.
    """
    held: list[Judged] = []
    try:
        for whole in judged:
            held += whole
            yield "".join(map(_judged_event, whole)) or ":\n\n"
    except PrecedentError as error:
        yield _event("problem", json.dumps(problem_json(request, kind_of(error), str(error))))
        return
    yield _event("done", _generated(found, held, endpoint).model_dump_json())


def _judged_event(judged: Judged) -> str:
    return _event("sentence" if isinstance(judged, Sentence) else "removed", json.dumps(judged_json(judged)))


def _event(name: str, data: str) -> str:
    return f"event: {name}\ndata: {data}\n\n"
