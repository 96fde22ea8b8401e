"""How a query is answered in one state of a gallery: scope, ranking, hits, and whether they are like it at all."""

from __future__ import annotations

from dataclasses import dataclass

from retrieval.background import Background, Placed, RandomPairs
from retrieval.catalog import Catalog
from retrieval.composed import as_one_vector, composition_of, full_ranking, met_by, yardstick_of
from retrieval.encoders.base import Encoder
from retrieval.encoders.text import text_encoder
from retrieval.evidence.closeness import DEPTH
from retrieval.evidence.strangers import Strangers
from retrieval.evidence.usual import Norms
from retrieval.evidence.verdict import verdict_on
from retrieval.filters import Filter
from retrieval.hits import hits_of
from retrieval.prompts import GENERAL
from retrieval.ranking import search_grouped
from retrieval.scope import scope_of
from retrieval.selections import Selections
from retrieval.snapshot import Snapshot
from retrieval.space import placed
from retrieval.types import Fusion, GroupBy, Query, SamePatient, SearchResult, UnitRows

RERANK_CANDIDATES = 100


@dataclass(frozen=True, slots=True)
class Terms:
    """What is asked of a search beside the query, as ``Gallery.search`` describes it."""

    k: int
    filters: Filter | None
    same_patient: SamePatient
    group: GroupBy
    rerank: bool


class Searching:
    """Answers, and what is kept between them: selected keys, random pairs, how close cases usually are."""

    def __init__(self, catalog: Catalog, encoder: Encoder, strangers: Strangers) -> None:
        self._catalog = catalog
        self._encoder = encoder
        self._backgrounds: dict[str, Background] = {}  # by the fingerprint of the space
        self._norms = Norms(strangers)
        self._general: UnitRows | None = None
        self._selections = Selections()

    def warm_up(self, snapshot: Snapshot) -> None:
        """Do now what the first answer would wait for."""
        self._random_pairs(snapshot)
        self._norms.of(self._catalog, snapshot)
        if self._encoder.card.text:
            self._general_sentences()

    def answer(self, snapshot: Snapshot, query: Query, terms: Terms) -> SearchResult:
        """The time it took is not in it."""
        query = placed(query, snapshot.space)
        allowed, excluded = scope_of(
            self._catalog, query, terms.filters, terms.same_patient, snapshot.heads, self._selections
        )
        asked = as_one_vector(query)
        ranking = full_ranking(snapshot, query, allowed, excluded) if query.fusion is Fusion.RRF else None
        found = search_grouped(
            ranking.search if ranking else lambda n: snapshot.search(asked.vector[None, :], n, allowed, excluded),
            lambda keys: self._catalog.groups(keys, terms.group),
            max(terms.k, RERANK_CANDIDATES if terms.rerank else DEPTH),
        )
        pairs = self._random_pairs(snapshot, query.text_weight)
        met = met_by(snapshot, query, found.keys, ranking)
        hits = hits_of(self._catalog, query, asked, found, terms.k, pairs, snapshot.space, met=met, rerank=terms.rerank)
        verdict = verdict_on(self._catalog, snapshot, self._norms, query, found, hits, pairs, terms.group)
        return SearchResult(
            hits=hits,
            encoder=self._encoder.card.name,
            fingerprint=snapshot.space.fingerprint,
            generation=snapshot.generation,
            gallery_size=len(snapshot),
            plan=found.plan.name,
            candidates=found.plan.candidates,
            exhaustive=found.plan.exhaustive,
            no_confident_match=bool(verdict.reasons),
            took_ms=0.0,
            yardstick=yardstick_of(query),
            composition=composition_of(query),
            reasons=verdict.reasons,
            cautions=verdict.cautions,
            p_value=verdict.p_value,
        )

    def _general_sentences(self) -> UnitRows:
        if self._general is None:
            self._general = text_encoder(self._encoder).encode_text(GENERAL)
        return self._general

    def _random_pairs(self, snapshot: Snapshot, text_weight: float = 0.0) -> RandomPairs:
        space = snapshot.space
        background = self._backgrounds.setdefault(space.fingerprint, Background())
        return background.of(Placed(self._catalog, space), len(snapshot), text_weight, self._general_sentences)
