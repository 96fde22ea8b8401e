"""The ``VectorIndex`` over a collection: the server nominates, the stored float32 rows decide.

The server sums in float32. By the bound on such sums no similarity it states to a unit query is off by more than
``scan.rounding_slack``, so when its worst nominee is that much below the exact similarity of the k-th best, nobody
better was left out; else more are nominated, and in the end every row that may be returned is fetched and scored. That
holds where the server goes through all rows that pass: always under Flat, and under IVF when all lists are probed, as
they are with a filter. An IVF search without a filter is approximate, and a generation must prove its recall.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from retrieval.errors import CorruptIndex, PrecedentError, StoreError, UsageError
from retrieval.indexes import scan
from retrieval.indexes.milvus.collection import LIMIT, Collection
from retrieval.indexes.milvus.facts import FACTS_FILE, CollectionFacts, new_name
from retrieval.indexes.milvus.filters import expressions
from retrieval.indexes.milvus.target import Target
from retrieval.indexes.rows import KEYS_FILE, Rows, check_batch, check_keys, check_unit_rows
from retrieval.planner import Plan
from retrieval.types import Keys, Similarities, UnitRows

# Measured on a 2.3.5 server, dim 256: fetching and scoring 100 rows costs 6 ms, 1,000 cost 42 ms; a search under as
# many literal keys 3 and 7 ms, and 6 ms to fetch its nominees.
GATHER_BELOW = 200
_SPARE = 24  # nominated beyond k at first
_ANSWERS = 1 << 17  # nominees of one message
_BLOCK = 4096  # rows fetched and scored at once


@dataclass(frozen=True, slots=True)
class _State:
    """``keys`` ascend. ``collection``: None before the first row. ``draft``: nothing on disk names the collection."""

    keys: Keys
    collection: Collection | None
    draft: bool = False


class MilvusIndex:
    """Made to be built and opened. What is added to one goes into a collection of its own until it is saved."""

    name = "milvus"

    def __init__(self, target: Target, dim: int, state: _State) -> None:
        self._target = target
        self._dim = dim
        self._state = state
        self._adding = threading.Lock()
        self._abandon: weakref.finalize[..., MilvusIndex] | None = None

    @classmethod
    def create(cls, dim: int, options: str = "") -> Self:
        """Nothing is asked of the server before the first row."""
        return cls(Target.parse(options), dim, _State(np.empty(0, np.int64), None))

    @classmethod
    def build(cls, directory: Path, batches: Iterable[tuple[Keys, UnitRows]], dim: int, options: str = "") -> Self:
        facts = CollectionFacts.new(Target.parse(options), dim, directory)
        facts.write(directory)  # before there is a collection: if this process dies, the file says what to drop
        collection = Collection.make(facts.target, facts.collection, dim)
        try:
            keys, last = [np.empty(0, np.int64)], 0
            for batch in batches:
                checked, rows = check_batch(*batch, dim, last)
                collection.upsert(checked, rows)
                keys.append(checked)
                last = int(checked[-1]) if len(checked) else last
            stored = np.concatenate(keys)
            collection.seal(len(stored))
        except BaseException:
            _drop_quietly(collection)
            raise
        np.save(directory / KEYS_FILE, stored)
        return cls(facts.target, dim, _State(stored, collection))

    @property
    def dim(self) -> int:
        return self._dim

    @property
    def options(self) -> str:
        return str(self._target)

    @property
    def exhaustive(self) -> bool:
        return self._target.exhaustive

    def __len__(self) -> int:
        return len(self._state.keys)

    def keys(self) -> Keys:
        return self._state.keys

    def vectors(self, keys: Keys) -> UnitRows:
        state = self._state
        wanted, order = np.unique(np.asarray(keys, np.int64), return_inverse=True)
        unknown = wanted[~np.isin(wanted, state.keys)]
        if len(unknown):
            raise UsageError(f"Key {unknown[0]} is not in the index.")
        return self._fetch(state, wanted).vectors[order]

    def add(self, keys: Keys, vectors: UnitRows) -> None:
        """An index that grows often belongs in a delta: one that is saved is copied to a new collection first."""
        vectors = check_unit_rows(vectors, self._dim)
        keys = check_keys(keys, len(vectors))
        with self._adding:
            state = self._state
            present = np.intersect1d(keys, state.keys)
            if len(present):
                raise UsageError(f"Key {present[0]} is in the index already: keys are never reused.")
            if len(keys):
                collection = self._draft(state)
                collection.upsert(keys, vectors)
                collection.settle(len(state.keys) + len(keys))
                self._state = _State(np.union1d(state.keys, keys), collection, draft=True)

    def _draft(self, state: _State) -> Collection:
        """The collection to add to: its own already, or a new one with the rows so far."""
        if state.collection is not None and state.draft:
            return state.collection
        draft = Collection.make(self._target, new_name(), self._dim)
        self._abandon = weakref.finalize(self, _drop_quietly, draft)
        self._abandon.atexit = False  # by then a server in this process has stopped, and would be waited for
        for start in range(0, len(state.keys), _BLOCK):
            rows = self._fetch(state, state.keys[start : start + _BLOCK])
            draft.upsert(rows.keys, rows.vectors)
        return draft

    def plan(self, selected: int | None = None) -> Plan:
        size = len(self)
        if selected is not None and selected <= GATHER_BELOW:
            return Plan("selected-exact", selected, True)
        name = f"milvus:{self._target.plan}"
        if selected is not None or self.exhaustive:
            return Plan(name, size if selected is None else selected, True)
        return Plan(name, size * self._target.nprobe // self._target.lists, False)

    def search(self, queries: UnitRows, k: int, allowed: Keys | None = None) -> tuple[Keys, Similarities]:
        state = self._state
        queries, allowed = scan.check_search(queries, self._dim, k, allowed)
        selected = state.keys if allowed is None else np.intersect1d(allowed, state.keys, assume_unique=True)
        keys, sims = scan.no_answers(len(queries), k)
        if not len(selected) or not len(queries):
            return keys, sims
        if allowed is not None and len(selected) <= GATHER_BELOW:
            return scan.search(queries, self._fetch(state, selected), k)
        pushed, asked = expressions(state.keys, selected), np.arange(len(queries))
        for everything in (False, True) if allowed is None and not self.exhaustive else (True,):
            wanted = (k if everything else 2 * k) + _SPARE
            while len(asked) and wanted < min(len(selected), LIMIT):
                found = self._search(state, queries[asked], k, wanted, pushed, everything)
                good = np.array([answer is not None for answer in found])
                for i, answer in zip(asked[good], (each for each in found if each is not None), strict=True):
                    keys[i], sims[i] = answer
                asked, wanted = asked[~good], wanted * 4 if everything else LIMIT  # more of a few lists is no more
        if len(asked):
            keys[asked], sims[asked] = self._scan(state, queries[asked], k, selected)
        return keys, sims

    def _search(
        self, state: _State, queries: UnitRows, k: int, wanted: int, pushed: tuple[str, ...], everything: bool
    ) -> list[tuple[Keys, Similarities] | None]:
        """The k best of ``wanted`` nominees for each query; None where they are fewer, or may not be the best.

        ``everything``: they must be the best of all, see above; else they are what the nearest lists have.
        """
        answers: list[tuple[Keys, Similarities] | None] = []
        step = max(1, _ANSWERS // wanted)
        for start in range(0, len(queries), step):
            group = queries[start : start + step]
            nominees = _collection(state).nominate(group, wanted, pushed, everything=everything)
            rows = self._fetch(state, np.unique(np.concatenate([keys for keys, _ in nominees])))
            for query, (keys, stated) in zip(group, nominees, strict=True):
                best = scan.rank(query, rows, rows.positions(np.sort(keys)), k)
                if everything:
                    good = len(keys) == wanted and stated[-1] + scan.rounding_slack(self._dim) < best[1][k - 1]
                else:
                    good = len(keys) >= k
                answers.append(best if good else None)
        return answers

    def _scan(self, state: _State, queries: UnitRows, k: int, selected: Keys) -> tuple[Keys, Similarities]:
        """Every selected row is fetched and scored."""
        best = scan.no_answers(len(queries), k)
        for start in range(0, len(selected), _BLOCK):
            rows = self._fetch(state, selected[start : start + _BLOCK])
            best = scan.merge([best, scan.search(queries, rows, k)], k)
        return best

    def _fetch(self, state: _State, keys: Keys) -> Rows:
        """Rows of these ascending, unique keys, all of which are here."""
        if not len(keys):
            return Rows.empty(self._dim)
        return Rows(keys, _collection(state).rows(keys, self._dim))

    def save(self, directory: Path) -> None:
        """A draft becomes the collection of that directory; rows that another directory names are copied."""
        facts = CollectionFacts.new(self._target, self._dim, directory)
        with self._adding:
            collection = self._draft(self._state)
            collection.seal(len(self._state.keys))
            if self._abandon is not None:
                self._abandon.detach()
            self._state = _State(self._state.keys, collection)
        CollectionFacts(facts.options, collection.name, facts.dim, facts.owner, facts.alias).write(directory)
        np.save(directory / KEYS_FILE, self._state.keys)

    @classmethod
    def open(cls, directory: Path) -> Self:
        """StoreError when the server is gone; CorruptIndex when it does not have what the files say."""
        facts, keys = CollectionFacts.read(directory), _read_keys(directory)
        collection = Collection.named(facts.target, facts.collection)
        found = collection.dim()
        if found != facts.dim:
            raise CorruptIndex(
                f"Expected dim {facts.dim} in Milvus collection {facts.collection}, got {found}: rebuild the index."
            )
        collection.load()
        counted = collection.count()
        if counted != len(keys):
            raise CorruptIndex(
                f"Expected {len(keys)} vectors in Milvus collection {facts.collection}, the server counts {counted}: "
                "rebuild the index."
            )
        return cls(facts.target, facts.dim, _State(keys, collection))


def _collection(state: _State) -> Collection:
    if state.collection is None:
        raise StoreError("Expected a Milvus collection behind these keys, got none: rebuild the index.")
    return state.collection


def _drop_quietly(collection: Collection) -> None:
    with contextlib.suppress(PrecedentError):
        collection.drop()


def _read_keys(directory: Path) -> Keys:
    try:
        keys = np.load(directory / KEYS_FILE, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise CorruptIndex(f"The index file {KEYS_FILE} can't be read: rebuild the index.") from error
    if keys.dtype != np.int64 or keys.ndim != 1 or (np.diff(keys) <= 0).any():
        raise CorruptIndex(
            f"Expected ascending int64 keys in {KEYS_FILE} beside {FACTS_FILE}, got {keys.dtype} {list(keys.shape)}: "
            "rebuild the index."
        )
    return np.asarray(keys, np.int64)
