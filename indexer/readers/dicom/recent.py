"""What was last learnt of a few files, for as long as they stay what they are."""

from __future__ import annotations

import os
from collections import OrderedDict
from io import UnsupportedOperation
from typing import BinaryIO, Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """The last ``most`` files by their identity on disk (device, inode, size and times), so that a file that has been
    replaced or written to is a new one. What is no file of its own (a member of an archive) is not remembered."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: OrderedDict[tuple[int, ...], T] = OrderedDict()

    def put(self, file: BinaryIO, learnt: T) -> None:
        if (identity := _identity(file)) is not None:
            self._known[identity] = learnt
            while len(self._known) > self._most:
                self._known.popitem(last=False)

    def get(self, file: BinaryIO) -> T | None:
        identity = _identity(file)
        return self._known.get(identity) if identity is not None else None


def _identity(file: BinaryIO) -> tuple[int, ...] | None:
    try:
        status = os.fstat(file.fileno())
    except (UnsupportedOperation, OSError):
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
