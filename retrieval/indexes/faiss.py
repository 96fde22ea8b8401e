"""FAISS (https://faiss.ai): a compressed copy nominates, the stored float32 rows decide.

A flat compressed index is exact all the same: how similar somebody left out can be is bounded, and when that is below
the exact similarity of the k-th best, nobody better was left out; else more are nominated. IVF indexes give that only
within the lists they probe, so they are not exhaustive and a generation must prove their recall before it is published;
with a filter all their lists are gone through. With a GPU and the extra for it, both nominate there.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from retrieval.errors import CorruptIndex, UsageError
from retrieval.indexes import scan
from retrieval.indexes.compressed import CODES_FILE, Compressed, Nomination
from retrieval.indexes.rows import Positions, Rows
from retrieval.indexes.stored import Stored
from retrieval.planner import COMPRESSED, Plan, Scan, choose_scan
from retrieval.types import Keys, Similarities, UnitRows

FACTS_FILE = "faiss.json"
DEFAULT = "SQfp16"
_OPTIONS = re.compile(r"(?:IVF(?P<lists>[1-9]\d{0,5}),)?(?P<code>Flat|SQfp16|SQ8)(?:,nprobe=(?P<nprobe>[1-9]\d{0,5}))?")
_TRAIN_PER_LIST = 39  # below that FAISS warns that its clusters mean little
_SPARE = 24  # nominated beyond k at first
_WORTH = 8  # nominating more than one in so many costs more than scoring them all
_TOGETHER = 16  # so many queries are sooner scored against the float32 rows at once than against the codes one by one

Row = npt.NDArray[np.float32]  # one query [dim]


@dataclass(frozen=True, slots=True)
class Factory:
    """What is asked of FAISS. ``lists`` and ``nprobe`` are 0 for a flat index."""

    code: str
    lists: int = 0
    nprobe: int = 0

    @classmethod
    def parse(cls, options: str) -> Self:
        match = _OPTIONS.fullmatch(options or DEFAULT)
        lists = int(match["lists"] or 0) if match else 0
        if not match or (match["nprobe"] and not lists):
            raise UsageError(
                f"Expected FAISS options such as Flat, SQfp16, SQ8 or IVF256,SQfp16,nprobe=16, got '{options}'."
            )
        return cls(match["code"], lists, min(lists, int(match["nprobe"] or max(1, lists // 8))))

    def __str__(self) -> str:
        return f"IVF{self.lists},{self.code},nprobe={self.nprobe}" if self.lists else self.code

    @property
    def description(self) -> str:
        """As ``faiss.index_factory`` wants it."""
        return f"IVF{self.lists},{self.code}" if self.lists else self.code

    @property
    def training_rows(self) -> int:
        """How many rows there must be before it can be trained; until then every row is scored."""
        return max(self.lists * _TRAIN_PER_LIST, 256 if self.code == "SQ8" else 1)


@dataclass(frozen=True, slots=True)
class _State:
    rows: Rows
    codes: Compressed | None


class FaissIndex(Stored):
    """``codes`` is None while there are too few rows to train on: they are then scored exactly."""

    name = "faiss"

    def __init__(self, factory: Factory, rows: Rows, codes: Compressed | None) -> None:
        self._factory = factory
        self._state = _State(rows, codes)
        self._lock = threading.Lock()  # FAISS must not be added to while it searches

    @classmethod
    def create(cls, dim: int, options: str = "") -> Self:
        return cls(Factory.parse(options), Rows.empty(dim), None)

    @classmethod
    def build(cls, directory: Path, batches: Iterable[tuple[Keys, UnitRows]], dim: int, options: str = "") -> Self:
        factory = Factory.parse(options)
        rows = Rows.written(directory, batches, dim)
        index = cls(factory, rows, _encode(factory, rows))
        index._save_codes(directory)
        return index

    @property
    def rows(self) -> Rows:
        return self._state.rows

    @property
    def options(self) -> str:
        return str(self._factory)

    @property
    def exhaustive(self) -> bool:
        return not self._factory.lists or self._state.codes is None or self._factory.nprobe == self._factory.lists

    @property
    def _on_gpu(self) -> bool:
        codes = self._state.codes
        return codes is not None and codes.copy is not None and codes.copy.alive

    def add(self, keys: Keys, vectors: UnitRows) -> None:
        """Encodes all rows anew: an index that grows often belongs in a delta, not here."""
        with self._lock:
            rows = self._state.rows.appended(keys, vectors)
            self._state = _State(rows, _encode(self._factory, rows))

    def plan(self, selected: int | None = None) -> Plan:
        size = len(self)
        scanned = choose_scan(size, selected, COMPRESSED)
        if scanned is Scan.GATHER:
            return Plan("selected-exact", selected or 0, True)
        if self._state.codes is None:
            return Plan("exact", size, True)
        name = f"faiss:{self.options}" + ("@gpu" if self._on_gpu and scanned is Scan.ALL else "")
        if scanned is Scan.MASK or self.exhaustive:
            return Plan(name, size, True)
        return Plan(name, size * self._factory.nprobe // self._factory.lists, False)

    def search(self, queries: UnitRows, k: int, allowed: Keys | None = None) -> tuple[Keys, Similarities]:
        state = self._state
        queries, allowed = scan.check_search(queries, state.rows.dim, k, allowed)
        positions = None if allowed is None else state.rows.positions(allowed)
        chosen = choose_scan(len(state.rows), None if positions is None else len(positions), COMPRESSED)
        on_gpu = self._on_gpu and positions is None
        together = len(queries) >= _TOGETHER and (positions is not None or self.exhaustive) and not on_gpu
        if state.codes is None or chosen is Scan.GATHER or together:
            return scan.search(queries, state.rows, k, positions, gather=chosen is Scan.GATHER)
        return self._search_codes(queries, state.rows, state.codes, k, positions)

    def _search_codes(
        self, queries: UnitRows, rows: Rows, codes: Compressed, k: int, positions: Positions | None
    ) -> tuple[Keys, Similarities]:
        proven = positions is not None or self.exhaustive
        wanted = k + _SPARE if proven else 2 * k + _SPARE
        nprobe = self._factory.lists if proven else self._factory.nprobe
        if proven and wanted * _WORTH > (len(rows) if positions is None else len(positions)):
            return scan.search(queries, rows, k, positions, gather=False)
        keys, sims = scan.no_answers(len(queries), k)
        for i, first in enumerate(codes.nominate(queries, wanted, positions, nprobe)):
            if not proven and len(first.positions) >= min(k, len(rows)):
                keys[i], sims[i] = scan.rank(queries[i], rows, first.positions, k)
            else:
                keys[i], sims[i] = self._search_proven(queries[i], rows, codes, k, positions, first if proven else None)
        return keys, sims

    def _search_proven(
        self,
        query: Row,
        rows: Rows,
        codes: Compressed,
        k: int,
        positions: Positions | None,
        first: Nomination | None,
    ) -> tuple[Keys, Similarities]:
        """Exact, by the argument at the top of this file. ``first``: those nominated already, of all lists."""
        available = len(rows) if positions is None else len(positions)
        wanted = k + _SPARE
        while wanted * _WORTH <= available:
            nominees, bound = first or codes.nominate(query[None, :], wanted, positions, self._factory.lists)[0]
            keys, sims = scan.rank(query, rows, nominees, k)
            if bound < sims[k - 1]:
                return keys, sims
            first, wanted = None, wanted * 4
        every_key, every_sim = scan.search(query[None, :], rows, k, positions, gather=False)
        return every_key[0], every_sim[0]

    def save(self, directory: Path) -> None:
        self._state.rows.save(directory)
        self._save_codes(directory)

    def _save_codes(self, directory: Path) -> None:
        codes = self._state.codes
        facts = {"options": self.options, "error": codes.error if codes else None}
        (directory / FACTS_FILE).write_text(json.dumps(facts) + "\n")
        if codes is not None:
            codes.save(directory)

    @classmethod
    def open(cls, directory: Path) -> Self:
        rows = Rows.open(directory)
        try:
            facts = json.loads((directory / FACTS_FILE).read_text())
            factory = Factory.parse(facts["options"])
            codes = None if facts["error"] is None else Compressed.open(directory, rows, float(facts["error"]))
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, UsageError) as error:
            raise CorruptIndex(
                f"The FAISS files {FACTS_FILE} and {CODES_FILE} can't be read: rebuild the index."
            ) from error
        return cls(factory, rows, codes)


def _encode(factory: Factory, rows: Rows) -> Compressed | None:
    """None when there are too few to train on."""
    if len(rows) < factory.training_rows:
        return None
    return Compressed.of(rows, factory.description, factory.training_rows)
