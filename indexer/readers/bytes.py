"""The bytes of a source: a regular file, or one member of a zip, under the limits and never unpacked to disk.

Everything here is forward, bounded reading: sizes are compared with the limits before anything is unpacked, and counted
again while it is, since a header may lie.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import os
import stat
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from indexer.limits import Limits
from indexer.sources import Source
from retrieval.errors import LimitExceeded, RejectedInput

if TYPE_CHECKING:
    from typing_extensions import Buffer

CHUNK = 1 << 20
ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
KEPT_MEMBER = 32 << 20  # a member up to this size is unpacked once for sniffing, hashing and reading
RATIO_FROM = 16 << 20  # below this many unpacked bytes, no ratio is suspicious
GZIP = b"\x1f\x8b"
DEFLATE_MOST = 1032  # RFC 1951: the most bytes one byte of deflate can stand for
# What zipfile raises for bytes that are wrong; the last is its word for a coding or version that it does not know.
_ZIP_FAULTS = (zipfile.BadZipFile, OSError, NotImplementedError)
_CENTRAL_HEADER = b"PK\x01\x02"
_END_RECORD = b"PK\x05\x06"
_END_RECORD_SPAN = 22 + 0xFFFF + 20  # the record, the longest comment, a zip64 locator
_CENTRAL_HEADER_BYTES = 46


def open_source(source: Source, limits: Limits) -> BinaryIO:
    """A seekable binary stream over the source; the caller closes it.

    Raises RejectedInput (stage "open", or "sniff" when it is no regular file) when it can't be read, LimitExceeded when
    it is too large. A member of a zip is unpacked into memory (its size is checked first, its CRC-32 and length at the
    end).
    """
    if not source.member:
        return open_file(source.path, limits)
    archive = open_archive(source.path, limits)
    info = archive.NameToInfo.get(source.member)
    if info is not None and info.file_size <= KEPT_MEMBER:
        return io.BytesIO(_unpack_once(archive, source.member, limits))
    return io.BytesIO(_unpack(archive, source.member, limits))


def open_unpacked(source: Source, limits: Limits) -> BinaryIO:
    """As ``open_source``; a gzipped source is unpacked into memory, within the limits, its checksum verified."""
    stream = open_source(source, limits)
    if stream.read(len(GZIP)) != GZIP:
        stream.seek(0)
        return stream
    with stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        return io.BytesIO(gunzip(stream, size, limits).read(limits.unpacked_bytes))


def digest(source: Source, limits: Limits) -> tuple[str, int]:
    """SHA-256 (hex) and size of the source's bytes: of the file as it is, or of the unpacked member."""
    with open_source(source, limits) as stream:
        return digest_streams(stream)


def digest_streams(*streams: BinaryIO) -> tuple[str, int]:
    """SHA-256 (hex) and size over streams read one after another from where they stand."""
    sha256, size = hashlib.sha256(), 0
    for stream in streams:
        while chunk := stream.read(CHUNK):
            sha256.update(chunk)
            size += len(chunk)
    return sha256.hexdigest(), size


def beside(source: Source, name: str, limits: Limits) -> Source | None:
    """The file ``name`` in the folder (or archive) of ``source``, None when there is none.

    ``name`` comes from a hostile header or is made from a file name: anything but a plain name is refused, and so is a
    link, unless ``source`` is one too (data sets kept by git-annex are all links).
    """
    if source.member:
        archive = open_archive(source.path, limits)
        return Source(source.path, name) if name in archive.NameToInfo else None
    if not name or name in (".", "..") or any(sign in name for sign in "/\\\x00"):
        raise RejectedInput("scan", "The header names a data file outside its own folder: expected a plain file name.")
    path = source.path.with_name(name)
    try:
        if path.is_symlink() and not source.path.is_symlink():
            raise RejectedInput("scan", "The data file beside the header is a link: expected the file itself.")
        return Source(path) if path.exists() else None
    except OSError as error:
        raise RejectedInput(
            "scan", "The header names a data file that can't be looked up: its name is not valid."
        ) from error


def open_file(path: Path, limits: Limits) -> BinaryIO:
    """Open a regular file for reading; a FIFO, socket or device is refused without waiting for it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        what = "folder" if os.path.isdir(path) else "file"  # noqa: PTH112 - one the walk could not list
        raise RejectedInput("open", f"The {what} can't be opened: {error.strerror}.") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise RejectedInput("sniff", "Expected a regular file, got a directory, pipe, socket or device.")
    if status.st_size > limits.file_bytes:
        os.close(descriptor)
        raise LimitExceeded(
            "open", f"The file has {status.st_size} bytes, the limit is {limits.file_bytes} bytes (max_file_mb)."
        )
    return cast(BinaryIO, os.fdopen(descriptor, "rb"))


def gunzip(stream: BinaryIO, packed: int, limits: Limits) -> BoundedReader:
    """A forward reader over gzip data of ``packed`` bytes, bounded by ``unpacked_bytes`` and ``ratio``."""
    return BoundedReader(cast(BinaryIO, gzip.GzipFile(fileobj=stream, mode="rb")), packed, limits)


class BoundedReader:
    """Forward reading of an unpacking stream that refuses a bomb as soon as it shows."""

    def __init__(self, unpacking: BinaryIO, packed: int, limits: Limits) -> None:
        self._unpacking = unpacking
        self._packed = max(packed, 1)
        self._limits = limits
        self.unpacked = 0

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes, fewer only at the end, where the checksum has then been verified."""
        parts = []
        while size > 0:
            try:
                part = self._unpacking.read(min(size, CHUNK))
            except EOFError as error:
                raise RejectedInput("decode", "The compressed data is truncated.") from error
            except (OSError, zlib.error, zipfile.BadZipFile) as error:
                raise RejectedInput(
                    "decode", "The compressed data is damaged: its checksum or coding is wrong."
                ) from error
            if not part:
                break
            self._count(len(part))
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def finish(self, slack: int) -> int:
        """Read to the end so that the checksum is verified; more than ``slack`` further bytes are refused."""
        extra = 0
        while part := self.read(CHUNK):
            extra += len(part)
            if extra > slack:
                raise RejectedInput(
                    "decode", f"The compressed data goes on more than {slack} bytes past the declared image."
                )
        return extra

    def _count(self, size: int) -> None:
        self.unpacked += size
        if self.unpacked > self._limits.unpacked_bytes:
            raise LimitExceeded(
                "decode", f"The file unpacks to more than the limit of {self._limits.unpacked_bytes} bytes."
            )
        check_ratio(self._packed, self.unpacked, self._limits, "decode")


