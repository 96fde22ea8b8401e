"""Something to be done once, before the first batch that is large enough, while other threads wait for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import RLock

from retrieval.types import Image

Action = Callable[[Sequence[Image]], object]


class First:
    """Nothing is done unless it is expected."""

    def __init__(self) -> None:
        self._lock = RLock()  # what is done may say that it has been done
        self._action: Action | None = None
        self._least = 1
        self._missing = 0

    def expect(self, action: Action, least: int = 1, in_all: int = 0) -> None:
        """Do this, and not what was expected before, when ``least`` images come together and ``in_all`` have come."""
        with self._lock:
            self._action, self._least, self._missing = action, least, in_all

    def forget(self) -> None:
        """Nothing is expected any more."""
        with self._lock:
            self._action = None

    def meet(self, images: Sequence[Image]) -> None:
        """These images are about to be encoded: do what is expected, if they are enough."""
        if self._action is None:
            return
        with self._lock:
            self._missing -= len(images)
            if self._action is not None and self._missing <= 0 and len(images) >= self._least:
                self._do(images)

    def _do(self, images: Sequence[Image]) -> None:
        action = self._action
        try:
            if action is not None:
                action(images)
        finally:
            self._action = None
