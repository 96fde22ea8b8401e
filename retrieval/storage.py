"""The data directory's disk: names that survive a power cut, and the operating system's errors as sentences of ours."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from retrieval.errors import StorageFull, StoreError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def sync_directory(path: Path) -> None:
    """On return the names in a directory have survived a power cut. Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_directory(path: Path, mode: int = 0o777) -> None:
    """The directory and those above it, where they are not there yet, on disk when this returns. Raises OSError.

    ``mode``: of the directory itself.
    """
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(mode, exist_ok=True)
    try:
        sync_directory(path.parent)
    except PermissionError:
        return  # above it lies a directory that can't be listed, so nor opened to be synced
    except OSError:
        with suppress(OSError):
            path.rmdir()
        raise


def storage_error(error: OSError, what: str) -> StoreError:
    """``what`` could not be done, as ``"The data directory can't be made"``; StorageFull when space is what is missing.

    The path stays out: the sentence may go into a log or an HTTP reply.
    """
    if error.errno in FULL:
        return StorageFull(f"{what}: no space is left. Free some and try again; what was acknowledged before is safe.")
    why = error.strerror or type(error).__name__
    return StoreError(f"{what} ({why}): check its disk, owner and mode.")


@contextmanager
def storing(what: str) -> Iterator[None]:
    """Within it, an OSError becomes a ``storage_error``."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, what) from error
