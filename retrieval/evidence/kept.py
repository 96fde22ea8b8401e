"""What is worked out from a whole gallery and kept until the gallery has changed enough to do it again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from retrieval.heads import Heads

T = TypeVar("T")

MOST_HELD = 64  # results; those asked for longest ago go first
CHANGED = 0.1  # share of the gallery that was added, deleted or edited since: what is older is worked out anew


@dataclass(frozen=True, slots=True)
class _Held:
    result: Any
    heads: Heads
    size: int


class Kept:
    """Results by key, each of a state of the gallery. For several threads; one result is worked out at a time.

    A key names all that a result depends on beside the gallery's cases: the question, and the fingerprint of the space.
    """

    def __init__(self, most: int = MOST_HELD) -> None:
        self._most = most
        self._held: OrderedDict[Hashable, _Held] = OrderedDict()
        self._lock = threading.Lock()
        self._working = threading.Lock()

    def of(self, key: Hashable, heads: Heads, size: int, work_out: Callable[[], T]) -> T:
        """The result for ``key``, worked out when there is none or the gallery (``size`` cases) is too different now.

        Whoever asks while it is being worked out waits for it. What ``work_out`` raises is raised, and not kept.
        """
        if (held := self._found(key, heads, size)) is None:
            with self._working:
                if (held := self._found(key, heads, size)) is None:
                    held = _Held(work_out(), heads, size)
                    self._keep(key, held)
        return cast(T, held.result)

    def _found(self, key: Hashable, heads: Heads, size: int) -> _Held | None:
        with self._lock:
            held = self._held.get(key)
            if held is None or _changes(held.heads, heads) > CHANGED * max(min(size, held.size), 1):
                return None
            self._held.move_to_end(key)
            return held

    def _keep(self, key: Hashable, held: _Held) -> None:
        with self._lock:
            self._held[key] = held
            self._held.move_to_end(key)
            while len(self._held) > self._most:
                self._held.popitem(last=False)


def _changes(then: Heads, now: Heads) -> int:
    """How many cases were added, deleted or edited, one way or the other: a process may be asked of an older state."""
    return (
        abs(now.last_key - then.last_key)
        + abs(now.last_tombstone - then.last_tombstone)
        + abs(now.last_edit - then.last_edit)
    )
