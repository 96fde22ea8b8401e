"""Frames kept of an upload whose original file is not: pixels and geometry, no header, no identifier.

Layout: 8 magic bytes, the frames' raw bytes one after another, a JSON index, its SHA-256 and its length. Every frame's
own SHA-256 is in the index, so that damage is told from content.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from indexer.limits import Limits
from indexer.readers.bytes import digest, open_source
from indexer.sandbox.wire import WireError, frame_message, frame_of
from indexer.sources import Scan, Source
from retrieval.errors import RejectedInput
from retrieval.storage import sync_directory
from retrieval.types import Image

SUFFIX = ".precedent"
MAGIC = b"\x93PRECDT1"
_TAIL = 32 + 8  # SHA-256 of the index, its length
_MOST_INDEX = 64 << 20


class KeptReader:
    format = "kept"

    def can_read(self, head: bytes, name: str) -> bool:
        return head.startswith(MAGIC)

    def scan(self, source: Source, limits: Limits) -> Scan:
        with open_source(source, limits) as stream:
            index = _index(stream)
        frames = index["frames"]
        shape, spacing = frames[0]["header"]["shape"], frames[0]["header"]["spacing"]
        limits.check_frame(shape[0], shape[1], len(frames))
        sha256, size = digest(source, limits)
        return Scan(
            source=source,
            format=self.format,
            sha256=sha256,
            bytes=size,
            frames=len(frames),
            rows=shape[0],
            columns=shape[1],
            spacing=None if spacing is None else (spacing[0], spacing[1]),
            volumetric=bool(index["volumetric"]),
        )

    def read(self, source: Source, frames: Sequence[int] | None, limits: Limits) -> Iterator[tuple[int, Image]]:
        with open_source(source, limits) as stream:
            kept = _index(stream)["frames"]
            for number in range(len(kept)) if frames is None else frames:
                if not 0 <= number < len(kept):
                    raise RejectedInput("decode", f"Frame {number} was asked for, {len(kept)} were kept.")
                yield number, _frame(stream, kept[number], limits)


def write_kept(path: Path, images: Iterable[Image], *, volumetric: bool = False) -> int:
    """Write the frames to ``path`` as they come; how many there were. Atomic, and on disk when this returns.

    Nothing is written when there is no image (UsageError is the caller's business: 0 is returned).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            count = _write(file, images, volumetric)
            file.flush()
            os.fsync(file.fileno())
        if count:
            temporary.replace(path)
            sync_directory(path.parent)
        return count
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def _write(file: BinaryIO, images: Iterable[Image], volumetric: bool) -> int:
    file.write(MAGIC)
    frames: list[dict[str, Any]] = []
    position = len(MAGIC)
    for number, image in enumerate(images):
        # The identifier stays in the catalog: a kept file says nothing of whose image it is.
        header, blob = frame_message(number, dataclasses.replace(image, sop_instance_uid=""))
        file.write(blob)
        frames.append(
            {"start": position, "bytes": len(blob), "sha256": hashlib.sha256(blob).hexdigest(), "header": header}
        )
        position += len(blob)
    index = json.dumps({"volumetric": volumetric, "frames": frames}, allow_nan=False).encode()
    file.write(index + hashlib.sha256(index).digest() + len(index).to_bytes(8, "little"))
    return len(frames)


def _index(stream: BinaryIO) -> dict[str, Any]:
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - _TAIL))
    tail = stream.read(_TAIL)
    length = int.from_bytes(tail[32:], "little")
    if len(tail) < _TAIL or not 0 < length <= min(_MOST_INDEX, size - _TAIL):
        raise _damaged()
    stream.seek(size - _TAIL - length)
    text = stream.read(length)
    if hashlib.sha256(text).digest() != tail[:32]:
        raise _damaged()
    index = json.loads(text)
    if not isinstance(index, dict) or not index.get("frames"):
        raise _damaged()
    return index


def _frame(stream: BinaryIO, kept: dict[str, Any], limits: Limits) -> Image:
    limits.check_frame(*kept["header"]["shape"][:2])
    stream.seek(kept["start"])
    blob = bytearray(stream.read(min(kept["bytes"], limits.frame_pixels * np.dtype(np.float32).itemsize)))
    if hashlib.sha256(blob).hexdigest() != kept["sha256"]:
        raise _damaged()
    try:
        return frame_of(kept["header"], blob)[1]
    except WireError as error:
        raise _damaged() from error


def _damaged() -> RejectedInput:
    return RejectedInput(
        "decode", "The kept frames are damaged: their checksum is wrong. Restore the file from a backup."
    )
