"""The operating system's errors about the data directory, as sentences of ours."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from retrieval.errors import StorageFull, StoreError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


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
