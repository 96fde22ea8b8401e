"""What passes between the parent and a decoding worker: a JSON header and raw bytes, never a pickle.

A worker that a hostile file has taken over can say anything, so the parent rebuilds every dataclass field by field,
checks every type, refuses numbers that are not finite and allocates nothing before its size was checked.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import socket
import struct
import time
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from blake3 import blake3

from retrieval.types import Image, Pixels

_PREFIX = struct.Struct("!IQ")  # bytes of the JSON header, bytes of the blob
MAX_HEADER = 64 << 20  # a scan of 20,000 frames with geometry takes about 6 MB
MAX_THUMBNAIL = 256 << 10
PIXEL_DTYPES = ("uint8", "uint16", "int16", "float32")
T = TypeVar("T")


class WireError(Exception):
    """The other side sent something that is not the protocol."""


def send(channel: socket.socket, header: dict[str, Any]) -> None:
    """Send one message without a blob; ValueError when a number in ``header`` is not finite."""
    send_text(channel, json.dumps(header, allow_nan=False, separators=(",", ":")).encode())


def send_text(channel: socket.socket, header: bytes, *blobs: memoryview | bytearray | bytes) -> None:
    """Send one message whose header is JSON already, the blobs as one."""
    channel.sendall(_PREFIX.pack(len(header), sum(map(len, blobs))) + header)
    for blob in blobs:
        if len(blob):
            channel.sendall(blob)


def receive(channel: socket.socket, max_blob: int, seconds: float | None = None) -> tuple[dict[str, Any], memoryview]:
    """One message. EOFError when the other side has gone, WireError for anything but the protocol.

    TimeoutError when it is not complete within ``seconds``. The channel must be a blocking one: whole messages are
    then waited for in the kernel, where this thread is in nobody's way.
    """
    until = None if seconds is None else time.monotonic() + seconds
    header_bytes, blob_bytes = _PREFIX.unpack(_receive_exactly(channel, _PREFIX.size, until))
    if header_bytes > MAX_HEADER or blob_bytes > max_blob:
        raise WireError(f"a message of {header_bytes} + {blob_bytes} bytes")
    try:
        header = json.loads(bytes(_receive_exactly(channel, header_bytes, until)))
    except (ValueError, RecursionError) as error:
        raise WireError("a header that is not JSON") from error
    if not isinstance(header, dict):
        raise WireError("a header that is not an object")
    return header, _receive_exactly(channel, blob_bytes, until)


def _receive_exactly(channel: socket.socket, size: int, until: float | None) -> memoryview:
    whole = np.empty(size, np.uint8).data  # not a bytearray, which would be zeroed first
    view = whole
    while view:
        if until is not None:
            wait_at_most(channel, until - time.monotonic())
        try:
            got = channel.recv_into(view, 0, socket.MSG_WAITALL)
        except BlockingIOError as error:
            raise TimeoutError("the other side takes too long") from error
        if not got:
            raise EOFError("the other side has gone")
        view = view[got:]
    return whole


def wait_at_most(channel: socket.socket, seconds: float) -> None:
    """Let the kernel end a wait on a blocking channel; its BlockingIOError then says so. TimeoutError for none left.

    A timeout of Python's own would make the channel non-blocking, and ``MSG_WAITALL`` be ignored.
    """
    if seconds <= 0:
        raise TimeoutError("no time is left")
    microseconds = max(1, int(seconds * 1e6))
    timeval = struct.pack("@ll", *divmod(microseconds, 1_000_000))
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)


def plain(value: Any) -> Any:
    """A dataclass as JSON values; paths become strings, tuples lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: plain(getattr(value, name)) for name in _hints(type(value))}
    if isinstance(value, (tuple, list)):
        return [plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def rebuild(kind: type[T], value: Any) -> T:
    """The dataclass ``kind`` from JSON values, every field checked; WireError when one does not fit."""
    return typing.cast(T, _checker(typing.cast(Any, kind))(value))


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


@functools.cache
def _checker(kind: Any) -> Callable[[Any], Any]:
    """What turns a JSON value into ``kind`` or raises WireError; made once a type, as it runs for every field."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _dataclass_checker(kind)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:  # only X | None is used
        some = _checker(arguments[0])
        return lambda value: None if value is None else some(value)
    if origin is tuple:
        return _tuple_checker(arguments)
    return {float: _finite, Path: _path}.get(kind) or _exactly(kind)


def _dataclass_checker(kind: type) -> Callable[[Any], Any]:
    checkers = {name: _checker(hint) for name, hint in _hints(kind).items()}

    def check(value: Any) -> Any:
        if not isinstance(value, dict) or value.keys() != checkers.keys():
            raise WireError(f"not a {kind.__name__}")
        return kind(**{name: checker(value[name]) for name, checker in checkers.items()})

    return check


def _tuple_checker(arguments: tuple[Any, ...]) -> Callable[[Any], Any]:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        each = _checker(arguments[0])
        return lambda value: tuple(map(each, _list(value)))
    checkers = [_checker(argument) for argument in arguments]

    def check(value: Any) -> Any:
        if len(_list(value)) != len(checkers):
            raise WireError(f"expected {len(checkers)} values")
        return tuple(checker(part) for checker, part in zip(checkers, value, strict=True))

    return check


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise WireError("expected a list")
    return value


def _finite(value: Any) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise WireError("expected a finite number")


def _path(value: Any) -> Path:
    if isinstance(value, str) and "\x00" not in value:
        return Path(value)
    raise WireError("expected a path")


def _exactly(kind: Any) -> Callable[[Any], Any]:
    if kind not in (str, int, bool):
        raise TypeError(f"{kind} does not travel: expected a dataclass, tuple, X | None, float, Path, str, int or bool")

    def check(value: Any) -> Any:
        if type(value) is not kind:
            raise WireError(f"expected {kind}")
        return value

    return check


@dataclasses.dataclass(frozen=True, slots=True)
class FrameHeader:
    """An ``Image`` without its pixels, and what their bytes are; after them come ``thumbnail`` bytes of JPEG."""

    index: int
    thumbnail: int
    dtype: str
    shape: tuple[int, ...]
    modality: str
    spacing: tuple[float, float] | None
    position_mm: float | None
    window: tuple[float, float] | None
    plane: str
    sop_instance_uid: str
    frame_number: int


def frame_message(index: int, image: Image, thumbnail: int = 0) -> tuple[dict[str, Any], memoryview]:
    """The header and the bytes of one frame; ValueError when its pixels are not what ``Pixels`` promises."""
    pixels = np.ascontiguousarray(image.pixels, dtype=image.pixels.dtype.newbyteorder("="))
    _check_pixels(pixels.dtype.name, pixels.shape)
    facts = {f.name: getattr(image, f.name) for f in dataclasses.fields(image) if f.name != "pixels"}
    header = FrameHeader(index=index, thumbnail=thumbnail, dtype=pixels.dtype.name, shape=pixels.shape, **facts)
    return plain(header), pixels.data.cast("B")


def pixel_digest(pixels: Pixels) -> bytes:
    """BLAKE3 of one frame's shape, dtype and values, as the parent will see them: a quarter of the time of SHA-256, and
    no one else need ever compute it, as they need a file's."""
    same = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("="))
    digest = blake3(f"{same.shape}{same.dtype.str}".encode())
    digest.update(same.data.cast("B"))
    return digest.digest()


