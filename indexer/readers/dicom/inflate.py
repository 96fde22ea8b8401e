"""Deflated DICOM (PS3.5 A.5), inflated no further than it is read, so that a bomb is met at its first bytes."""

from __future__ import annotations

import os
import zlib
from typing import BinaryIO

from retrieval.errors import LimitExceeded, RejectedInput

HEADER_BYTES = 64 << 20  # most bytes of kept elements; of everything before the pixels in a deflated file
_CHUNK = 1 << 18
_TRAILING = 1 << 20  # elements behind the pixels: signatures, padding


class Inflated:
    """A seekable view of a deflated data set (PS3.5 A.5), inflated no further than it is read, never past ``most``."""

    def __init__(self, file: BinaryIO, start: int, most: int) -> None:
        self._file = file
        self._packed = start
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._data = bytearray()
        self._at = 0
        self.most = most

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence != os.SEEK_SET:
            raise ValueError("Expected an absolute offset: the end of a deflated stream is not known.")
        self._fill(offset)
        if offset > len(self._data):
            raise RejectedInput("scan", "The deflated DICOM file is cut short: it ends inside an element.")
        self._at = offset
        return offset

    def tell(self) -> int:
        return self._at

    def read(self, size: int) -> bytes:
        self._fill(self._at + size)
        data = bytes(self._data[self._at : self._at + size])
        self._at += len(data)
        return data

    def finish(self, after: int) -> None:
        """Refuse a stream that does not end within a little of byte ``after``: it is cut short, or something else."""
        self.most = after + _TRAILING
        self._fill(self.most)
        if not self._inflate.eof:
            raise LimitExceeded("decode", f"The deflated data goes on more than {_TRAILING} bytes past the pixels.")

    def _fill(self, upto: int) -> None:
        if upto > self.most:
            raise LimitExceeded("scan", f"The deflated header goes past the limit of {self.most} bytes.")
        while len(self._data) < upto and not self._inflate.eof:
            packed = self._inflate.unconsumed_tail
            if not packed:
                self._file.seek(self._packed)
                packed = self._file.read(_CHUNK)
                self._packed += len(packed)
            if not packed:
                raise RejectedInput("scan", "The deflated DICOM file is cut short: its compressed data has no end.")
            try:
                self._data += self._inflate.decompress(packed, min(_CHUNK, upto - len(self._data) + 4096))
            except zlib.error as error:
                raise RejectedInput("scan", "The deflated DICOM file is damaged: its data does not inflate.") from error
