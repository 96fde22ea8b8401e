"""A damaged index is built anew without being asked: what it held is all in SQL."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

from api.rebuilding import Order, Rebuilding
from retrieval.catalog import GenerationRow
from retrieval.errors import ConflictError, CorruptIndex, StoreError
from retrieval.gallery import Gallery
from retrieval.generations import generations_folder, open_generation

PAUSE_SECONDS = 60.0  # between two attempts: what ails a disk may spoil the next index as well


class Mending:
    """Starts a rebuild where the files of the live index are not what they should be. Searches are right meanwhile.

    Only then: an index whose server is away, or that a newer Precedent wrote, is not for us to replace.
    """

    def __init__(self, gallery: Gallery, rebuilding: Rebuilding) -> None:
        self._gallery = gallery
        self._rebuilding = rebuilding
        self._again = 0.0  # monotonic seconds
        self._lock = threading.Lock()

    def look(self) -> str:
        """What is wrong with the live index, or "". Starts a rebuild on its backend, unless one runs or just ended."""
        damaged = self._gallery.state().damaged
        if damaged and self._may_try():
            live = next((row for row in self._gallery.catalog.generations() if row.state == "live"), None)
            if live is not None and self._is_corrupt(live):
                with suppress(ConflictError):
                    self._rebuilding.start(Order(backend=live.backend))
        return damaged

    def _may_try(self) -> bool:
        with self._lock:
            if time.monotonic() < self._again:
                return False
            self._again = time.monotonic() + PAUSE_SECONDS
            return True

    def _is_corrupt(self, live: GenerationRow) -> bool:
        try:
            open_generation(generations_folder(self._gallery.settings.home), live.name, live.manifest_sha256)
        except CorruptIndex:
            return True
        except StoreError:
            return False
        return False
