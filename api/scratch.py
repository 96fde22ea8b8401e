"""Where bodies of requests lie while they are read."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import TextIO

from retrieval.errors import StoreError
from retrieval.storage import storing

PROBE_BYTES = 256 << 10  # what a small upload takes, its pages of the database included


class Scratch:
    """This process's directory for bodies of requests, inside the data directory and readable by its owner only.

    A lock on it lives as long as the process: what a killed process left behind is removed by the next one.
    """

    def __init__(self, home: Path) -> None:
        parent = home / "uploads"
        parent.mkdir(mode=0o700, exist_ok=True)
        for left in sorted(parent.iterdir()):
            _remove_if_dead(left)
        self.path = Path(tempfile.mkdtemp(prefix="process-", dir=parent))
        self._lock = _lock(self.path / "lock")

    def refusal(self) -> str:
        """Why nothing can be written to the data directory's disk just now; "" when it can: it is tried."""
        try:
            with storing("Nothing can be written to the data directory"), tempfile.TemporaryFile(dir=self.path) as file:
                file.write(bytes(PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())
        except StoreError as error:
            return str(error)
        return ""

    def close(self) -> None:
        """Remove the directory with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()


def _lock(path: Path) -> TextIO | None:
    """The file, locked for this process; None when another process holds it."""
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _remove_if_dead(directory: Path) -> None:
    if not (directory / "lock").exists():
        return  # another process is just making it
    lock = _lock(directory / "lock")
    if lock is not None:
        shutil.rmtree(directory, ignore_errors=True)
        lock.close()
