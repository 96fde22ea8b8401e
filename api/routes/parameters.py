"""Query and path parameters that several routes share."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query

from api.imaging import MAX_SIDE, View, parse_window

CaseId = Annotated[str, Path(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]
Count = Annotated[int, Query(ge=1, le=1000, description="how many hits")]
Filters = Annotated[str, Query(description='JSON, as {"modality": "CT", "body_part": ["CHEST", "ABDOMEN"]}')]


def view_of(
    slice: Annotated[int, Query(ge=0, le=1_000_000, description="from 0")] = 0,  # noqa: A002 - the wire's word
    window: Annotated[str, Query(max_length=60, description="centre,width in the units of the pixels; HU for CT")] = "",
    size: Annotated[int, Query(ge=0, le=MAX_SIDE, description="longest side in px; 0 for its own")] = 0,
) -> View:
    """What of a case to show."""
    return View(slice, parse_window(window), size)
