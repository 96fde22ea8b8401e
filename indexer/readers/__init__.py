"""The readers, in the order they are asked. A new family is one module and one line here.

The libraries they need are imported only when ``readers`` is first called: in a worker's template, not in the parent.
"""

from __future__ import annotations

import functools
import importlib
import zlib
from typing import cast

from indexer.limits import Limits
from indexer.readers.base import HEAD_BYTES, Reader
from indexer.readers.bytes import GZIP, open_source
from indexer.sources import Source
from retrieval.errors import RejectedInput

_REGISTERED = (  # those with a signature first, DICOM last: it must also be tried without its preamble
    "indexer.readers.raster:RasterReader",
    "indexer.readers.kept:KeptReader",
    "indexer.readers.itk:ItkReader",
    "indexer.readers.nifti:NiftiReader",
    "indexer.readers.dicom:DicomReader",
)
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")


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
    """The first reader that knows the source by its first bytes; RejectedInput at stage ``sniff`` when none does."""
    head = sniffed(source, limits)
    if not head:
        raise RejectedInput("sniff", "The file is empty.")
    name = (source.member or source.path.name).lower()
    for reader in readers():
        if reader.can_read(head, name):
            return reader
    if head.startswith(_ZIP):
        raise RejectedInput("sniff", "A zip inside a zip is not opened: unpack it first.")
    raise RejectedInput("sniff", "Not an image: no reader knows its first bytes.")


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
