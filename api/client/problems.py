"""What a service answers in place of what was asked, as errors."""

from __future__ import annotations

import json
from dataclasses import dataclass

from retrieval.errors import UsageError
from retrieval.reading import read

BUSY = (429, 503)


@dataclass(frozen=True, slots=True)
class Cause:
    """One of several reasons: ``where`` names a field of the form, or ``files.3`` for the fourth file sent."""

    where: str
    message: str


@dataclass(frozen=True, slots=True)
class ProblemTold:
    """A problem as RFC 9457 has it. ``type`` is a URN that programs can switch on, ``detail`` a sentence."""

    type: str
    status: int
    detail: str
    errors: tuple[Cause, ...] = ()


class ServiceProblem(Exception):
    """``str(problem)`` is the service's sentence, ``status`` of HTTP (0: no answer at all), ``kind`` its type URN."""

    def __init__(self, status: int, kind: str, sentence: str, causes: tuple[Cause, ...] = ()) -> None:
        super().__init__(sentence)
        self.status = status
        self.kind = kind
        self.causes = causes


class NotOnFile(ServiceProblem):
    """No such case (404)."""


class NotAllowed(ServiceProblem):
    """The key is missing, revoked, or of too narrow a scope (401, 403)."""


class BadRequest(ServiceProblem):
    """What was sent can't be understood or was refused (400, 409, 413, 415, 422)."""


class ServiceBusy(ServiceProblem):
    """Still busy, or not able to, after all tries (429, 503)."""


class Unreachable(ServiceProblem):
    """No answer: nothing listens at the address, or it took longer than the timeout, or broke off."""


_KINDS: dict[int, type[ServiceProblem]] = {
    404: NotOnFile,
    **dict.fromkeys((401, 403), NotAllowed),
    **dict.fromkeys((400, 409, 413, 415, 422), BadRequest),
    **dict.fromkeys(BUSY, ServiceBusy),
}


def problem_of(status: int, body: str | bytes) -> ServiceProblem:
    """The error for a reply that is no success."""
    try:
        told = read(ProblemTold, json.loads(body))
    except (ValueError, RecursionError, UsageError):
        sentence = f"The service answered with status {status} and without a sentence: is it Precedent?"
        return ServiceProblem(status, "", sentence)
    return _KINDS.get(told.status, ServiceProblem)(told.status, told.type, told.detail, told.errors)


def not_understood(status: int, why: str) -> ServiceProblem:
    """The error for a success that says something else than was asked for."""
    return ServiceProblem(
        status, "", f"The answer is not what the client knows: {why} Is it Precedent, of its version?"
    )
