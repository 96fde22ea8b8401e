"""Short codes nominate, the stored float32 rows decide: the fastest plan for very many vectors.

How many lists are gone through and how many rows are read is measured at each build, by questions as new pictures would
ask them. With a filter that few pass, their rows are scored. With one that many pass, as many lists are gone through as
it takes to meet enough of them, or, where they lie elsewhere, the codes of all rows.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Self

from retrieval.errors import CorruptIndex, UsageError
from retrieval.indexes import scan
from retrieval.indexes.choice import CODED_FROM
from retrieval.indexes.effort import Effort, measured
from retrieval.indexes.nomination import Nomination
from retrieval.indexes.rows import Rows
from retrieval.indexes.scopes import Scopes
from retrieval.indexes.stored import Stored
from retrieval.indexes.widening import WORTH, search
from retrieval.planner import CODED, Plan, Scan, choose_scan
from retrieval.types import Keys, Similarities, UnitRows

FACTS_FILE = "fastscan.json"
_OPTIONS = re.compile(r"(dims|lists|probes|reach|look|take|wide)=([1-9]\d{0,4})")


@dataclass(frozen=True, slots=True)
class Shape:
    """``dims``: directions that codes keep; ``lists`` into which rows are sorted, of which at most ``probes`` are gone
    through, those within ``reach``, ``look`` nominees looked at more closely, and ``take`` rows then read; ``wide``:
    how many when all codes are gone through (see ``Effort``). 0: to be found by measurement."""

    dims: int = 0
    lists: int = 0
    probes: int = 0
    reach: int = 0
    look: int = 0
    take: int = 0
    wide: int = 0

    @classmethod
    def parse(cls, options: str) -> Self:
        found: dict[str, int] = {}
        for part in filter(None, options.split(",")):
            match = _OPTIONS.fullmatch(part)
            if not match or match[1] in found:
                raise UsageError(
                    f"Expected fastscan options such as dims=256,lists=128,probes=16,take=128, got '{options}'."
                )
            found[match[1]] = int(match[2])
        if found.get("dims", 2) % 2:
            raise UsageError(f"Codes are of pairs of directions: dims must be even, got {found['dims']}.")
        if found.get("probes", 0) > found.get("lists", found.get("probes", 0)):
            raise UsageError(f"Of lists={found['lists']} no probes={found['probes']} can be gone through.")
        return cls(**found)

    def __str__(self) -> str:
        stated = ((name, getattr(self, name)) for name in ("dims", "lists", "probes", "reach", "look", "take", "wide"))
        return ",".join(f"{name}={value}" for name, value in stated if value)

    @property
    def effort(self) -> Effort:
        return Effort(self.probes, self.reach, self.look, self.take, self.wide)


@dataclass(frozen=True, slots=True)
class _State:
    rows: Rows
    nomination: Nomination | None
    shape: Shape
    scopes: Scopes | None = None

    @classmethod
    def of(cls, rows: Rows, nomination: Nomination | None, shape: Shape) -> Self:
        return cls(rows, nomination, shape, Scopes(rows, nomination.whole) if nomination else None)


class FastScanIndex(Stored):
    """``nomination`` is None while there are fewer than ``CODED_FROM`` vectors: they are then scored exactly."""

    name = "fastscan"

    def __init__(self, stated: Shape, state: _State) -> None:
        self._stated = stated
        self._state = state
        self._lock = threading.Lock()

    @classmethod
    def create(cls, dim: int, options: str = "") -> Self:
        shape = Shape.parse(options)
        return cls(shape, _State.of(Rows.empty(dim), None, shape))

    @classmethod
    def build(cls, directory: Path, batches: Iterable[tuple[Keys, UnitRows]], dim: int, options: str = "") -> Self:
        shape = Shape.parse(options)
        index = cls(shape, _coded(Rows.written(directory, batches, dim), shape, directory))
        index._save_nomination(directory)
        return index

    @property
    def rows(self) -> Rows:
        return self._state.rows

    @property
    def options(self) -> str:
        return str(self._state.shape)

    @property
    def exhaustive(self) -> bool:
        return self._state.nomination is None

    def add(self, keys: Keys, vectors: UnitRows) -> None:
        """Codes all rows anew: an index that grows often belongs in a delta, not here."""
        with self._lock:
            self._state = _coded(self._state.rows.appended(keys, vectors), self._stated)

    def plan(self, selected: int | None = None) -> Plan:
        size, state = len(self), self._state
        how = choose_scan(size, selected, CODED)
        if how is Scan.GATHER:
            return Plan("selected-exact", selected or 0, True)
        if state.nomination is None:
            return Plan("exact", size, True)
        name = f"{self.name}:{self.options}"
        if how is Scan.MASK or state.nomination.lists is None:
            return Plan(name, size if selected is None else selected, False)
        return Plan(name, size * state.shape.probes // state.shape.lists, False)

    def search(self, queries: UnitRows, k: int, allowed: Keys | None = None) -> tuple[Keys, Similarities]:
        state = self._state
        rows, nomination = state.rows, state.nomination
        queries, allowed = scan.check_search(queries, rows.dim, k, allowed)
        effort = state.shape.effort.at(k)
        few = allowed is not None and len(allowed) <= CODED.few
        if nomination is None or state.scopes is None or few or effort.wide * WORTH >= len(rows) or not len(queries):
            return scan.search(queries, rows, k, None if allowed is None else rows.positions(allowed))
        scope = None if allowed is None else state.scopes.of(allowed, len(queries))
        return search(queries, rows, k, nomination, effort, scope)

    def save(self, directory: Path) -> None:
        self._state.rows.save(directory)
        self._save_nomination(directory)

    def _save_nomination(self, directory: Path) -> None:
        nomination = self._state.nomination
        facts = {"options": self.options, "coded": nomination is not None}
        (directory / FACTS_FILE).write_text(json.dumps(facts) + "\n")
        if nomination is not None:
            nomination.save(directory)

    @classmethod
    def open(cls, directory: Path) -> Self:
        rows = Rows.open(directory)
        try:
            facts = json.loads((directory / FACTS_FILE).read_text())
            shape = Shape.parse(facts["options"])
            nomination = Nomination.open(directory, rows) if facts["coded"] else None
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, UsageError) as error:
            raise CorruptIndex("The files of the codes can't be read: rebuild the index.") from error
        return cls(shape, _State.of(rows, nomination, shape))


def _coded(rows: Rows, stated: Shape, directory: Path | None = None) -> _State:
    if len(rows) < CODED_FROM:
        return _State.of(rows, None, stated)
    nomination = Nomination.over(rows, min(stated.dims, rows.dim), stated.lists, directory)
    effort = measured(nomination, rows, stated.effort)
    lists = 0 if nomination.lists is None else nomination.lists.lists
    return _State.of(rows, nomination, Shape(nomination.whole.index.d, lists, *astuple(effort)))
