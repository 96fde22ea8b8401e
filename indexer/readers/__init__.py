"""The readers, in the order they are asked. A new family is one module and one line here.

The libraries they need are imported only when ``readers`` is first called: in a worker's template, not in the parent.
"""

from __future__ import annotations

import functools
import importlib
import zlib
from pathlib import PurePosixPath
from typing import cast

from indexer.limits import Limits
from indexer.readers.base import HEAD_BYTES, Reader
from indexer.readers.bytes import GZIP, ZIP, beside, open_archive, open_source
from indexer.sources import Source
from retrieval.errors import RejectedInput

_REGISTERED = (  # those with a signature first, DICOM last: it must also be tried without its preamble
    "indexer.readers.raster:RasterReader",
    "indexer.readers.kept:KeptReader",
    "indexer.readers.itk:ItkReader",
    "indexer.readers.nifti:NiftiReader",
    "indexer.readers.dicom:DicomReader",
)
_IMAGE_ENDINGS = (
    ".dcm", ".dicom", ".ima", ".nii", ".nii.gz", ".hdr", ".img", ".mha", ".mhd", ".nrrd", ".nhdr",
    ".png", ".jpg", ".jpeg", ".jp2", ".tif", ".tiff", ".bmp", ".gif", ".webp",
)  # fmt: skip
_HEADERS = {".img": (".hdr",), ".raw": (".mhd", ".nhdr"), ".zraw": (".mhd",)}  # of files that hold voxels alone
READ_ALONG = "Read along with its header."


@functools.cache
def readers() -> tuple[Reader, ...]:
    """One of each, in order."""
    found = []
    for registered in _REGISTERED:
        module, name = registered.split(":")
        found.append(cast(Reader, getattr(importlib.import_module(module), name)()))
    return tuple(found)


def reader_named(name: str) -> Reader:
    """The reader of a format, as named in ``Scan.format``."""
    for reader in readers():
        if reader.format == name:
            return reader
    raise RejectedInput("sniff", f"No reader is registered for the format '{name}'.")


def open_reader(source: Source, limits: Limits) -> Reader:
    """The first reader that knows the source by its first bytes.

    RejectedInput at stage ``sniff`` when none does, at stage ``open`` when it should have been an image or a zip and
    can't be read.
    """
    head = sniffed(source, limits)
    name = (source.member or source.path.name).lower()
    if not head:
        raise RejectedInput("open" if name.endswith(_IMAGE_ENDINGS) else "sniff", "The file is empty.")
    for reader in readers():
        if reader.can_read(head, name):
            return reader
    if head.startswith(ZIP):
        raise _unopened_zip(source, limits)
    raise RejectedInput("sniff", _why_none(source, limits))


def _unopened_zip(source: Source, limits: Limits) -> RejectedInput:
    """Why a zip comes as one source instead of its members."""
    with open_source(source, limits) as stream:
        outermost = not source.member and stream.read(4) in ZIP
    if not outermost:
        return RejectedInput("sniff", "A zip inside a zip or gzip is not opened: unpack it first.")
    try:
        open_archive(source.path, limits)
    except RejectedInput as error:
        return error
    return RejectedInput("open", "The zip could not be opened at first: index it again.")


def _why_none(source: Source, limits: Limits) -> str:
    """What to say of a file that no reader knows: voxels without a header of their own are told apart by name."""
    name = PurePosixPath((source.member or source.path.name).removesuffix(".gz"))
    headers = _HEADERS.get(name.suffix.lower(), ())
    if not headers:
        return "Not an image: no reader knows its first bytes."
    if any(_is_beside(source, str(name.with_suffix(header)), limits) for header in headers):
        return READ_ALONG
    return f"Not an image by itself: its header ({' or '.join(headers)}) is missing beside it."


def _is_beside(source: Source, name: str, limits: Limits) -> bool:
    try:
        return any(beside(source, name + packed, limits) is not None for packed in ("", ".gz"))
    except RejectedInput:
        return False


def sniffed(source: Source, limits: Limits) -> bytes:
    """The first bytes, after gunzip when they are gzip."""
    with open_source(source, limits) as stream:
        head = stream.read(HEAD_BYTES)
        if not head.startswith(GZIP):
            return head
        head += stream.read(HEAD_BYTES)
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, HEAD_BYTES)
    except zlib.error:
        return head[:HEAD_BYTES]
