"""System calls that fail on order, in this process and those it forks: a disk that is full, failing or gone.

``failing_calls.c`` does it, compiled when it is first needed. Where the seccomp filters of Linux or a C compiler are
not to be had, ``Faults.make`` raises ``Unavailable`` with the reason.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import mmap
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path
from typing import Self

SOURCE = Path(__file__).with_suffix(".c")
PATH_BYTES = 4096


class Unavailable(Exception):
    """No calls can be made to fail on this machine; the text says why."""


class Calls(IntFlag):
    """Kinds of system calls."""

    WRITING = 1  # write, pwrite, sendfile, ftruncate, fallocate
    SYNCING = 2  # fsync, fdatasync
    NAMING = 4  # rename, link, mkdir, making a file
    REMOVING = 8  # unlink, rmdir


@dataclass(frozen=True, slots=True)
class Fault:
    """What fails. ``lasting``: all calls after the first too; ``half``: the first is a write of half of its bytes."""

    name: str
    error: int
    calls: Calls
    lasting: bool = False
    half: bool = False

    @property
    def hopeless(self) -> bool:
        """Whether even what was done before can't be taken back."""
        return self.lasting and Calls.REMOVING in self.calls


_FILLING = Calls.WRITING | Calls.SYNCING | Calls.NAMING
FAULTS = (
    Fault("EIO once", errno.EIO, _FILLING | Calls.REMOVING),
    Fault("EIO from then on", errno.EIO, _FILLING | Calls.REMOVING, lasting=True),
    Fault("ENOSPC from then on", errno.ENOSPC, _FILLING, lasting=True),
    Fault("ENOSPC after half of a write", errno.ENOSPC, _FILLING, lasting=True, half=True),
)


def spread(calls: int, count: int) -> list[int]:
    """Which calls are made to fail: all, or ``count`` of them spread evenly, the first and the last among them."""
    count = min(count, calls)
    return sorted({round(1 + n * (calls - 1) / max(1, count - 1)) for n in range(count)})


class _Order(ctypes.Structure):
    """``struct order`` of the C source, field by field."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("armed", "groups", "nth", "lasting", "half", "error", "seen", "failed")),
        ("folder", ctypes.c_char * PATH_BYTES),
    )


class Faults:
    """Orders to the processes that obey them, through memory they share with this one.

    ``make`` before forking, or with a file for processes started otherwise; ``obey`` in the process whose calls shall
    fail; ``arm`` and ``disarm`` in either.
    """

    def __init__(self, shared: mmap.mmap) -> None:
        self._shared = shared  # kept: the structure lies in it
        self._order = _Order.from_buffer(shared)

    @classmethod
    def make(cls, file: Path | None = None) -> Self:
        """New orders: nothing fails yet. Unavailable where none can be obeyed."""
        _library()
        size = ctypes.sizeof(_Order)
        if file is None:
            return cls(mmap.mmap(-1, size))
        file.write_bytes(bytes(size))
        return cls.at(file)

    @classmethod
    def at(cls, file: Path) -> Self:
        """The orders another process made in a file."""
        with file.open("r+b") as opened:
            return cls(mmap.mmap(opened.fileno(), 0))

    def obey(self) -> None:
        """From now on this process, all its threads and the processes it forks do as is ordered. Can't be undone."""
        library = _library()
        library.order = self._order  # which must live as long as the filter
        if refused := library.obey(ctypes.byref(self._order)):
            raise Unavailable(f"system calls can't be filtered here: {os.strerror(refused)}")

    def arm(self, folder: Path, fault: Fault, nth: int) -> None:
        """Let the ``nth`` call about files under ``folder`` fail (from 1; 0: count only)."""
        order = self._order
        order.armed = order.seen = order.failed = 0
        order.folder = str(folder.resolve()).encode() + b"/"
        order.groups, order.error = int(fault.calls), fault.error
        order.lasting, order.half, order.nth = int(fault.lasting), int(fault.half), nth
        order.armed = 1

    def disarm(self) -> None:
        self._order.armed = 0

    @contextmanager
    def armed(self, folder: Path, fault: Fault, nth: int) -> Iterator[None]:
        self.arm(folder, fault, nth)
        try:
            yield
        finally:
            self.disarm()

    @property
    def seen(self) -> int:
        """Calls counted since it was armed."""
        return int(self._order.seen)

    @property
    def failed(self) -> int:
        """Of them, those that failed."""
        return int(self._order.failed)


@functools.cache
def _library() -> ctypes.CDLL:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise Unavailable("no C compiler (gcc) is installed")
    with tempfile.TemporaryDirectory(prefix="precedent-faults-") as folder:
        made = Path(folder) / "failing_calls.so"
        command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(made), str(SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"{SOURCE.name} can't be compiled here: {done.stderr.strip()[-300:]}")
        return ctypes.CDLL(str(made))  # mapped: the file may go
