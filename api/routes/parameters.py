"""Query and path parameters that several routes share."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

from fastapi import Path, Query, Request
from fastapi.dependencies.models import Dependant

from api.imaging import MAX_SIDE, View, parse_window
from api.problems import Problem
from api.schemas import Cause

CaseId = Annotated[str, Path(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]
Count = Annotated[int, Query(ge=1, le=1000, description="how many hits")]
Filters = Annotated[str, Query(description='JSON, as {"modality": "CT", "body_part": ["CHEST", "ABDOMEN"]}')]


async def only_declared(request: Request) -> None:
    """A dependency: a 422 problem for a query parameter that the route does not declare, or that is given twice.

    Ignored, a misspelt ``filters`` would answer from the whole gallery and look as if it had been obeyed.
    """
    known = sorted(_declared(request.scope["route"].dependant))
    given = Counter(name for name, _ in request.query_params.multi_items())
    expected = f"expected {', '.join(known)}" if known else "this address takes none"
    causes = [
        Cause(where=name[:60], message="given twice, one value is meant" if name in known else f"unknown, {expected}")
        for name, times in given.items()
        if times > 1 or name not in known
    ]
    if causes:
        detail = "; ".join(f"{cause.where}: {cause.message}" for cause in causes[:3])
        raise Problem(422, f"The query parameters are not valid: {detail}.", errors=causes[:100])


def _declared(dependant: Dependant) -> set[str]:
    """The names of the query parameters of a route and of what it depends on."""
    names = {field.alias for field in dependant.query_params}
    return names.union(*(_declared(below) for below in dependant.dependencies))


def view_of(
    slice: Annotated[int, Query(ge=0, le=1_000_000, description="from 0")] = 0,  # noqa: A002 - the wire's word
    window: Annotated[str, Query(max_length=60, description="centre,width in the units of the pixels; HU for CT")] = "",
    size: Annotated[int, Query(ge=0, le=MAX_SIDE, description="longest side in px; 0 for its own")] = 0,
) -> View:
    """What of a case to show."""
    return View(slice, parse_window(window), size)
