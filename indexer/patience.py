"""Long work outlasts a database server that restarts: what may be done twice is tried again for a while."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from retrieval.errors import DatabaseAway

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0  # seconds

_log = logging.getLogger(__name__)


class Patience:
    """``seconds``: how long the server may be away at a time; 0, not at all. Safe to use from several threads."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lost = threading.Event()

    def lose(self) -> None:
        """From now on the first DatabaseAway is raised: somebody wants to stop."""
        self._lost.set()

    def outlast(self, action: Callable[[], T]) -> T:
        """What ``action`` returns, called again while it raises DatabaseAway; then its last one.

        Only for what may be done twice: the first time may have been kept although its answer was lost.
        """
        until, pause = time.monotonic() + self._seconds, FIRST_PAUSE
        while True:
            try:
                return action()
            except DatabaseAway as error:
                if time.monotonic() + pause > until or self._lost.is_set():
                    raise
                if pause == FIRST_PAUSE:
                    _log.warning("%s Trying again for up to %.0f seconds.", error, self._seconds)
            self._lost.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
