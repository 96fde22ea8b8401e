"""The text header of an NRRD file (teem.sourceforge.net/nrrd/format.html), attached or detached."""

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

_MAGIC = re.compile(rb"NRRD000[1-6]\r?\n")
_PACKINGS = {
    "raw": Packing.RAW,
    "gzip": Packing.GZIP,
    "gz": Packing.GZIP,
    "bzip2": Packing.BZIP2,
    "bz2": Packing.BZIP2,
    "txt": Packing.TEXT,
    "text": Packing.TEXT,
    "ascii": Packing.TEXT,
    "hex": Packing.HEX,
}
_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_DTYPES = {name: code for code, names in _TYPES.items() for name in names}
_COLOUR = {"rgb-color", "rgba-color", "3-color", "4-color"}
_SPACE_KINDS = {"domain", "space", "", "???", "none"}
_TO_LPS = {
    "left": (0, 1.0),
    "right": (0, -1.0),
    "posterior": (1, 1.0),
    "anterior": (1, -1.0),
    "superior": (2, 1.0),
    "inferior": (2, -1.0),
}
_SPACES = {"ras": "right-anterior-superior", "las": "left-anterior-superior", "lps": "left-posterior-superior"}
_MOST_AXES = 8


def is_nrrd(head: bytes) -> bool:
    return _MAGIC.match(head) is not None


def header(source: Source, head: bytes, limits: Limits) -> VolumeHeader:
    """Raises ValueError, KeyError or RejectedInput for a header that is not sound."""
    fields, end = _fields(head)
    shape = tuple(int(length) for length in fields["sizes"].split())
    if len(shape) != int(fields["dimension"]) or not 2 <= len(shape) <= _MOST_AXES or min(shape) < 1:
        raise RejectedInput(
            "scan", f"Sizes {shape[:_MOST_AXES]} are declared: expected 2 to {_MOST_AXES}, each at least 1."
        )
    dtype = _dtype(fields)
    spatial, channel, directions = _axes(fields, shape)
    packing = _packing(fields)
    data, start = _data(source, fields, head, end, packing, int(np.prod(shape, dtype=object)) * dtype.itemsize, limits)
    affine, warnings = _affine(fields, spatial, directions)
    i, j, *k = spatial
    return VolumeHeader(
        source=source,
        data=data,
        shape=shape,
        spatial=(i, j, k[0] if k else -1),
        channel=channel,
        dtype=dtype,
        affine=affine,
        start=start,
        skip=max(0, int(fields.get("byteskip", "0"))) if packing is not Packing.RAW else 0,
        packing=packing,
        warnings=warnings,
    )


def _fields(head: bytes) -> tuple[dict[str, str], int]:
    """Fields by lower-case name without spaces; and where the blank line that ends the header ends."""
    fields: dict[str, str] = {}
    position = head.index(b"\n") + 1
    while position < len(head):
        line, newline, _ = head[position:].partition(b"\n")
        position += len(line) + len(newline)
        text = line.rstrip(b"\r").decode("latin-1")
        if not text:
            return fields, position
        name, colon, value = text.partition(":")
        if text.startswith("#") or not colon or value.startswith("="):
            continue  # a comment, or a key/value pair: free text, never read
        fields[name.strip().lower().replace(" ", "")] = value.strip()
        if name.strip().lower().replace(" ", "") == "datafile" and value.strip().upper().startswith("LIST"):
            break
    return fields, len(head)  # a detached header may end without a blank line


def _dtype(fields: dict[str, str]) -> np.dtype[Any]:
    code = _DTYPES.get(" ".join(fields["type"].lower().split()))
    if code is None:
        raise RejectedInput("scan", "The declared voxel type is not read: expected an integer or floating-point type.")
    return np.dtype((">" if fields.get("endian", "little").lower() == "big" else "<") + code)


def _packing(fields: dict[str, str]) -> Packing:
    packing = _PACKINGS.get(fields["encoding"].lower())
    if packing is None:
        raise RejectedInput("scan", f"The declared encoding is not read: expected one of {', '.join(_PACKINGS)}.")
    return packing


