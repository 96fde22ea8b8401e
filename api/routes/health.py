"""For orchestrators and Prometheus."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from api.access import Caller, admitted
from api.problems import Problem, responses
from api.schemas import Health, Readiness
from retrieval.access import Scope
from retrieval.errors import PrecedentError

router = APIRouter(tags=["health"])


@router.get("/livez", response_model=Health)
async def livez() -> Health:  # needs no thread: all of them may be waiting for a database server
    """The process answers."""
    return Health(status="ok")


@router.get("/readyz", response_model=Readiness, responses=responses(503))
def readyz(request: Request) -> Readiness:
    """The gallery is open, whole and readable; else 503 with the reason. ``writes`` says whether the disk takes any.

    Opening is tried again on every call, and a damaged index is built anew.
    """
    opening = request.app.state.opening
    reason = opening.attempt()
    try:
        reason = reason or opening.service().mending.look()
    except PrecedentError as error:
        reason = str(error)
    if reason:
        raise Problem(503, reason, headers={"Retry-After": "5"})
    return Readiness(status="ok", writes=opening.service().scratch.refusal())


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **responses()},
)
def metrics(caller: Annotated[Caller, Depends(admitted(Scope.READ))]) -> Response:
    """Prometheus exposition."""
    return Response(caller.service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
