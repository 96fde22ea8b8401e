"""An image and a sentence asked together, over a snapshot of the gallery's vectors."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from retrieval.errors import UsageError
from retrieval.fusion import Fused, compose, reciprocal_rank
from retrieval.planner import Plan
from retrieval.snapshot import Snapshot
from retrieval.types import Composition, Embedding, Fusion, HitParts, Keys, Query, Yardstick

RANKS_PLAN = "exact-ranks"


def composition_of(query: Query) -> Composition | None:
    """How a query was put together; None when it is an image or a sentence alone."""
    return None if query.text is None else Composition(query.fusion, query.text_weight)


def yardstick_of(query: Query) -> Yardstick:
    """Which random pairs the query's similarities are compared with."""
    if query.text_weight == 0.0:
        return Yardstick.CASES
    return Yardstick.SENTENCES if query.text_weight == 1.0 else Yardstick.COMPOSED


def as_one_vector(query: Query) -> Embedding:
    """What similarities are to: the query's embedding, the sentence added to it and to each of its slices if any."""
    if query.text is None:
        return query.embedding
    own, weight = query.embedding, query.text_weight
    vector = compose(own.vector[None, :], query.text, weight)[0]
    return replace(own, vector=vector, slices=compose(own.slices, query.text, weight))


@dataclass(frozen=True, slots=True)
class FullRanking:
    """Everything that may be returned, in the order of reciprocal rank."""

    fused: Fused

    def search(self, n: int) -> tuple[Keys, npt.NDArray[np.float64], Plan]:
        """The n best, as ``ranking.search_grouped`` asks for them."""
        return self.fused.keys[:n], self.fused.scores[:n], Plan(RANKS_PLAN, len(self.fused.keys), True)

    def placed(self, parts: HitParts, key: int) -> HitParts:
        """With the places and the score of a key that is ranked."""
        at, fused = int(np.flatnonzero(self.fused.keys == key)[0]), self.fused
        return replace(
            parts,
            image_rank=int(fused.image_ranks[at]),
            text_rank=int(fused.text_ranks[at]),
            score=float(fused.scores[at]),
        )


def full_ranking(snapshot: Snapshot, query: Query, allowed: Keys | None, excluded: Keys) -> FullRanking:
    """Both rankings over every candidate, none cut short, joined by reciprocal rank."""
    keys, sims = snapshot.score(_parts(query), allowed, excluded)
    return FullRanking(reciprocal_rank(keys, sims[0], sims[1], query.text_weight))


@dataclass(frozen=True, slots=True)
class Met:
    """How one case meets a composed query. ``similarity``: to its parts as one vector."""

    similarity: float
    parts: HitParts


def met_by(snapshot: Snapshot, query: Query, keys: Keys, ranking: FullRanking | None) -> dict[int, Met]:
    """How each of the keys meets the query and its parts."""
    if query.text is None or not len(keys):
        return {}
    asked = np.concatenate([_parts(query), as_one_vector(query).vector[None, :]])
    found, sims = snapshot.score(asked, np.sort(keys))
    parts = [HitParts(float(image), float(text)) for image, text in sims[:2].T]
    if ranking is not None:
        parts = [ranking.placed(part, key) for part, key in zip(parts, found.tolist(), strict=True)]
    return {key: Met(float(sims[2, n]), parts[n]) for n, key in enumerate(found.tolist())}


def _parts(query: Query) -> npt.NDArray[np.float32]:
    """The image's and the sentence's vector, [2, dim]."""
    if query.text is None:
        raise UsageError("Expected a query of an image and a sentence, got one of them alone.")
    return np.stack([query.embedding.vector, query.text])


def check_rerank(query: Query, *, rerank: bool) -> None:
    """UsageError for what would undo the order it asks for."""
    if rerank and query.text is not None and query.fusion is Fusion.RRF:
        raise UsageError("Reordering slice by slice would undo reciprocal-rank fusion: use fusion=sum, or no rerank.")