def check_ratio(packed: int, unpacked: int, limits: Limits, stage: str) -> None:
    """Refuse what unpacks to more than ``limits.ratio`` times its size, once it is large enough to hurt."""
    if unpacked > RATIO_FROM and unpacked > limits.ratio * max(packed, 1):
        raise LimitExceeded(
            stage, f"{packed} bytes unpack to {unpacked} or more: over the limit of {limits.ratio:g} to 1."
        )


def open_archive(path: Path, limits: Limits) -> zipfile.ZipFile:
    """The zip at ``path``, its directory checked against the limits before it is parsed. Shared; holds no file open."""
    try:
        status = path.stat()
    except OSError as error:
        raise RejectedInput("open", f"The archive can't be opened: {error.strerror}.") from error
    return _archive(path, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns), limits)


@functools.lru_cache(maxsize=4)
def _archive(path: Path, identity: tuple[int, ...], limits: Limits) -> zipfile.ZipFile:
    """Kept parsed, as the members of one archive are read one after another and its directory may be long."""
    try:
        with open_file(path, limits) as stream:
            _check_directory(stream, limits)
        archive = zipfile.ZipFile(cast(BinaryIO, _Reopened(path, identity[2], limits)))
    except (*_ZIP_FAULTS, ValueError, EOFError) as error:
        raise RejectedInput("open", "The zip is damaged or cut short: its directory can't be read.") from error
    total = sum(info.file_size for info in archive.infolist())
    if total > limits.unpacked_bytes:
        raise LimitExceeded(
            "open", f"The archive declares {total} unpacked bytes, the limit is {limits.unpacked_bytes}."
        )
    check_ratio(identity[2], total, limits, "open")
    return archive


class _Reopened(io.RawIOBase):
    """A file that is open only while it is read: an upload that has been deleted must not live on in a descriptor."""

    def __init__(self, path: Path, size: int, limits: Limits) -> None:
        self._path = path
        self._size = size
        self._limits = limits
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise OSError("the position is before the start of the file")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Buffer) -> int:
        with open_file(self._path, self._limits) as file:
            file.seek(self._at)
            got = cast(io.BufferedReader, file).readinto(buffer)
        self._at += got
        return got


def _check_directory(stream: BinaryIO, limits: Limits) -> None:
    """Count the central directory's entries before ``zipfile`` makes an object of each (APPNOTE.TXT 4.3.12, 4.3.16)."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - _END_RECORD_SPAN))
    tail = stream.read()
    end = tail.rfind(_END_RECORD)
    if end < 0:
        raise zipfile.BadZipFile("no end record")
    most = size - len(tail) + end
    declared = int.from_bytes(tail[end + 12 : end + 16], "little")
    length = most if declared == 0xFFFFFFFF else min(declared + 76, most)  # 76: zip64 end record and locator
    if length > limits.zip_members * (_CENTRAL_HEADER_BYTES + 1024):
        raise LimitExceeded(
            "open", f"The archive's directory has {length} bytes, too many for {limits.zip_members} members."
        )
    stream.seek(most - length)
    members = stream.read(length).count(_CENTRAL_HEADER)
    if members > limits.zip_members:
        raise LimitExceeded(
            "open", f"The archive has {members} members, the limit is {limits.zip_members} (zip_members)."
        )
    stream.seek(0)


@functools.lru_cache(maxsize=1)
def _unpack_once(archive: zipfile.ZipFile, member: str, limits: Limits) -> bytes:
    return _unpack(archive, member, limits)


def _unpack(archive: zipfile.ZipFile, member: str, limits: Limits) -> bytes:
    try:
        info = archive.getinfo(member)
    except KeyError as error:
        raise RejectedInput("open", "The archive has no such member any more: index it again.") from error
    if info.is_dir() or stat.S_ISLNK(info.external_attr >> 16):
        raise RejectedInput("sniff", "Expected a file in the archive, got a folder or a link.")
    if info.flag_bits & 0x1:
        raise RejectedInput("open", "The member is encrypted: unpack the archive with its password first.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise RejectedInput(
            "open", f"Compression method {info.compress_type} is not read: expected stored or deflated."
        )
    if info.file_size > limits.file_bytes:
        raise LimitExceeded(
            "open", f"The member unpacks to {info.file_size} bytes, the limit is {limits.file_bytes} (max_file_mb)."
        )
    check_ratio(info.compress_size, info.file_size, limits, "open")
    try:
        with archive.open(info) as packed:
            unpacked = BoundedReader(cast(BinaryIO, packed), info.compress_size, limits).read(info.file_size + 1)
    except _ZIP_FAULTS as error:
        raise RejectedInput(
            "open", "The archive's member is damaged: its header, coding or checksum is wrong."
        ) from error
    if len(unpacked) != info.file_size:
        raise RejectedInput("open", f"The member has {len(unpacked)} bytes, its directory entry says {info.file_size}.")
    return unpacked
