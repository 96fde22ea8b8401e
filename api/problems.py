"""One shape for everything that goes wrong: problem+json (RFC 9457).

``type`` is a URN that programs can switch on, ``detail`` a sentence for people, ``instance`` the request's id as it
stands in the log. ``errors`` lists the single causes when there are several (fields of a form, files of an upload).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import Request

from api.schemas import Cause, ProblemBody
from retrieval.errors import (
    ConflictError,
    EndpointDown,
    EndpointError,
    EndpointSlow,
    FingerprintMismatch,
    LimitExceeded,
    MissingExtra,
    NotFoundError,
    PrecedentError,
    RejectedInput,
    SourceGone,
    StorageFull,
    StoreError,
    UsageError,
)
from retrieval.storage import FULL, storage_error

MEDIA_TYPE = "application/problem+json"
URN = "urn:precedent:problem:"
FAILING = frozenset({errno.EIO, errno.EROFS, errno.ENODEV, errno.ENXIO, errno.ESTALE})


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """A row of the table: status, the tail of the type URN, and the title that never changes."""

    status: int
    slug: str
    title: str


BY_ERROR: dict[type[PrecedentError], ProblemKind] = {
    UsageError: ProblemKind(400, "usage", "The request can't be understood"),
    NotFoundError: ProblemKind(404, "not-found", "Not found"),
    ConflictError: ProblemKind(409, "conflict", "Conflict with what is on file"),
    FingerprintMismatch: ProblemKind(409, "fingerprint-mismatch", "Vectors of two encoders would meet"),
    SourceGone: ProblemKind(410, "source-gone", "The source file is gone"),
    LimitExceeded: ProblemKind(413, "limit-exceeded", "Over a limit"),
    RejectedInput: ProblemKind(422, "rejected-input", "The input was refused"),
    MissingExtra: ProblemKind(501, "missing-extra", "An optional library is absent"),
    EndpointError: ProblemKind(502, "endpoint-failed", "The answer endpoint failed"),
    EndpointDown: ProblemKind(503, "endpoint-down", "The answer endpoint can't be reached"),
    EndpointSlow: ProblemKind(504, "endpoint-slow", "The answer endpoint took too long"),
    StorageFull: ProblemKind(507, "storage-full", "No space left"),
    StoreError: ProblemKind(503, "store", "The store can't be used"),
    PrecedentError: ProblemKind(500, "internal", "The service failed"),
}

BY_STATUS: dict[int, ProblemKind] = {
    400: BY_ERROR[UsageError],
    401: ProblemKind(401, "unauthenticated", "A key is needed"),
    403: ProblemKind(403, "forbidden", "Not allowed"),
    404: BY_ERROR[NotFoundError],
    405: ProblemKind(405, "method-not-allowed", "Method not allowed"),
    408: ProblemKind(408, "slow-request", "The request came too slowly"),
    409: BY_ERROR[ConflictError],
    410: ProblemKind(410, "gone", "No longer held"),
    413: BY_ERROR[LimitExceeded],
    415: ProblemKind(415, "media-type", "Unsupported media type"),
    421: ProblemKind(421, "wrong-host", "Wrong host"),
    422: ProblemKind(422, "invalid", "The request is not valid"),
    500: BY_ERROR[PrecedentError],
    501: BY_ERROR[MissingExtra],
    502: BY_ERROR[EndpointError],
    503: ProblemKind(503, "unavailable", "Not available now"),
    504: BY_ERROR[EndpointSlow],
    507: BY_ERROR[StorageFull],
}


class Problem(HTTPException):
    """A problem raised by the service itself; ``detail`` is a sentence."""

    def __init__(
        self, status: int, detail: str, *, headers: Mapping[str, str] | None = None, errors: Iterable[Cause] = ()
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.sentence = detail
        self.errors = tuple(errors)


def client_gone() -> Problem:
    """For the log and the metrics: nobody is there to read it."""
    return Problem(499, "The client closed the connection before it was answered.")


def kind_of(error: PrecedentError) -> ProblemKind:
    """The table's row for an error: that of its nearest listed ancestor."""
    return next(BY_ERROR[cls] for cls in type(error).__mro__ if cls in BY_ERROR)


