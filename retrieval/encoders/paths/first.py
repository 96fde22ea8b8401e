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

    def expect(self, action: Action, least: int = 1) -> None:
        """Do this, and not what was expected before, when ``least`` images come together."""
        with self._lock:
            self._action, self._least = action, least

    def forget(self) -> None:
        """Nothing is expected any more."""
        with self._lock:
            self._action = None

    def meet(self, images: Sequence[Image]) -> None:
        """These images are about to be encoded: do what is expected, if they are enough."""
        if self._due(images):
            with self._lock:
                if self._due(images):  # not done by another thread meanwhile
                    self._do(images)

    def _due(self, images: Sequence[Image]) -> bool:
        return self._action is not None and len(images) >= self._least

    def _do(self, images: Sequence[Image]) -> None:
        action = self._action
        try:
            if action is not None:
                action(images)
        finally:
            self._action = None
