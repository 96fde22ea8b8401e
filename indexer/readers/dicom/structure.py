"""The skeleton of a DICOM file (PS3.5 section 7, PS3.10 section 7): which element lies where, held to the limits.

Every length is compared with the bytes there are before anything of that length is read, sequences are followed only
as deep as the limits allow, and of the header only the elements asked for are kept: what is not on the allow-list
is skipped unread, so no parser ever sees a private tag, a comment or an encapsulated document.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import BinaryIO, NoReturn

from indexer.limits import Limits
from indexer.readers.dicom.inflate import HEADER_BYTES, Inflated
from retrieval.errors import LimitExceeded, RejectedInput

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"

PIXEL_TAGS = {0x7FE00010: "PixelData", 0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData"}

_LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_META_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class PixelElement:
    """Where pixel data lies. ``fragments``: (offset, length) of each, basic offset table first, when encapsulated."""

    keyword: str
    vr: str
    offset: int
    length: int  # 0 when encapsulated
    fragments: tuple[tuple[int, int], ...] | None = None


@dataclass(frozen=True, slots=True)
class Structure:
    """A walked file. ``kept``: the bytes of the elements asked for, a data set of their own. ``stream``: the data set's
    bytes (inflated when deflated), to which the offsets refer."""

    stream: BinaryIO
    syntax: str
    media_class: str  # Media Storage SOP Class UID of the file meta
    implicit: bool
    little: bool
    kept: bytes
    pixels: PixelElement | None


@dataclass(frozen=True, slots=True)
class _Token:
    tag: int
    vr: bytes
    length: int
    start: int  # of the tag
    value: int  # of the value


def looks_like_dicom(head: bytes) -> bool:
    """'DICM' after the preamble, or (a data set alone) two well-formed elements of group 0002 or 0008 in order."""
    if head[128:132] == b"DICM" or head[:4] == b"DICM":
        return True
    return any(_plausible(head, implicit, little) for implicit, little in ((False, True), (True, True), (False, False)))


def _plausible(head: bytes, implicit: bool, little: bool) -> bool:
    order, at, last = ("little" if little else "big"), 0, 0
    for _ in range(2):
        if at + 12 > len(head):
            return False
        group, element = (int.from_bytes(head[at + i : at + i + 2], order) for i in (0, 2))  # type: ignore[arg-type]
        vr, size = head[at + 4 : at + 6], 8
        if implicit:
            length = int.from_bytes(head[at + 4 : at + 8], "little")
        elif not vr.isalpha() or not vr.isupper():
            return False
        elif vr in _LONG_VRS:
            length, size = int.from_bytes(head[at + 8 : at + 12], order), 12  # type: ignore[arg-type]
        else:
            length = int.from_bytes(head[at + 6 : at + 8], order)  # type: ignore[arg-type]
        tag = group << 16 | element
        if group not in (2, 8) or tag <= last or length > 512 or (length % 2 and implicit):
            return False
        last, at = tag, at + size + length
    return True


def walk(file: BinaryIO, wanted: Collection[int], limits: Limits) -> Structure:
    """Walk ``file``, keeping the elements whose tags are in ``wanted``, at the top and inside kept sequences.

    (Items of defined length are kept whole: their length could not be changed otherwise.)

    Raises RejectedInput when the file is cut short or its structure makes no sense, LimitExceeded past a limit.
    """
    return _Walk(file, frozenset(wanted), limits).run()


class _Walk:
    """One pass over one file: a cursor and what was found so far."""

    def __init__(self, file: BinaryIO, wanted: frozenset[int], limits: Limits) -> None:
        self.file = file
        self.limits = limits
        self.size = file.seek(0, os.SEEK_END)
        self.implicit, self.little = False, True
        self.media_class = ""
        self.unwanted: list[tuple[int, int]] = []  # spans of unwanted elements inside the sequence just skipped
        self.wanted = wanted

    def run(self) -> Structure:
        syntax = self._read_meta()
        if syntax == DEFLATED:
            self.file = Inflated(self.file, self.file.tell(), HEADER_BYTES)  # type: ignore[assignment]
            self.size = 1 << 62  # unknown until inflated; a short read tells
        self.little = syntax != BIG_ENDIAN
        syntax = self._settle_encoding(syntax)
        kept, pixels = bytearray(), None
        while (token := self._next()) is not None:
            if token.tag in PIXEL_TAGS:
                pixels = pixels or self._pixel_element(token)
                if syntax == DEFLATED:
                    break  # inflating the pixels is for ``read``, which then knows how many bytes to expect
                continue
            self.unwanted.clear()
            self._skip_value(token, 1)
            if token.tag in self.wanted:
                self._keep(token, kept)
        return Structure(self.file, syntax, self.media_class, self.implicit, self.little, bytes(kept), pixels)

    def _read_meta(self) -> str:
        """The transfer syntax UID of the File Meta Information, or ""; leaves the cursor at the data set."""
        self.file.seek(0)
        head = self.file.read(132)
        self.file.seek(132 if head[128:] == b"DICM" else 4 if head[:4] == b"DICM" else 0)
        syntax, start = "", self.file.tell()
        while True:
            at = self.file.tell()
            if (group := self.file.read(2)) != b"\x02\x00":
                self.file.seek(at)
                return "" if len(group) < 2 and not syntax else syntax
            self.file.seek(at)
            token = self._next()
            if token is None or token.length == _UNDEFINED or token.value + token.length - start > _META_BYTES:
                self._damaged(at, "a file meta element has no sensible length")
            value = self._bytes(token.value, token.length)
            if token.tag == 0x00020010:
                syntax = value.rstrip(b"\x00 ").decode("ascii", "replace")
            elif token.tag == 0x00020002:
                self.media_class = value.rstrip(b"\x00 ").decode("ascii", "replace")

    def _settle_encoding(self, syntax: str) -> str:
        """Explicit or implicit VR by what is there (declarations can be wrong); the syntax when none was given."""
        at = self.file.tell()
        peek = self.file.read(6)
        while peek[:2] == b"\x00\x00" and len(peek) == 6:  # a DIMSE command set left in front: always implicit
            self.implicit = True
            self.file.seek(at)
            if (token := self._next()) is None or token.tag >> 16:
                break
            self._skip_value(token, 1)
            at = self.file.tell()
            peek = self.file.read(6)
        self.file.seek(at)
        explicit = len(peek) == 6 and peek[4:6].isalpha() and peek[4:6].isupper()
        self.implicit = not explicit
        if syntax:
            return syntax
        if explicit and peek[0] == 0 and peek[1] != 0:
            self.little = False
            return BIG_ENDIAN
        return EXPLICIT if explicit else IMPLICIT

    def _next(self, implicit: bool | None = None) -> _Token | None:
        """The next element's header; None at the end (trailing zero padding is let pass, anything else is not)."""
        start = self.file.tell()
        head = self.file.read(8)
        if len(head) < 8:
            if head.strip(b"\x00"):
                self._truncated(start)
            return None
        order = "little" if self.little else "big"
        tag = int.from_bytes(head[:2], order) << 16 | int.from_bytes(head[2:4], order)  # type: ignore[arg-type]
        vr = head[4:6]
        implicit = self.implicit if implicit is None else implicit
        if implicit or tag >> 16 == 0xFFFE or not (vr.isalpha() and vr.isupper()):
            return _Token(tag, b"", int.from_bytes(head[4:], order), start, start + 8)  # type: ignore[arg-type]
        if vr in _LONG_VRS:
            length = self._bytes(start + 8, 4)
            return _Token(tag, vr, int.from_bytes(length, order), start, start + 12)  # type: ignore[arg-type]
        return _Token(tag, vr, int.from_bytes(head[6:], order), start, start + 8)  # type: ignore[arg-type]

    def _skip_value(self, token: _Token, depth: int) -> None:
        if token.length != _UNDEFINED:
            if token.value + token.length > self.size:
                self._truncated(token.start)
            self.file.seek(token.value + token.length)
        elif token.tag >> 16 == 0xFFFE:
            self._damaged(token.start, "an item stands outside any sequence")
        else:
            self._skip_items(depth)

    def _skip_items(self, depth: int) -> None:
        """From the first item of a sequence of undefined length to behind its delimiter."""
        if depth > self.limits.nesting:
            raise LimitExceeded(
                "scan", f"Sequences are nested deeper than the limit of {self.limits.nesting} levels (nesting)."
            )
        while True:
            item = self._next(implicit=True)
            if item is None:
                self._truncated(self.file.tell())
            if item.tag == _SEQUENCE_END:
                return
            if item.tag != _ITEM:
                self._damaged(item.start, "a sequence holds something that is not an item")
            if item.length != _UNDEFINED:
                self._skip_value(item, depth)
                continue
            at = self.file.tell()
            peek = self.file.read(6)
            self.file.seek(at)
            implicit = self.implicit or not (peek[4:6].isalpha() and peek[4:6].isupper())
            while (token := self._next(implicit)) is not None and token.tag != _ITEM_END:
                outer = len(self.unwanted)
                self._skip_value(token, depth + 1)
                if token.tag not in self.wanted:
                    self.unwanted[outer:] = [(token.start, self.file.tell())]
            if token is None:
                self._truncated(self.file.tell())

    def _pixel_element(self, token: _Token) -> PixelElement:
        keyword, vr = PIXEL_TAGS[token.tag], token.vr.decode() or "OW"
        if token.length != _UNDEFINED:
            if token.value + token.length > self.size:
                have = max(0, self.size - token.value)
                raise RejectedInput(
                    "scan", f"The pixel data declares {token.length} bytes, the file holds {have}: it is cut short."
                )
            if not isinstance(self.file, Inflated):
                self.file.seek(token.value + token.length)
            return PixelElement(keyword, vr, token.value, token.length)
        fragments: list[tuple[int, int]] = []
        while True:
            item = self._next(implicit=True)
            if item is None:
                self._truncated(token.start)
            if item.tag == _SEQUENCE_END:
                return PixelElement(keyword, vr, token.value, 0, tuple(fragments))
            if item.tag != _ITEM or item.length == _UNDEFINED:
                self._damaged(item.start, "the compressed pixel data holds something that is not a fragment")
            self._skip_value(item, 1)
            fragments.append((item.value, item.length))
            if len(fragments) > 4 * self.limits.frames + 1:
                raise LimitExceeded("scan", f"The pixel data has over {4 * self.limits.frames} fragments (max_frames).")

    def _keep(self, token: _Token, kept: bytearray) -> None:
        after = self.file.tell()
        if len(kept) + after - token.start > HEADER_BYTES:
            raise LimitExceeded("scan", f"The header's elements are over the limit of {HEADER_BYTES} bytes in all.")
        at = token.start
        for start, end in self.unwanted:  # their enclosing lengths are all undefined, so nothing else need change
            kept += self._bytes(at, start - at)
            at = end
        kept += self._bytes(at, after - at)
        self.file.seek(after)

    def _bytes(self, offset: int, length: int) -> bytes:
        if offset + length > self.size:
            self._truncated(offset)
        self.file.seek(offset)
        data = self.file.read(length)
        if len(data) < length:
            self._truncated(offset)
        return data

    def _truncated(self, at: int) -> NoReturn:
        raise RejectedInput("scan", f"The DICOM file is cut short: the element at byte {at} is not complete.")

    def _damaged(self, at: int, what: str) -> NoReturn:
        raise RejectedInput("scan", f"The DICOM structure is damaged at byte {at}: {what}.")
