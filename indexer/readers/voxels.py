"""The voxel bytes of a single-file volume: where they lie, how they are packed, read under the limits.

A raw file is mapped, so only the slices asked for are read; packed data is unpacked into memory up to the end of what
is needed, then drained so that its checksum is verified.
"""

from __future__ import annotations

import bz2
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from indexer.limits import Limits
from indexer.readers.bytes import CHUNK, DEFLATE_MOST, BoundedReader, gunzip, open_source
from indexer.sources import Source
from retrieval.errors import LimitExceeded, RejectedInput

SLACK = 1 << 20  # bytes after the last voxel that are put up with: footers, padding


class Packing(StrEnum):
    """How the voxel bytes are stored."""

    RAW = "raw"
    GZIP = "gzip"
    ZLIB = "zlib"  # MetaImage's CompressedData
    BZIP2 = "bzip2"
    TEXT = "text"  # numbers in ASCII
    HEX = "hex"


@dataclass(frozen=True, slots=True)
class VoxelBlock:
    """``count`` values of ``dtype`` (byte order included) in ``source``.

    ``start`` is where the (packed) data begins in the file, ``skip`` how many unpacked bytes precede the first value,
    ``wanted`` how many values from the first are ever used.
    """

    source: Source
    dtype: np.dtype[Any]
    count: int
    wanted: int
    start: int = 0
    skip: int = 0
    packing: Packing = Packing.RAW

    @property
    def bytes(self) -> int:
        return self.skip + self.count * self.dtype.itemsize


def check_size(block: VoxelBlock, limits: Limits) -> None:
    """Refuse a file too short for what its header declares, before anything of that size is allocated."""
    if block.bytes > max(limits.unpacked_bytes, limits.file_bytes):
        raise LimitExceeded(
            "scan", f"The header declares {block.bytes} bytes of voxels, the limit is {limits.unpacked_bytes}."
        )
    with open_source(block.source, limits) as stream:
        stored = stream.seek(0, os.SEEK_END) - block.start
    most = {Packing.RAW: stored, Packing.GZIP: stored * DEFLATE_MOST, Packing.ZLIB: stored * DEFLATE_MOST}
    if block.packing in most and most[block.packing] < block.bytes:
        raise RejectedInput(
            "scan",
            f"The data is truncated: {block.bytes} bytes of voxels are declared, {max(stored, 0)} are stored "
            f"({block.packing}).",
        )


def voxels(block: VoxelBlock, limits: Limits) -> npt.NDArray[Any]:
    """The first ``wanted`` values, one-dimensional, in the stored dtype; the packed data verified to its end."""
    if block.packing is Packing.RAW and not block.source.member:
        return np.memmap(block.source.path, block.dtype, "r", block.start + block.skip, (block.wanted,))
    if block.wanted * block.dtype.itemsize > limits.memory_bytes:
        raise LimitExceeded(
            "decode",
            f"The packed volume takes {block.wanted * block.dtype.itemsize >> 20} MB, more than the "
            f"{limits.memory_bytes >> 20} MB a worker may take (worker_memory_mb).",
        )
    values = np.empty(block.wanted, block.dtype)
    target = values.view(np.uint8)
    filled = 0
    for chunk in _unpacked(block, limits):
        part = chunk[: len(target) - filled]
        target[filled : filled + len(part)] = np.frombuffer(part, np.uint8)
        filled += len(part)
    return values


def chunks(block: VoxelBlock, limits: Limits) -> Iterator[npt.NDArray[Any]]:
    """The first ``wanted`` values piece by piece, without ever holding them all."""
    left = block.wanted * block.dtype.itemsize
    rest = b""
    for chunk in _unpacked(block, limits):
        if left <= 0:
            continue  # drained for the checksum
        rest += chunk[:left]
        left -= min(left, len(chunk))
        whole = len(rest) // block.dtype.itemsize
        yield np.frombuffer(rest, block.dtype, whole)
        rest = rest[whole * block.dtype.itemsize :]


def _unpacked(block: VoxelBlock, limits: Limits) -> Iterator[bytes]:
    """All ``count`` values' bytes in chunks; RejectedInput when there are fewer."""
    with open_source(block.source, limits) as stream:
        packed = stream.seek(0, os.SEEK_END) - block.start
        stream.seek(block.start)
        if block.packing in (Packing.TEXT, Packing.HEX):
            yield from _written_out(block, stream)
            return
        reader = _reader(block.packing, stream, packed, limits)
        skip = block.skip
        while skip:
            skipped = len(reader.read(min(skip, CHUNK)))
            if not skipped:
                raise _truncated(block, 0)
            skip -= skipped
        left = block.count * block.dtype.itemsize
        while left:
            chunk = reader.read(min(left, CHUNK))
            if not chunk:
                raise _truncated(block, block.count * block.dtype.itemsize - left)
            left -= len(chunk)
            yield chunk
        if block.packing is not Packing.RAW:
            reader.finish(SLACK)


def _truncated(block: VoxelBlock, got: int) -> RejectedInput:
    declared = block.count * block.dtype.itemsize
    return RejectedInput("decode", f"The data is truncated: {declared} bytes of voxels are declared, {got} unpack.")


def _reader(packing: Packing, stream: BinaryIO, packed: int, limits: Limits) -> BoundedReader:
    if packing is Packing.GZIP:
        return gunzip(stream, packed, limits)
    if packing is Packing.ZLIB:
        return BoundedReader(cast(BinaryIO, _Inflating(stream)), packed, limits)
    if packing is Packing.BZIP2:
        return BoundedReader(cast(BinaryIO, bz2.BZ2File(stream)), packed, limits)
    return BoundedReader(stream, packed, limits)


class _Inflating:
    """A forward reader over one zlib or gzip stream, as MetaImage writes it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)

    def read(self, size: int) -> bytes:
        while not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._stream.read(CHUNK)
            if not packed:
                raise EOFError("the stream ends before its end mark")
            if unpacked := self._inflate.decompress(packed, size):
                return unpacked
        return b""


def _written_out(block: VoxelBlock, stream: BinaryIO) -> Iterator[bytes]:
    """Values written as text: decimal numbers, or the bytes in hexadecimal."""
    text = stream.read()  # at most file_bytes: checked when it was opened
    try:
        if block.packing is Packing.HEX:
            data = bytes.fromhex(text.decode("ascii"))
        else:
            values = np.array(text.replace(b",", b" ").split(), dtype=np.float64)
            data = values.astype(block.dtype).tobytes()
    except (ValueError, OverflowError) as error:
        raise RejectedInput(
            "decode", f"The voxels are declared as {block.packing}, but hold something else."
        ) from error
    declared = block.count * block.dtype.itemsize
    if len(data) < block.skip + declared:
        raise _truncated(block, max(0, len(data) - block.skip))
    yield data[block.skip : block.skip + declared]
