"""The pixels of recent queries, held in memory for as long as someone looks at them. Never on disk, never logged."""

from __future__ import annotations

import secrets
import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

from api.cache import ByteCache
from api.problems import Problem
from retrieval.types import Image

HELD_SECONDS = 1800.0
HELD_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Preview:
    """The embedded frames of one query, ascending. ``numbers``: which slice of the query each of them is."""

    images: tuple[Image, ...]
    numbers: tuple[int, ...]
    until: float


class Previews:
    """Queries by an unguessable token. ``clock`` gives seconds."""

    def __init__(self, limit: int = HELD_BYTES, clock: Callable[[], float] = time.monotonic) -> None:
        self._cache: ByteCache[str, Preview] = ByteCache(limit)
        self._clock = clock

    def keep(self, images: tuple[Image, ...], numbers: tuple[int, ...]) -> str:
        """A new token for these frames; they go when time or newer queries push them out."""
        token = secrets.token_urlsafe(18)
        size = sum(image.pixels.nbytes for image in images)
        self._cache.put(token, Preview(images, numbers, self._clock() + HELD_SECONDS), size)
        return token

    def frame(self, token: str, n: int) -> Image:
        """Slice n (from 0) of a kept query, or the embedded one nearest to it; a 410 problem when no longer held."""
        preview = self._cache.get(token)
        if preview is None or preview.until < self._clock():
            self._cache.drop(token)
            raise Problem(410, "The query's pixels are held in memory for a short while only: send the query again.")
        if n > preview.numbers[-1]:
            raise Problem(404, f"The query has slices 0 to {preview.numbers[-1]}, not {n}.")
        at = bisect_left(preview.numbers, n)
        if at and n - preview.numbers[at - 1] < preview.numbers[at] - n:
            at -= 1
        return preview.images[at]