def _axes(
    fields: dict[str, str], shape: tuple[int, ...]
) -> tuple[tuple[int, ...], int | None, list[list[float] | None]]:
    """Which axes are space (two or three), which one holds components, and the direction of each axis where given."""
    count = len(shape)
    kinds = [kind.lower().strip('"') for kind in fields.get("kinds", "").split()] or ["domain"] * count
    directions: list[list[float] | None]
    directions = _vectors(fields["spacedirections"]) if "spacedirections" in fields else [None] * count
    if len(kinds) != count or len(directions) != count:
        raise RejectedInput(
            "scan", f"{count} axes are declared, but {len(kinds)} kinds and {len(directions)} directions."
        )
    if "spacedirections" in fields:
        space = [axis for axis in range(count) if directions[axis] is not None]
    else:
        space = [axis for axis in range(count) if kinds[axis] in _SPACE_KINDS]
    if len(space) < 2:
        raise RejectedInput("scan", f"{len(space)} spatial axes are declared: an image has at least two.")
    others = [axis for axis in range(count) if axis not in space[:3]]
    colour = [axis for axis in others if kinds[axis] in _COLOUR]
    components = [axis for axis in others if axis < space[0]]
    channel = next(iter(colour + components), None)
    return tuple(space[:3]), channel, directions


def _vectors(text: str) -> list[list[float] | None]:
    found: list[list[float] | None] = []
    for part in re.findall(r"none|\([^)]*\)", text):
        vector = None if part == "none" else [float(number) for number in part[1:-1].split(",")]
        # An axis of NaN or zero directions is not one of space either.
        found.append(
            None if vector is None or not any(vector) or any(number != number for number in vector) else vector
        )
    return found


def _affine(
    fields: dict[str, str], spatial: tuple[int, ...], directions: list[list[float] | None]
) -> tuple[Affine, tuple[str, ...]]:
    """Voxel index -> LPS mm. Without a named patient space the file's axes are taken as LPS, as ITK does."""
    affine = np.eye(4)
    spacings = [float(number) for number in fields.get("spacings", "").split()]
    for column, axis in enumerate(spatial):
        vector = directions[axis]
        if vector is not None:
            affine[: len(vector), column] = np.pad(vector, (0, max(0, 3 - len(vector))))[: len(vector)]
            if column >= len(vector):
                raise RejectedInput("scan", "There are more spatial axes than dimensions of space.")
            if len(vector) < 3:
                affine[len(vector) :, column] = 0.0
        elif axis < len(spacings) and np.isfinite(spacings[axis]) and spacings[axis]:
            affine[column, column] = abs(spacings[axis])
    if origin := _vectors(fields.get("spaceorigin", "")):
        start = origin[0] or [0.0, 0.0, 0.0]
        affine[: len(start), 3] = start
    space = fields.get("space", "").lower()
    words = _SPACES.get(space, space).replace("-time", "").split("-")
    if len(words) >= 3 and all(word in _TO_LPS for word in words[:3]):
        turn = np.zeros((4, 4))
        turn[3, 3] = 1.0
        for row, word in enumerate(words[:3]):
            axis, sign = _TO_LPS[word]
            turn[axis, row] = sign
        return turn @ affine, ()
    if len(spatial) == 3:
        return affine, (
            "The file names no patient space: its axes are assumed to run to the left, to the back and up.",
        )
    return affine, ()


def _data(
    source: Source, fields: dict[str, str], head: bytes, end: int, packing: Packing, size: int, limits: Limits
) -> tuple[Source, int]:
    """Where the (packed) voxels begin: after the header, or in a companion of the same folder."""
    named = fields.get("datafile")
    data, start = source, end
    if named is not None:
        if named.upper().split()[:1] == ["LIST"] or "%" in named:
            raise RejectedInput(
                "scan", "The voxels are spread over a list of files: convert it to a single .nrrd file."
            )
        folder = source.member.rpartition("/")[0]
        name = named.removeprefix("./")
        found = beside(source, f"{folder}/{name}" if folder else name, limits)
        if found is None:
            raise RejectedInput("scan", "The data file that the header names is not in the header's own folder.")
        data, start = found, 0
    lines, skip = int(fields.get("lineskip", "0")), int(fields.get("byteskip", "0"))
    if lines or (skip and packing is Packing.RAW):
        with open_source(data, limits) as stream:
            length = stream.seek(0, os.SEEK_END)
            stream.seek(start)
            for _ in range(min(lines, 10_000)):
                stream.readline(1 << 16)
            start = stream.tell()
        if packing is Packing.RAW:
            start = start + skip if skip >= 0 else max(0, length - size)
    return data, start
