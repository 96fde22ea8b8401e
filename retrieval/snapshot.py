"""One state of the gallery's vectors: a generation, the exact delta of what came since, and what is deleted of both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrieval.heads import Heads
from retrieval.indexes import scan
from retrieval.indexes.base import VectorIndex
from retrieval.indexes.exact import ExactIndex
from retrieval.indexes.rows import Rows
from retrieval.planner import OVERFETCH, OVERFETCH_SELECTED, Plan, combine
from retrieval.space import Space
from retrieval.types import Keys, Similarities, UnitRows

NO_KEYS: Keys = np.empty(0, np.int64)
SCORED = 8192  # vectors copied together when everything is scored


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One state of the gallery's vectors; never changes. ``base``: the generation's index, or None.

    ``space``: where base and delta lie and queries must be placed. It belongs to ``heads.generation``, also when that
    is damaged and all vectors are in the delta.

    ``base_dead`` and ``delta_dead``: deleted keys that are still in there, sorted. ``tombstone``: the last one applied.
    ``stamp``: of the generation's files, from before they were checked.
    """

    heads: Heads
    base: VectorIndex | None
    delta: ExactIndex
    base_dead: Keys
    delta_dead: Keys
    tombstone: int
    space: Space
    damaged: str = ""
    stamp: tuple[tuple[str, int, int, int], ...] = ()

    def __len__(self) -> int:
        base = 0 if self.base is None else len(self.base) - len(self.base_dead)
        return base + len(self.delta) - len(self.delta_dead)

    @property
    def generation(self) -> str:
        """The live generation's name; "" when there is none or it is damaged."""
        return "" if self.base is None else self.heads.generation

    def search(
        self, queries: UnitRows, k: int, allowed: Keys | None = None, excluded: Keys = NO_KEYS
    ) -> tuple[Keys, Similarities, Plan]:
        """Keys int64 [q, k], similarities float32 [q, k], best first, ties by key, padded with -1 and -inf; the plan.

        ``allowed``: only these keys (sorted, unique); ``excluded``: none of these. Both cost no recall.
        """
        excluded = np.unique(np.asarray(excluded, dtype=np.int64))
        parts = self._parts()
        answers = [part.search(queries, k, allowed, excluded) for part in parts]
        keys, sims = scan.merge([(found, scores) for found, scores, _ in answers], k)
        plans = [plan if len(part.index) else None for part, (_, _, plan) in zip(parts, answers, strict=True)]
        return keys, sims, combine(plans[0], plans[-1] if len(plans) > 1 else None)

    def keys(self) -> Keys:
        """Of all that can be found, ascending. One that generation and delta both hold would be there twice."""
        return np.sort(np.concatenate([np.setdiff1d(part.index.keys(), part.dead) for part in self._parts()]))

    def _parts(self) -> list[_Part]:
        delta = _Part(self.delta, self.delta_dead)
        return [delta] if self.base is None else [_Part(self.base, self.base_dead), delta]

    def score(
        self, queries: UnitRows, allowed: Keys | None = None, excluded: Keys = NO_KEYS
    ) -> tuple[Keys, Similarities]:
        """Everything that may be returned, ascending int64 [n], with its exact similarities, float32 [q, n].

        Reads every such vector once, whatever the index; ``allowed`` and ``excluded`` as in ``search``.
        """
        parts = self._parts()
        scored = [part.score(queries, allowed, excluded) for part in parts]
        keys = np.concatenate([found for found, _ in scored])
        order = np.argsort(keys)
        return keys[order], np.concatenate([sims for _, sims in scored], axis=1)[:, order]


@dataclass(frozen=True, slots=True)
class _Part:
    """One index of a snapshot with the deleted keys that it still holds."""

    index: VectorIndex
    dead: Keys

    def score(self, queries: UnitRows, allowed: Keys | None, excluded: Keys) -> tuple[Keys, Similarities]:
        keys = self.index.keys()
        if allowed is not None:
            keys = keys[_member(keys, np.unique(allowed))]
        keys = keys[~_member(keys, _union(self.dead, np.unique(excluded)))]
        sims = np.empty((len(queries), len(keys)), np.float32)
        for start in range(0, len(keys), SCORED):
            block = slice(start, start + SCORED)
            rows = self.index.vectors(keys[block])
            for n, query in enumerate(queries):
                sims[n, block] = scan.similarities(query, rows)
        return keys, sims

    def search(
        self, queries: UnitRows, k: int, allowed: Keys | None, excluded: Keys
    ) -> tuple[Keys, Similarities, Plan]:
        dropped = _union(self.dead, excluded)
        if allowed is None and len(dropped) > OVERFETCH:
            allowed = self.index.keys()
        if allowed is not None:
            # Who is excluded differs from query to query, and the index may know the others from the last one.
            allowed = _without(_within(allowed, self.index.keys()), self.dead)
            dropped = excluded[_member(excluded, allowed)]
            if len(dropped) > OVERFETCH_SELECTED:
                allowed, dropped = _without(allowed, dropped), NO_KEYS
        keys, sims = self.index.search(queries, k + len(dropped), allowed)
        if len(dropped):
            keys, sims = _drop(keys, sims, dropped)
        return keys[:, :k], sims[:, :k], self.index.plan(None if allowed is None else len(allowed) - len(dropped))


def before_any(space: Space) -> Snapshot:
    """The state before there is a vector."""
    return Snapshot(Heads(), None, ExactIndex(Rows.empty(space.dim)), NO_KEYS, NO_KEYS, 0, space)


def present(index: VectorIndex, already: Keys, dead: Keys) -> Keys:
    """``already`` and those of ``dead`` that the index holds, sorted."""
    if not len(dead):
        return already
    return _union(already, np.unique(dead[_member(dead, index.keys())]))


def _union(one: Keys, other: Keys) -> Keys:
    if not len(other):
        return one
    return np.union1d(one, other) if len(one) else other


def _within(keys: Keys, of: Keys) -> Keys:
    """Those of ``keys`` that lie where ``of`` does; both sorted. An index knows best which of them it holds."""
    if not len(of):
        return NO_KEYS
    return keys[np.searchsorted(keys, of[0]) : np.searchsorted(keys, of[-1], side="right")]


def _without(keys: Keys, dropped: Keys) -> Keys:
    """``keys`` less ``dropped``, both sorted and unique."""
    at = np.searchsorted(keys, dropped)
    return np.delete(keys, at[_member(dropped, keys)]) if len(dropped) else keys


def _member(keys: Keys, of: Keys) -> npt.NDArray[np.bool_]:
    """For each key whether it is in ``of`` (sorted)."""
    if not len(of):
        return np.zeros(len(keys), bool)
    found: npt.NDArray[np.bool_] = of[np.minimum(np.searchsorted(of, keys), len(of) - 1)] == keys
    return found


def _drop(keys: Keys, sims: Similarities, dropped: Keys) -> tuple[Keys, Similarities]:
    """Move what is dropped to the end of its row as padding; the order of the rest stays."""
    gone = _member(keys, dropped)
    keys, sims = np.where(gone, scan.NO_KEY, keys), np.where(gone, np.float32(scan.NO_SIMILARITY), sims)
    order = np.argsort(gone, axis=1, kind="stable")
    return np.take_along_axis(keys, order, axis=1), np.take_along_axis(sims, order, axis=1)
