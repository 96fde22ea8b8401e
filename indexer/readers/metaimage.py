"""The text header of a MetaImage (ITK's MetaIO): ``Key = Value`` lines up to ``ElementDataFile``."""

from __future__ import annotations

import os
import re
from typing import Any

import numpy as np

from indexer.limits import Limits
from indexer.readers.bytes import beside, open_source
from indexer.readers.stack import Affine
from indexer.readers.volume import VolumeHeader
from indexer.readers.voxels import Packing
from indexer.sources import Source
from retrieval.errors import RejectedInput

_LINE = re.compile(rb"[ \t]*([A-Za-z_][A-Za-z0-9_ ]*?)[ \t]*[=:][ \t]*([^\r\n]*?)[ \t]*(?:\r?\n)?")
_AXES = re.compile(rb"^[ \t]*NDims[ \t]*[=:]", re.MULTILINE)
_IMAGE = re.compile(rb"^[ \t]*(ObjectType|DimSize|ElementType|ElementDataFile)[ \t]*[=:]", re.MULTILINE)
_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_MOST_AXES = 5


def is_metaimage(head: bytes) -> bool:
    """By the number of axes and one more key, in whatever order: there is no signature."""
    return _AXES.search(head) is not None and _IMAGE.search(head) is not None


def header(source: Source, head: bytes, limits: Limits) -> VolumeHeader:
    """Raises ValueError, KeyError or RejectedInput for a header that is not sound."""
    fields, end = _fields(head)
    if fields.get("ObjectType", "Image").lower() != "image":
        raise RejectedInput("scan", "A MetaIO object that is not an image: there are no pixels in it.")
    axes = int(fields["NDims"])
    shape = tuple(int(length) for length in fields["DimSize"].split())
    if not 2 <= axes <= _MOST_AXES or len(shape) != axes or min(shape) < 1:
        raise RejectedInput(
            "scan", f"{axes} axes of sizes {shape[:8]} are declared: expected 2 to {_MOST_AXES} sizes of at least 1."
        )
    channels = int(fields.get("ElementNumberOfChannels", "1"))
    if not 1 <= channels <= 4096:
        raise RejectedInput("scan", f"{channels} channels are declared: expected 1 to 4096.")
    dtype = _dtype(fields)
    packing = Packing.RAW
    if _true(fields, "CompressedData"):
        packing = Packing.ZLIB
    elif not _true(fields, "BinaryData", "True"):
        packing = Packing.TEXT
    data, start = _data(source, fields, end, limits)
    if packing is Packing.RAW and (skip := int(fields.get("HeaderSize", "0"))):
        start = (
            start + skip
            if skip > 0
            else _from_the_end(data, int(np.prod(shape, dtype=object)) * channels * dtype.itemsize, limits)
        )
    shift = 0 if channels == 1 else 1
    return VolumeHeader(
        source=source,
        data=data,
        shape=shape if channels == 1 else (channels, *shape),
        spatial=(shift, shift + 1, shift + 2 if axes > 2 else -1),
        channel=None if channels == 1 else 0,
        dtype=dtype,
        affine=_affine(fields, axes),
        start=start,
        packing=packing,
    )


def _fields(head: bytes) -> tuple[dict[str, str], int]:
    """The fields, and where the line of ``ElementDataFile``, which must come last, ends."""
    fields: dict[str, str] = {}
    position = 0
    while position < len(head):
        newline = head.find(b"\n", position)
        end = len(head) if newline < 0 else newline + 1
        line = _LINE.fullmatch(head, position, end)
        position = end
        if line is None:
            continue  # a comment, a blank line
        name = line[1].decode("ascii")
        fields[name] = line[2].decode("latin-1")
        if name == "ElementDataFile":
            return fields, position
    raise RejectedInput("scan", "The MetaImage header has no ElementDataFile line: it is damaged or cut off.")


def _dtype(fields: dict[str, str]) -> np.dtype[Any]:
    declared = fields["ElementType"].removesuffix("_ARRAY")
    if declared not in _TYPES:
        raise RejectedInput("scan", "The declared ElementType is not read: expected MET_CHAR to MET_DOUBLE.")
    big = _true(fields, "BinaryDataByteOrderMSB") or _true(fields, "ElementByteOrderMSB")
    return np.dtype((">" if big else "<") + _TYPES[declared])


def _true(fields: dict[str, str], name: str, default: str = "False") -> bool:
    return fields.get(name, default).strip().lower() in ("true", "t", "1", "yes")


def _data(source: Source, fields: dict[str, str], end: int, limits: Limits) -> tuple[Source, int]:
    """Where the voxels are: after the header, or in a companion of the same folder."""
    named = fields["ElementDataFile"]
    if named.upper() == "LOCAL":
        return source, end
    if named.upper().split()[:1] == ["LIST"] or "%" in named:
        raise RejectedInput(
            "scan", "The voxels are spread over a list of files, one a slice: convert it to a single .mha file."
        )
    folder = source.member.rpartition("/")[0]
    found = beside(source, f"{folder}/{named}" if folder else named, limits)
    if found is None:
        raise RejectedInput("scan", "The data file that the header names is not in the header's own folder.")
    return found, 0


def _from_the_end(data: Source, size: int, limits: Limits) -> int:
    with open_source(data, limits) as stream:
        return max(0, stream.seek(0, os.SEEK_END) - size)


def _affine(fields: dict[str, str], axes: int) -> Affine:
    """Voxel index -> LPS mm. Each row of ``TransformMatrix`` is the direction of one axis."""
    sizes = _numbers(fields, ("ElementSpacing", "ElementSize"), axes, [1.0] * axes)
    origin = _numbers(fields, ("Offset", "Position", "Origin"), axes, [0.0] * axes)
    identity = np.eye(axes).ravel().tolist()
    matrix = np.array(_numbers(fields, ("TransformMatrix", "Rotation", "Orientation"), axes * axes, identity))
    affine = np.eye(4)
    used = min(axes, 3)
    directions = matrix.reshape(axes, axes).T[:used, :used]
    affine[:used, :used] = directions * np.abs(np.array(sizes[:used]))
    affine[:used, 3] = origin[:used]
    return affine


def _numbers(fields: dict[str, str], names: tuple[str, ...], count: int, default: list[float]) -> list[float]:
    for name in names:
        if name in fields:
            numbers = [float(number) for number in fields[name].split()]
            if len(numbers) != count:
                raise RejectedInput("scan", f"{name} has {len(numbers)} values, expected {count}.")
            return numbers
    return default
