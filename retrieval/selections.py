"""What filters select, kept for as long as the catalog stays as it is.

Reading the keys of half a large gallery from SQL takes far longer than searching among them; the same few filters are
asked again and again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from retrieval.filters import Filter
from retrieval.heads import Heads
from retrieval.types import Keys

HELD_BYTES = 64 << 20  # eight million keys

Read = Callable[[Filter], Keys]


@dataclass(frozen=True, slots=True)
class _State:
    """Of the catalog: where these are the same, every filter selects the same."""

    last_key: int
    last_tombstone: int
    last_edit: int


class Selections:
    """Keys by filter, of the newest state seen; those asked for longest ago go first. For several threads."""

    def __init__(self, held_bytes: int = HELD_BYTES) -> None:
        self._room = held_bytes
        self._held: OrderedDict[Filter, Keys] = OrderedDict()
        self._bytes = 0
        self._state = _State(0, 0, 0)
        self._lock = threading.Lock()

    def of(self, condition: Filter, heads: Heads, read: Read) -> Keys:
        """Sorted keys of the cases that pass, not to be written to. ``read`` reads the state that ``heads`` tells."""
        state = _State(heads.last_key, heads.last_tombstone, heads.last_edit)
        with self._lock:
            if state == self._state and condition in self._held:
                self._held.move_to_end(condition)
                return self._held[condition]
        keys = read(condition)
        keys.setflags(write=False)  # others will be given the same
        with self._lock:
            self._keep(condition, keys, state)
        return keys

    def _keep(self, condition: Filter, keys: Keys, state: _State) -> None:
        if state != self._state:
            self._held.clear()
            self._bytes, self._state = 0, state
        if condition in self._held or keys.nbytes > self._room:
            return
        self._held[condition] = keys
        self._bytes += keys.nbytes
        while self._bytes > self._room:
            self._bytes -= self._held.popitem(last=False)[1].nbytes
