"""What filters let through, kept while they are asked again and again.

Most searches with a filter are among the same few selections: one modality, one part of the body. The codes of those
who pass are then taken together, and going through them costs in proportion to how many they are. Codes that lie apart
are gone through whole, whoever passes.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np

from retrieval.indexes.choice import SCOPED
from retrieval.indexes.codes import Codes
from retrieval.indexes.rows import Passing, Rows
from retrieval.types import Keys

LEAST = 2  # questions among the same rows, before their codes are taken together: it takes as long as several


@dataclass(frozen=True, slots=True)
class Scope:
    """Who may be returned; ``codes``: theirs alone, where they were taken together."""

    passing: Passing
    codes: Codes | None = None


@dataclass(slots=True)
class _Kept:
    keys: Keys
    scope: Scope
    asked: int = 0
    taking: bool = False


class Scopes:
    """Of rows that do not change. The selection that was asked for longest ago goes first. For several threads."""

    def __init__(self, rows: Rows, whole: Codes) -> None:
        self._rows = rows
        self._whole = whole
        self._room = int(SCOPED * len(rows))
        self._kept: list[_Kept] = []  # the latest last
        self._lock = threading.Lock()

    def of(self, allowed: Keys, questions: int) -> Scope:
        """``allowed``: sorted and unique."""
        with self._lock:
            kept = self._found(allowed)
            if kept is None:
                kept = _Kept(allowed.copy(), Scope(self._rows.passing(allowed)))
                self._keep(kept)
            kept.asked += questions
            take = kept.asked >= LEAST and len(allowed) <= self._room and not kept.taking
            kept.taking |= take
        if take:
            kept.scope = Scope(kept.scope.passing, self._whole.of(kept.scope.passing.positions))
        return kept.scope

    def _found(self, allowed: Keys) -> _Kept | None:
        for at in reversed(range(len(self._kept))):
            if np.array_equal(self._kept[at].keys, allowed):
                self._kept.append(self._kept.pop(at))
                return self._kept[-1]
        return None

    def _keep(self, kept: _Kept) -> None:
        if len(kept.keys) > self._room:
            return
        self._kept.append(kept)
        while sum(len(each.keys) for each in self._kept) > self._room:
            self._kept.pop(0)