def render(
    request: Request,
    kind: ProblemKind,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    errors: Iterable[Cause] = (),
) -> JSONResponse:
    """The reply."""
    content = problem_json(request, kind, detail, errors=errors)
    return JSONResponse(content, kind.status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def problem_json(request: Request, kind: ProblemKind, detail: str, *, errors: Iterable[Cause] = ()) -> dict[str, Any]:
    """A problem as plain JSON values. Only this function writes one, be it a reply or the end of a stream."""
    body = ProblemBody(
        type=URN + kind.slug,
        title=kind.title,
        status=kind.status,
        detail=without_paths(request.app.state.settings.home, detail),
        instance=f"urn:uuid:{request.scope.get('precedent.request_id', '')}",
        errors=list(errors) or None,
    )
    return body.model_dump(exclude_none=True)


def without_paths(home: Path, detail: str) -> str:
    """A sentence made for the command line may name the data directory; a reply must not."""
    for path in (str(home.resolve()), str(home)):
        if len(path) > 2:
            detail = detail.replace(path, "the data directory")
    return detail


def on_problem(request: Request, error: Exception) -> JSONResponse:
    """Problem, and the HTTPExceptions that the framework raises (404, 405, a body that is no JSON)."""
    if not isinstance(error, HTTPException):
        raise TypeError(f"expected an HTTPException, got {type(error).__name__}")
    kind = BY_STATUS.get(error.status_code) or ProblemKind(error.status_code, "http", "The request failed")
    if isinstance(error, Problem):
        return render(request, kind, error.sentence, headers=error.headers, errors=error.errors)
    return render(request, kind, _framework_sentence(request, error), headers=error.headers)


def _framework_sentence(request: Request, error: HTTPException) -> str:
    if error.status_code == 404:
        return "There is nothing at this address: GET /openapi.json lists what there is."
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        return f"{request.method} is not possible at this address: use {allowed}."
    return f"{error.detail}".rstrip(".") + "."


def on_precedent_error(request: Request, error: Exception) -> JSONResponse:
    """The errors of the engine and the indexer, by the table."""
    if not isinstance(error, PrecedentError):
        raise TypeError(f"expected a PrecedentError, got {type(error).__name__}")
    kind = kind_of(error)
    if isinstance(error, RejectedInput):
        request.app.state.metrics.rejected(error.stage)
    headers = {"Retry-After": "5"} if kind.status == 503 else None
    return render(request, kind, str(error), headers=headers)


def on_validation(request: Request, error: Exception) -> JSONResponse:
    """Parameters and bodies that do not fit their schema. The values are not repeated: they may be patient data."""
    if not isinstance(error, RequestValidationError):
        raise TypeError(f"expected a RequestValidationError, got {type(error).__name__}")
    causes = [Cause(where=_where(one["loc"]), message=str(one["msg"])) for one in error.errors()]
    detail = "; ".join(f"{cause.where}: {cause.message}" for cause in causes[:3]) or "the request is not valid"
    if any(one["type"] == "json_invalid" for one in error.errors()):
        return render(request, BY_STATUS[400], f"The body is not JSON: {detail}.", errors=causes)
    return render(request, BY_STATUS[422], f"The request is not valid: {detail}.", errors=causes)


def _where(loc: Iterable[Any]) -> str:
    parts = [str(part) for part in loc]
    return ".".join(parts[1:] if len(parts) > 1 and parts[0] in {"body", "query", "path", "header"} else parts)


def on_os_error(request: Request, error: Exception) -> JSONResponse:
    """A full disk is 507, one that fails 503; anything else of the operating system is unforeseen."""
    if isinstance(error, OSError) and error.errno in FULL | FAILING:
        return on_precedent_error(
            request, storage_error(error, "This request can't be put on the data directory's disk")
        )
    raise error  # unforeseen: the outermost guard logs it and answers 500


def internal(request: Request) -> JSONResponse:
    """A 500 that says nothing but where to look."""
    detail = "The service failed on this request. Nothing was changed half-way; the log has it under this request's id."
    return render(request, BY_STATUS[500], detail)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for the problems a route can answer with."""
    return {
        status: {
            "description": BY_STATUS[status].title,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemBody"}}},
        }
        for status in sorted({401, 403, 421, 422, 500, 503, *statuses})
    }
