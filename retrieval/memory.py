"""How much memory this process may still take, so that what would not fit is refused before it is begun.

A library that gets no memory may end the process (OpenBLAS) or crash it; Linux kills a process that goes past the limit
of its container without a word. So it is told beforehand, in a sentence.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from retrieval.errors import OutOfMemory

_UNLIMITED = 1 << 60  # what the kernel shows where nothing is limited is larger
_LIMITS = (("RLIMIT_DATA", "VmData"), ("RLIMIT_AS", "VmSize"))


def check_memory(needed: int, what: str) -> None:
    """OutOfMemory unless there are ``needed`` bytes for ``what``, as "An index of 5 vectors"."""
    available = available_bytes()
    if needed > available:
        raise OutOfMemory(
            f"{what} needs about {needed / 2**20:,.0f} MB of memory, {available / 2**20:,.0f} MB are left to this "
            "process: give it more, or choose an index that takes less, such as exact."
        )


@contextmanager
def telling_of_memory(what: str) -> Iterator[None]:
    """Within it, a MemoryError becomes an OutOfMemory: ``what``, as "The index can't be built"."""
    try:
        yield
    except MemoryError as error:
        raise OutOfMemory(f"{what}: there is not enough memory. Give this process more, then try again.") from error


def available_bytes() -> int:
    """The least that the limits of this process, its container and the machine leave; huge where none is known."""
    return max(0, min(_UNLIMITED, *(read() for read in (_of_process, _of_container, _of_machine))))


def _of_process() -> int:
    if sys.platform == "win32":
        return _UNLIMITED
    import resource

    held = _figures(Path("/proc/self/status"))
    left = [_UNLIMITED]
    for limit, name in _LIMITS:
        most = resource.getrlimit(getattr(resource, limit))[0]
        if most != resource.RLIM_INFINITY:
            left.append(most - held.get(name, 0))
    return min(left)


def _of_container() -> int:
    """Of a cgroup of version 2 or 1. Pages of files that are only cached are given back, so they count as free."""
    for folder, most, used, cached in (
        (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit, usage = (_number(folder / name) for name in (most, used))
        if limit is not None and usage is not None and limit < _UNLIMITED:
            return limit - usage + _statistics(folder / "memory.stat").get(cached, 0)
    return _UNLIMITED


def _of_machine() -> int:
    return _figures(Path("/proc/meminfo")).get("MemAvailable", _UNLIMITED)


def _figures(path: Path) -> dict[str, int]:
    """Lines such as ``MemFree:  12 kB``, in bytes."""
    return _lines(path, lambda line: (line[0].rstrip(":"), int(line[1]) * 1024) if line[-1] == "kB" else None)


def _statistics(path: Path) -> dict[str, int]:
    """Lines such as ``inactive_file 12``."""
    return _lines(path, lambda line: (line[0], int(line[1])))


def _lines(path: Path, parse: Callable[[list[str]], tuple[str, int] | None]) -> dict[str, int]:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    return dict(found for line in lines if line and (found := parse(line.split())))


def _number(path: Path) -> int | None:
    """None where there is no such file, or it says that nothing is limited."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
