"""What is asked to be shown of a case. Pure; ``indexer.rendering`` makes the pictures."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from api.problems import Problem
from indexer.rendering import MAX_SIDE as MAX_SIDE
from indexer.rendering import Window
from indexer.rendering import png as png
from indexer.rendering import stack_window as stack_window

PNG_VERSION = "1"  # raised when the same request would give other bytes


@dataclass(frozen=True, slots=True)
class View:
    """What to show of a case: slice from 0, window or None for the usual one, longest side in px or 0 for its own."""

    slice: int
    window: Window | None
    size: int

    def etag(self, identity: str) -> str:
        """A strong tag over what determines the bytes. ``identity``: of the pixels, e.g. their SHA-256."""
        facts = f"{PNG_VERSION}|{identity}|{self.slice}|{self.window}|{self.size}"
        return f'"{hashlib.sha256(facts.encode()).hexdigest()[:32]}"'


def parse_window(text: str) -> Window | None:
    """``"-600,1500"`` as (centre, width); "" as None. A 422 problem for anything else."""
    if not text:
        return None
    try:
        centre, width = (float(part) for part in text.split(","))
    except ValueError:
        raise Problem(422, "window: expected 'centre,width', as -600,1500 for lung on CT.") from None
    if not (abs(centre) < 1e9 and 0 < width < 1e9):
        raise Problem(422, "window: expected a finite centre and a width over 0.")
    return centre, width
