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
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from retrieval.types import Image, Pixels

_PREFIX = struct.Struct("!IQ")  # bytes of the JSON header, bytes of the blob
MAX_HEADER = 64 << 20  # a scan of 20,000 frames with geometry takes about 6 MB
MAX_THUMBNAIL = 256 << 10
PIXEL_DTYPES = ("uint8", "uint16", "int16", "float32")
T = TypeVar("T")


class WireError(Exception):
    """The other side sent something that is not the protocol."""


def send(channel: socket.socket, header: dict[str, Any], *blobs: memoryview | bytes) -> None:
    """Send one message, the blobs as one; ValueError when a number in ``header`` is not finite."""
    text = json.dumps(header, allow_nan=False, separators=(",", ":")).encode()
    channel.sendall(_PREFIX.pack(len(text), sum(map(len, blobs))) + text)
    for blob in blobs:
        if len(blob):
            channel.sendall(blob)


def receive(channel: socket.socket, max_blob: int) -> tuple[dict[str, Any], bytearray]:
    """One message. EOFError when the other side has gone, WireError for anything but the protocol."""
    header_bytes, blob_bytes = _PREFIX.unpack(_receive_exactly(channel, _PREFIX.size))
    if header_bytes > MAX_HEADER or blob_bytes > max_blob:
        raise WireError(f"a message of {header_bytes} + {blob_bytes} bytes")
    try:
        header = json.loads(_receive_exactly(channel, header_bytes))
    except (ValueError, RecursionError) as error:
        raise WireError("a header that is not JSON") from error
    if not isinstance(header, dict):
        raise WireError("a header that is not an object")
    return header, _receive_exactly(channel, blob_bytes)


def _receive_exactly(channel: socket.socket, size: int) -> bytearray:
    buffer = bytearray(size)
    view = memoryview(buffer)
    while view:
        got = channel.recv_into(view)
        if not got:
            raise EOFError("the other side has gone")
        view = view[got:]
    return buffer


def plain(value: Any) -> Any:
    """A dataclass as JSON values; paths become strings, tuples lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: plain(getattr(value, name)) for name in _hints(type(value))}
    if isinstance(value, (tuple, list)):
        return [plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def rebuild(kind: type[T], value: Any) -> T:
    """The dataclass ``kind`` from JSON values, every field checked; WireError when one does not fit."""
    return typing.cast(T, _checked(kind, value))


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _checked(kind: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = _hints(kind)
        if not isinstance(value, dict) or set(value) != set(hints):
            raise WireError(f"not a {kind.__name__}")
        return kind(**{name: _checked(hint, value[name]) for name, hint in hints.items()})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:  # only X | None is used
        return None if value is None else _checked(arguments[0], value)
    if origin is tuple:
        return _checked_tuple(arguments, value)
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if kind is Path and isinstance(value, str) and "\x00" not in value:
        return Path(value)
    if kind in (str, int, bool) and type(value) is kind:
        return value
    raise WireError(f"expected {kind}")


def _checked_tuple(arguments: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise WireError("expected a list")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_checked(arguments[0], part) for part in value)
    if len(value) != len(arguments):
        raise WireError(f"expected {len(arguments)} values")
    return tuple(_checked(hint, part) for hint, part in zip(arguments, value, strict=True))


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


def frame_of(header: Any, blob: bytearray) -> tuple[int, Image, bytes]:
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
