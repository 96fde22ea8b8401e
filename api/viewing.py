"""From a slice of a case or a kept query to PNG bytes, through the caches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from api.imaging import View, png, stack_window
from api.service import Service
from indexer.originals import read_frames
from retrieval.errors import NotFoundError
from retrieval.types import Case, Image

AHEAD_BYTES = 16 << 20  # decoded in one go around the slice that was asked, since its neighbours are asked next


def case_png(service: Service, request: Request, case: Case, view: View) -> Response:
    """A slice of a case from its source file; SourceGone when that file is not there any more."""
    if not 0 <= view.slice < len(case.frames):
        raise NotFoundError(f"Slice {view.slice} does not exist: this case has slices 0 to {len(case.frames) - 1}.")
    return _reply(service, request, view.etag(case.content_sha256), lambda: _rendered_case(service, case, view))


def query_png(service: Service, request: Request, token: str, view: View) -> Response:
    """A slice of a kept query."""
    image = service.previews.frame(token, view.slice)
    return _reply(service, request, view.etag(token), lambda: png(image, view.window, view.size))


def _reply(service: Service, request: Request, etag: str, make: Callable[[], bytes]) -> Response:
    headers = {"ETag": etag, "Cache-Control": "private, max-age=600"}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    found = service.pngs.get(etag)
    if found is None:
        with service.heavy.slot():
            found = make()
        service.pngs.put(etag, found, len(found))
    return Response(found, media_type="image/png", headers=headers)


def _rendered_case(service: Service, case: Case, view: View) -> bytes:
    image = _frame(service, case, view.slice)
    window = view.window
    if window is None and len(case.frames) > 1:  # one window for the whole stack, so that scrolling does not flicker
        window = stack_window(_frame(service, case, len(case.frames) // 2))
    return png(image, window, view.size)


def _frame(service: Service, case: Case, n: int) -> Image:
    held = service.frames.get((case.content_sha256, n))
    if held is not None:
        return held
    numbers = _block(case, n)
    gallery = service.gallery
    images = read_frames(gallery, service.sandbox, case, numbers)
    wanted: Image | None = None
    for number, image in zip(numbers, images, strict=True):
        image = image if image.spacing else replace(image, spacing=case.spacing)
        service.frames.put((case.content_sha256, number), image, image.pixels.nbytes)
        wanted = image if number == n else wanted
    if wanted is None:
        raise NotFoundError(f"Slice {n} could not be read.")
    return wanted


def _block(case: Case, n: int) -> range:
    """The aligned run of slices that holds n and is worth decoding together."""
    size = max(1, min(32, AHEAD_BYTES // max(1, case.rows * case.columns * 2)))
    start = n - n % size
    return range(start, min(start + size, len(case.frames)))
