"""What indexes keep outside their directory. The vectors of most are in their files, and nothing is to be done.

Which generation is live is decided in SQL before any of this: a server that is gone costs nobody the new index, so it
is only logged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from retrieval.errors import CorruptIndex, PrecedentError


def _milvus() -> ModuleType:
    from retrieval.indexes.milvus import lifecycle

    return lifecycle


_KEEPERS: dict[str, Callable[[], ModuleType]] = {"milvus.json": _milvus}  # by the file that tells their directories

_log = logging.getLogger(__name__)


def promote(directory: Path) -> None:
    """The index of this directory is live now: let names outside follow."""
    try:
        for keeper in _keepers(directory):
            keeper.promote(directory)
    except PrecedentError as error:
        _log.warning("%s is live, but names outside still point elsewhere. %s", directory.name, error)


def discard(directory: Path) -> bool:
    """Release what the index of this directory has outside. False when that must be tried again later."""
    try:
        for keeper in _keepers(directory):
            keeper.discard(directory)
    except CorruptIndex as error:
        _log.warning("What a forgotten index had outside its directory can't be told any more. %s", error)
    except PrecedentError as error:
        _log.warning("What a forgotten index has outside its directory will be dropped at the next rebuild. %s", error)
        return False
    return True


def _keepers(directory: Path) -> list[ModuleType]:
    return [load() for file, load in _KEEPERS.items() if (directory / file).is_file()]
