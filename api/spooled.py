"""JSON bodies with images in them: written to disk while they arrive, read when there is a slot to work on them.

Sixteen clients that send 64 MiB each must not cost a gigabyte of memory while they wait.
"""

from __future__ import annotations

import binascii
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import TypeVar

from anyio import to_thread
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from api.problems import Problem, client_gone
from api.schemas import Cause
from api.uploads import WRITE_BYTES
from indexer.query import frames_of
from indexer.sandbox import Sandbox
from retrieval.errors import NotFoundError, RejectedInput
from retrieval.gallery import Gallery
from retrieval.types import Image

M = TypeVar("M", bound=BaseModel)
_URL_SAFE = str.maketrans("-_", "+/")


@dataclass(frozen=True, slots=True)
class SpooledJson:
    """A body on disk, in a directory of its own that is gone when the request is."""

    directory: Path

    def parsed(self, model: type[M]) -> M:
        """The body as the model; what does not fit is the same 400 or 422 as everywhere."""
        try:
            return model.model_validate_json((self.directory / "body").read_bytes())
        except ValidationError as error:
            causes = error.errors(include_input=False, include_url=False)
            raise RequestValidationError([{**cause, "loc": ("body", *cause["loc"])} for cause in causes]) from error

    def write(self, n: int, content: bytes) -> Path:
        """The n-th image of the body as a file of its own."""
        path = self.directory / f"{n:06d}"
        path.write_bytes(content)
        return path


@asynccontextmanager
async def spool(request: Request, scratch: Path) -> AsyncIterator[SpooledJson]:
    """Write the body under a new directory in ``scratch``, which is removed on the way out, always."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise Problem(415, "Expected a body of type application/json.")
    directory = Path(await to_thread.run_sync(lambda: tempfile.mkdtemp(prefix="request-", dir=scratch)))
    try:
        try:
            await _write(request, directory / "body")
        except ClientDisconnect as error:
            raise client_gone() from error
        yield SpooledJson(directory)
    finally:
        await to_thread.run_sync(lambda: rmtree(directory, ignore_errors=True))


async def _write(request: Request, path: Path) -> None:
    waiting = bytearray()
    with path.open("xb") as file:
        async for chunk in request.stream():
            waiting += chunk
            if len(waiting) >= WRITE_BYTES:
                await to_thread.run_sync(file.write, bytes(waiting))
                waiting.clear()
        await to_thread.run_sync(file.write, bytes(waiting))


def image_bytes(text: str) -> bytes:
    """The bytes of one image: base64 in either alphabet, padded or not, with or without a data-URI prefix.

    ValueError when it is no base64, or empty.
    """
    if text[:5].lower() == "data:":
        prefix, _, text = text.partition(",")
        if not prefix.lower().endswith(";base64"):
            raise ValueError("a data URI that is not base64")
    packed = "".join(text.split()).translate(_URL_SAFE).rstrip("=")
    content = binascii.a2b_base64(packed + "=" * (-len(packed) % 4), strict_mode=True)
    if not content:
        raise ValueError("nothing in it")
    return content


def decoded(
    gallery: Gallery,
    sandbox: Sandbox,
    body: SpooledJson,
    images: Sequence[str],
    check_room: Callable[[Sequence[tuple[Image, ...]]], None],
) -> list[tuple[Image, ...]]:
    """The frames of each image, decoded by the workers as those of any query. The first that is refused ends it.

    ``check_room`` sees what has been decoded after each image and raises when it is more than is ever encoded: small
    files can hold large pictures, so memory is bounded before all of them lie in it.
    """
    found: list[tuple[Image, ...]] = []
    for n, text in enumerate(images):
        found.append(_frames(gallery, sandbox, body, n, text))
        check_room(found)
    return found


def _frames(gallery: Gallery, sandbox: Sandbox, body: SpooledJson, n: int, text: str) -> tuple[Image, ...]:
    try:
        path = body.write(n, image_bytes(text))
    except ValueError as error:
        cause = Cause(where=f"images.{n}", message="not base64")
        raise Problem(
            422, f"images.{n}: expected a file in base64, with or without a data-URI prefix.", errors=[cause]
        ) from error
    try:
        return frames_of(gallery, sandbox, [path])
    except RejectedInput as error:
        raise type(error)(error.stage, f"images.{n}: {error.reason}") from error
    except NotFoundError as error:
        raise RejectedInput("scan", f"images.{n}: {error}") from error
    finally:
        path.unlink(missing_ok=True)
