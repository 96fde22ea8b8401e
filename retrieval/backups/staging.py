"""Directories that nobody takes for finished: filled under a hidden name, then renamed.

The kernel lets go of the lock on such a directory when its process dies, however it dies; whoever comes next to the
same place removes what is not locked.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from retrieval.storage import sync_directory

PREFIX = ".precedent-unfinished-"


@contextmanager
def staging(parent: Path) -> Iterator[Path]:
    """A new, empty, locked directory in ``parent``, mode 0700; removed on the way out unless it was renamed.

    Removes first what processes that died have left there. Raises OSError.
    """
    sweep_unfinished(parent)
    place, lock = _locked(parent)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(lock)


def sweep_unfinished(parent: Path) -> None:
    """Remove directories of this kind whose processes have ended."""
    for left in sorted(parent.glob(f"{PREFIX}*")):
        with suppress(FileNotFoundError, NotADirectoryError):
            descriptor = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if _lock(descriptor):
                    shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(descriptor)


def entries(directory: Path) -> list[Path]:
    """What lies in a directory but for unfinished ones; nothing when there is no such directory."""
    if not directory.is_dir():
        return []
    return sorted(path for path in directory.iterdir() if not path.name.startswith(PREFIX))


def sync_directories(top: Path) -> None:
    """Fsync every directory from the leaves up to ``top`` itself; files are synced by who writes them."""
    for path, _, _ in os.walk(top, topdown=False):
        sync_directory(Path(path))


def _locked(parent: Path) -> tuple[Path, int]:
    while True:
        place = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if _lock(descriptor) and place.is_dir():
            return place, descriptor
        os.close(descriptor)  # swept away by another process in the moment before it was locked


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
