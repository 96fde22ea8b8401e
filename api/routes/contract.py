"""The MedImageInsights service contract, so that its clients move over unchanged: /encode, /predict, /health.

Vectors of images are patient data, so with access keys ``/encode`` wants the scope ``write``, which whoever may only
look does not have. ``/predict`` gives probabilities of the caller's own labels and wants ``read``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from api.access import Caller, Reader, Writer, service_of
from api.contract_schemas import (
    ContractHealth,
    EncodeAnswer,
    EncodeAsked,
    PredictAnswer,
    PredictAsked,
    json_body,
)
from api.encoding import Frames, Vector, answered, check_images, stacked
from api.problems import Problem, responses
from api.service import Service
from api.spooled import SpooledJson, decoded, spool
from retrieval.encoders.text import text_encoder
from retrieval.errors import UsageError
from retrieval.gallery import Gallery
from retrieval.prompts import NEUTRAL
from retrieval.zeroshot import cosines, each, one_of, prompts

router = APIRouter(tags=["medimageinsights"])
health = APIRouter(tags=["medimageinsights"])

MOST_IMAGES = 256
MOST_TEXTS = 1000
BODY_BYTES = 64 << 20
LARGE_BODIES = {"/encode": BODY_BYTES, "/predict": BODY_BYTES}
PROBLEMS = responses(400, 408, 413, 415, 507)


async def _spooled(request: Request, caller: Caller) -> AsyncIterator[SpooledJson]:
    with caller.service.uploading.place():
        async with spool(request, caller.service.scratch.path) as body:
            yield body


async def _reader_json(request: Request, caller: Reader) -> AsyncIterator[SpooledJson]:
    async for body in _spooled(request, caller):
        yield body


async def _writer_json(request: Request, caller: Writer) -> AsyncIterator[SpooledJson]:
    async for body in _spooled(request, caller):
        yield body


@router.post("/encode", response_model=EncodeAnswer, openapi_extra=json_body(EncodeAsked), responses=PROBLEMS)
async def encode(request: Request, caller: Writer, body: Annotated[SpooledJson, Depends(_writer_json)]) -> Response:
    """Vectors of images and texts, all of length 1, from the gallery's encoder. Contract of MedImageInsights."""
    service = caller.service
    asked, frames = await to_thread.run_sync(_read_encode, service, body)
    images = await _vectors(request, service, frames) if asked.images is not None else None
    texts = await answered(request, service.encoding.texts(asked.texts)) if asked.texts is not None else None
    return await to_thread.run_sync(_encoded, service.gallery, images, texts)


@router.post("/predict", response_model=PredictAnswer, openapi_extra=json_body(PredictAsked), responses=PROBLEMS)
async def predict(request: Request, caller: Reader, body: Annotated[SpooledJson, Depends(_reader_json)]) -> Response:
    """Zero-shot probabilities of labels, most probable first. Contract of MedImageInsights.

    Softmax over the labels; with ``multilabel`` each label by itself against neutral prompts: see docs/text.md.
    """
    service = caller.service
    asked, frames = await to_thread.run_sync(_read_predict, service, body)
    labels = list(dict.fromkeys(asked.labels))
    sentences = prompts(labels) + (list(NEUTRAL) if asked.multilabel else [])
    texts = await answered(request, service.encoding.prompts(sentences))
    images = await _vectors(request, service, frames)
    return await to_thread.run_sync(partial(_predicted, service.gallery, labels, asked.multilabel), images, texts)


@health.get("/health", response_model=ContractHealth, responses=responses(503))
def healthy(request: Request) -> ContractHealth:
    """The service can answer. Contract of MedImageInsights; /readyz says more."""
    service_of(request)
    return ContractHealth(status="healthy")


async def _vectors(request: Request, service: Service, frames: Sequence[Frames]) -> list[Vector]:
    return await answered(request, service.encoding.images(frames))


def _read_encode(service: Service, body: SpooledJson) -> tuple[EncodeAsked, list[Frames]]:
    with service.heavy.slot():
        asked = body.parsed(EncodeAsked)
        _check_counts(images=asked.images or [], texts=asked.texts or [])
        if asked.texts is not None:
            _able(lambda: text_encoder(service.gallery.encoder))
        return asked, _decoded(service, body, asked.images or [])


def _read_predict(service: Service, body: SpooledJson) -> tuple[PredictAsked, list[Frames]]:
    with service.heavy.slot():
        asked = body.parsed(PredictAsked)
        _check_counts(images=asked.images, labels=asked.labels)
        _able(lambda: text_encoder(service.gallery.encoder))
        _able(lambda: _logit_scale(service.gallery))
        return asked, _decoded(service, body, asked.images)


def _decoded(service: Service, body: SpooledJson, images: Sequence[str]) -> list[Frames]:
    if images:
        _able(lambda: check_images(service.gallery))
    return decoded(service.gallery, service.sandbox, body, images, service.encoding.check_room)


def _able(check: Callable[[], object]) -> None:
    """What this gallery's encoder can't do makes the request one that is not valid."""
    try:
        check()
    except UsageError as error:
        raise Problem(422, str(error)) from error


def _check_counts(**lists: Sequence[str]) -> None:
    for name, values in lists.items():
        most = MOST_IMAGES if name == "images" else MOST_TEXTS
        if len(values) > most:
            raise Problem(413, f"{name}: {len(values)} are over the limit of {most} a request: send them in parts.")


def _logit_scale(gallery: Gallery) -> float:
    scale = gallery.encoder.card.logit_scale
    if scale is None:
        raise UsageError(
            f"The encoder '{gallery.encoder.card.name}' states no logit scale, so its cosines can't become "
            "probabilities: take the vectors from /encode."
        )
    return scale


def _encoded(gallery: Gallery, images: list[Vector] | None, texts: list[Vector] | None) -> Response:
    answer = EncodeAnswer(
        image_embeddings=None if images is None else [vector.tolist() for vector in images],
        text_embeddings=None if texts is None else [vector.tolist() for vector in texts],
    )
    return _json(gallery, answer)


def _predicted(
    gallery: Gallery, labels: Sequence[str], multilabel: bool, images: list[Vector], texts: list[Vector]
) -> Response:
    dim = gallery.encoder.card.dim
    found = cosines(stacked(images, dim), stacked(texts, dim))
    named, neutral = found[:, : len(labels)], found[:, len(labels) :]
    scale = _logit_scale(gallery)
    told = each(named, neutral, scale) if multilabel else one_of(named, scale)
    return _json(gallery, PredictAnswer(predictions=[_sorted(labels, row.tolist()) for row in told]))


def _sorted(labels: Sequence[str], probabilities: Sequence[float]) -> dict[str, float]:
    """The most probable first; equal ones in the order they were asked."""
    pairs = zip(labels, probabilities, strict=True)
    return dict(sorted(pairs, key=lambda pair: -pair[1]))


def _json(gallery: Gallery, answer: BaseModel) -> Response:
    headers = {"X-Encoder": gallery.encoder.card.fingerprint}  # vectors of two fingerprints must not be compared
    return Response(answer.model_dump_json(), media_type="application/json", headers=headers)
