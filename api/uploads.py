"""Multipart bodies, streamed to a private directory that is gone when the request is.

The names a client sends are never paths: a file becomes ``000003.dcm``, its number and an extension from a fixed
list. Files that share a stem share the number, so that a ``.hdr`` finds its ``.img``.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import parse_qsl

from anyio import to_thread
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from api.problems import Problem

MAX_PARTS = 20_000
MAX_FIELD_BYTES = 1 << 20
WRITE_BYTES = 1 << 20  # parsed and written in one go, off the event loop
EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("dcm", "nii", "gz", "hdr", "img", "mha", "mhd", "raw", "zraw", "nrrd", "nhdr"),
        *("png", "jpg", "jpeg", "tif", "tiff", "bmp", "webp", "zip"),
    )
)


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """One file of the body. ``name`` is what the client called it: shown to no one, used for no path."""

    path: Path
    name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Upload:
    """A parsed form; a name that is given twice was refused."""

    files: tuple[UploadedFile, ...] = ()
    fields: dict[str, str] = field(default_factory=dict)


@asynccontextmanager
async def receive(request: Request, scratch: Path) -> AsyncIterator[Upload]:
    """Parse the body under a new directory in ``scratch``; the directory is removed on the way out, always."""
    media, options = parse_options_header(request.headers.get("content-type", ""))
    if media == b"application/x-www-form-urlencoded":
        yield Upload(fields=_urlencoded(await _small_body(request)))
        return
    if media != b"multipart/form-data" or not options.get(b"boundary"):
        raise Problem(415, "Expected multipart/form-data with a boundary; with curl that is -F 'files=@study.dcm'.")
    directory = Path(await to_thread.run_sync(lambda: tempfile.mkdtemp(prefix="request-", dir=scratch)))
    sink = _Sink(directory)
    try:
        yield await _spool(request, sink, options[b"boundary"])
    finally:
        sink.close()
        await to_thread.run_sync(lambda: shutil.rmtree(directory, ignore_errors=True))


async def _small_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FIELD_BYTES:
            raise Problem(413, f"A form without files can have {MAX_FIELD_BYTES} bytes at most.")
    return bytes(body)


def _urlencoded(body: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=100)
    except ValueError as error:
        raise Problem(422, "The form can't be read: expected UTF-8 text of at most 100 fields.") from error
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise _given_twice(Counter(name for name, _ in pairs).most_common(1)[0][0])
    return fields


def _given_twice(name: str) -> Problem:
    return Problem(422, f"The field '{name[:60]}' is given twice: one value is meant.")


async def _spool(request: Request, sink: _Sink, boundary: bytes) -> Upload:
    parser = MultipartParser(boundary, sink.callbacks())  # type: ignore[arg-type]
    waiting = bytearray()
    try:
        async for chunk in request.stream():
            waiting += chunk
            if len(waiting) >= WRITE_BYTES:
                await to_thread.run_sync(parser.write, bytes(waiting))
                waiting.clear()
        await to_thread.run_sync(parser.write, bytes(waiting))
        parser.finalize()
    except FormParserError as error:
        raise Problem(422, "The multipart body can't be parsed: it is cut short or its boundary is wrong.") from error
    if not sink.complete:
        raise Problem(422, "The multipart body ends before its closing boundary: send it again, whole.")
    return sink.upload()


class _Sink:
    """Receives the parser's events; holds at most one open file."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: list[UploadedFile] = []
        self._fields: dict[str, str] = {}
        self._twice = ""
        self._numbers: dict[str, int] = {}
        self._taken: set[tuple[int, str]] = set()
        self._parts = 0
        self._header_name = b""
        self._header_value = b""
        self._disposition = b""
        self._field = ""
        self._value = bytearray()
        self._open: tuple[BinaryIO, Path, str] | None = None
        self.complete = False

    def callbacks(self) -> dict[str, object]:
        """What the parser calls."""
        return {
            "on_part_begin": self._part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def upload(self) -> Upload:
        """What was parsed; only now is a field that came twice refused, when the client is ready to read why."""
        if self._twice:
            raise _given_twice(self._twice)
        return Upload(tuple(self._files), dict(self._fields))

    def close(self) -> None:
        """Close what a broken-off body left open."""
        if self._open is not None:
            self._open[0].close()
            self._open = None

    def _part_begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise Problem(413, f"The body has over {MAX_PARTS} parts: zip the series and send one file.")
        self._disposition = self._header_name = self._header_value = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise Problem(422, "A part of the body has no name: expected 'files' or the name of a field.")
        self._field = _text(options[b"name"])
        self._value.clear()
        if b"filename" not in options:
            return
        if self._field != "files":
            raise Problem(422, "Files go into the field 'files', repeated once per file.")
        name = _text(options[b"filename"])
        path = self._directory / self._safe_name(name)
        self._open = (path.open("xb"), path, name)

    def _safe_name(self, name: str) -> str:
        """``000003.ext``: the same number for files of one stem, a new one on a clash."""
        base = PurePosixPath(name.replace("\\", "/")).name
        suffixes = [s.lower() for s in PurePosixPath(base).suffixes[-2:] if s.lower() in EXTENSIONS]
        extension = "".join(suffixes)
        stem = base[: len(base) - len(extension)]
        number = self._numbers.get(stem)
        if number is None or (number, extension) in self._taken:
            number = self._numbers[stem] = self._parts
        self._taken.add((number, extension))
        return f"{number:06d}{extension}"

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._open is not None:
            self._open[0].write(data[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > MAX_FIELD_BYTES:
            raise Problem(413, f"A field of the form can have {MAX_FIELD_BYTES} bytes at most.")

    def _part_end(self) -> None:
        if self._open is None:
            if self._field in self._fields:
                self._twice = self._field
            self._fields[self._field] = _text(bytes(self._value))
            return
        file, path, name = self._open
        self._open = None
        file.close()
        size = path.stat().st_size
        if size or name:  # a browser sends an empty, nameless part for an empty file box
            self._files.append(UploadedFile(path, name, size))

    def _end(self) -> None:
        self.complete = True


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")
