"""What the routes work with: one gallery, one sandbox, their limits. Opened once, closed once."""

from __future__ import annotations

import os
import threading

from api.batching import Bounds
from api.cache import ByteCache
from api.capacity import Capacity
from api.encoding import Encoding
from api.mending import Mending
from api.metrics import Metrics
from api.previews import Previews
from api.rebuilding import Rebuilding
from api.scratch import Scratch
from indexer.limits import Limits
from indexer.sandbox import Sandbox
from indexer.workers import worker_count
from retrieval.encoders.paths.prepare import choose_while_encoding
from retrieval.errors import PrecedentError, StoreError
from retrieval.gallery import Gallery
from retrieval.settings import Settings
from retrieval.storage import storing
from retrieval.types import GalleryState, Image

FRAME_CACHE_BYTES = 256 << 20
PNG_CACHE_BYTES = 64 << 20
WAITING = 16  # heavy requests that may wait for a slot
SEARCHES = 32  # that may wait for a core: each takes milliseconds, and waits for no decoding
UPLOADS = 16  # bodies that may stream in at once

FrameKey = tuple[str, int]  # (content hash, slice)


class Service:
    """An open service. Routes get it through ``api.access``; its parts are safe to use from several threads."""

    def __init__(self, gallery: Gallery, sandbox: Sandbox, scratch: Scratch, metrics: Metrics) -> None:
        cores = os.cpu_count() or 1
        self.gallery = gallery
        self.sandbox = sandbox
        self.scratch = scratch
        self.metrics = metrics
        self.heavy = Capacity(running=cores, waiting=WAITING)
        self.searching = Capacity(running=cores, waiting=SEARCHES)
        self.uploading = Capacity(running=UPLOADS, waiting=0)
        self.frames: ByteCache[FrameKey, Image] = ByteCache(FRAME_CACHE_BYTES)
        self.pngs: ByteCache[str, bytes] = ByteCache(PNG_CACHE_BYTES)
        self.previews = Previews()
        self.rebuilding = Rebuilding(gallery)
        self.mending = Mending(gallery, self.rebuilding)
        self.encoding = Encoding(gallery, Bounds(pieces=gallery.settings.encode_queue))

    @classmethod
    def open(cls, settings: Settings, metrics: Metrics) -> Service:
        """Open the gallery (an empty one is made when there is none) and start the decoding workers."""
        gallery = Gallery.open(settings, create=True)
        try:
            if settings.precision == "auto":
                choose_while_encoding(gallery.encoder, settings.home, now=len(gallery) > 0)
            gallery.warm_up()
            with storing("The data directory can't be written"):
                scratch = Scratch(settings.home)
            return cls(gallery, Sandbox(worker_count(settings), Limits.of(settings)), scratch, metrics)
        except BaseException:
            gallery.close()
            raise

    def close(self) -> None:
        """End the workers, remove scratch files, close the database."""
        self.encoding.close()
        self.rebuilding.close()
        self.sandbox.close()
        self.scratch.close()
        self.gallery.close()


class Opening:
    """The service, or the sentence that says why there is none yet; tried again when readiness is asked."""

    def __init__(self, settings: Settings) -> None:
        self.metrics = Metrics(self.state)
        self._settings = settings
        self._service: Service | None = None
        self._reason = "The service is starting."
        self._lock = threading.Lock()

    def attempt(self) -> str:
        """Open unless open; "" when the service is ready, else the reason why not."""
        with self._lock:
            if self._service is None:
                try:
                    self._service = Service.open(self._settings, self.metrics)
                except PrecedentError as error:
                    self._reason = str(error)
                    return self._reason
            return ""

    def service(self) -> Service:
        """The open service, or a StoreError with the reason."""
        service = self._service
        if service is None:
            raise StoreError(self._reason)
        return service

    def state(self) -> GalleryState | None:
        """For the metrics: None while the gallery can't be read."""
        try:
            return self.service().gallery.state()
        except PrecedentError:
            return None

    def close(self) -> None:
        """Close what is open; the app is going down."""
        with self._lock:
            if self._service is not None:
                self._service.close()
            self._service, self._reason = None, "The service is stopping."