def frame_of(header: Any, blob: memoryview | bytearray) -> tuple[int, Image, bytes]:
    """The frame a worker sent and its thumbnail or b""; WireError when its header and bytes do not agree."""
    facts = rebuild(FrameHeader, header)
    if not 0 <= facts.thumbnail <= min(len(blob), MAX_THUMBNAIL):
        raise WireError(f"a thumbnail of {facts.thumbnail} bytes")
    own = len(blob) - facts.thumbnail
    try:
        pixels = _pixels(facts.dtype, facts.shape, memoryview(blob)[:own])
    except ValueError as error:
        raise WireError(str(error)) from error
    image = Image(
        pixels=pixels,
        modality=facts.modality,
        spacing=facts.spacing,
        position_mm=facts.position_mm,
        window=facts.window,
        plane=facts.plane,
        sop_instance_uid=facts.sop_instance_uid,
        frame_number=facts.frame_number,
    )
    return facts.index, image, bytes(blob[own:])


def _check_pixels(dtype: str, shape: tuple[int, ...]) -> None:
    if dtype not in PIXEL_DTYPES:
        raise ValueError(f"pixels of type {dtype}, expected one of {', '.join(PIXEL_DTYPES)}")
    grey = len(shape) == 2
    colour = len(shape) == 3 and shape[2] == 3 and dtype == "uint8"
    if not (grey or colour) or min(shape) < 1:
        raise ValueError(f"pixels of shape {shape} and type {dtype}: expected grey [rows, columns] or uint8 RGB")


def _pixels(dtype: str, shape: tuple[int, ...], blob: memoryview) -> Pixels:
    _check_pixels(dtype, shape)
    if math.prod(shape) * np.dtype(dtype).itemsize != len(blob):
        raise ValueError(f"{len(blob)} bytes for pixels of shape {shape} and type {dtype}")
    return np.frombuffer(blob, dtype=dtype).reshape(shape)
