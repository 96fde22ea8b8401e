"""A real file system of a few megabytes, and ways to fill it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class NoSmallDisk(Exception):
    """None can be mounted here; the text says why."""


@contextmanager
def mounted(place: Path, size: str) -> Iterator[Path]:
    """A tmpfs of ``size`` (as ``64m``) at ``place``, which is made; NoSmallDisk where that is not allowed."""
    if os.geteuid() != 0:
        raise NoSmallDisk("a small disk can only be mounted by root")
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoSmallDisk(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path, *, leave: int) -> Path:
    """Take all but ``leave`` bytes of a disk; the file that does."""
    filler = disk / "filler"
    free = os.statvfs(disk)
    with filler.open("wb") as file:
        file.write(b"x" * max(0, free.f_bavail * free.f_frsize - leave))
    return filler
