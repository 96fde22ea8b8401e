"""One encoder, one catalog, one live index, kept in step. Everything a caller needs passes through here."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from retrieval.catalog import Binding, Catalog, Outcome
from retrieval.composed import check_rerank
from retrieval.encoders import open_encoder
from retrieval.encoders.base import Encoder
from retrieval.encoders.bound import binding_of, bound_pooling, mending, new_pooling, open_bound
from retrieval.encoders.paths.prepare import follow_choice
from retrieval.encoders.pooling import Pooling, choose_slices, gallery_fingerprint, most_frames, pool
from retrieval.encoders.text import text_encoder
from retrieval.errors import FingerprintMismatch, UsageError
from retrieval.evidence.kept import Kept
from retrieval.evidence.novelty import LEAST_PATIENTS
from retrieval.evidence.strangers import Strangers
from retrieval.filters import Filter
from retrieval.fusion import check_weight
from retrieval.live import LiveIndex
from retrieval.privacy import Secret
from retrieval.searching import Searching, Terms
from retrieval.settings import Settings
from retrieval.snapshot import Snapshot
from retrieval.space import Space
from retrieval.storage import make_directory, storing
from retrieval.types import (
    Case,
    EmbeddedCase,
    Embedding,
    Fusion,
    GalleryState,
    GroupBy,
    Image,
    Query,
    SamePatient,
    SearchResult,
)

MAX_K = 1000
TEXT_WEIGHT = 0.5  # share of a sentence beside an image, unless another is stated


class Gallery:
    """Cases that can be asked for their likes. Bound to one encoder for life; safe to use from several threads.

    ``fingerprint`` is that of the stored vectors. Searches happen in the space of the live generation, which an adapter
    may have changed: ``space()`` and the answers state its fingerprint. Embeddings and queries are always as stored.
    """

    def __init__(
        self, settings: Settings, catalog: Catalog, encoder: Encoder, secret: Secret, pooling: Pooling
    ) -> None:
        self.settings = settings
        self.catalog = catalog
        self.encoder = encoder
        self.secret = secret
        self.pooling = pooling
        self.fingerprint = gallery_fingerprint(encoder.card, pooling)
        self._live = LiveIndex(catalog, settings.home, encoder.card.dim, self.fingerprint)
        self.kept = Kept()
        self._strangers = Strangers(settings.home, self.fingerprint, encoder.card.dim)
        self._searching = Searching(catalog, encoder, self._strangers)

    @classmethod
    def open(
        cls, where: Settings | Path | str | None = None, *, create: bool = False, encoder: Encoder | None = None
    ) -> Gallery:
        """Open the gallery of a data directory (default: ``PRECEDENT_HOME`` or ``.precedent``).

        ``create`` makes an empty one when there is none. An existing gallery opens with the encoder it was made
        with; raises FingerprintMismatch when that encoder has changed since, or when the settings state another
        encoder or pooling; StoreError when there is no gallery.
        """
        settings = where if isinstance(where, Settings) else Settings(home=Path(where)) if where else Settings()
        if create:
            with storing("The data directory can't be made"):
                make_directory(settings.home)
        catalog = Catalog.open(settings.url, create=create)
        try:
            with storing("The key file secret.key can't be read or made"):
                secret = Secret.open(settings.home / "secret.key", create=create and catalog.count() == 0)
            bound = catalog.binding()
            if encoder is None:
                encoder = open_bound(bound, settings) if bound else open_encoder(settings.encoder)
            pooling = bound_pooling(bound.pooling, settings) if bound else new_pooling(settings, encoder.card)
            gallery = cls(settings, catalog, encoder, secret, pooling)
            gallery._check_or_bind(bound)
            if settings.precision == "auto":
                follow_choice(encoder, settings.home)
        except BaseException:
            catalog.close()
            raise
        return gallery

    def _check_or_bind(self, bound: Binding | None) -> None:
        if bound is None:
            self.catalog.bind(binding_of(self.encoder.card, self.pooling))
        elif bound.fingerprint != self.fingerprint:
            raise FingerprintMismatch(bound.fingerprint, self.fingerprint, mending(bound, self.settings))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the database. A closed gallery must not be used."""
        self.catalog.close()

    def warm_up(self) -> None:
        """Do now what the first search would wait for: check and open the index, and run the encoder once; and once
        for a gallery what no search waits for (``meet_strangers``)."""
        self.meet_strangers()
        self._searching.warm_up(self._live.refresh())
        if self.encoder.card.encodes and self.encoder.card.volume is None:
            self.encoder.encode([Image(np.full((64, 64), 128, dtype=np.uint8))])

    def meet_strangers(self) -> None:
        """Let the encoder see what a query is to be told apart from, if it has not yet: ``strangers.COUNT`` frames,
        kept in the data directory. Nothing where it takes no single frames, or too few cases are on file to tell.
        """
        card = self.encoder.card
        if card.encodes and card.volume is None and len(self) >= LEAST_PATIENTS:
            self._strangers.meet(
                lambda images: np.stack([pool(row[None, :], self.pooling) for row in self.encoder.encode(images)])
            )

    @property
    def most_frames(self) -> int:
        """How many frames of a case are decoded to embed it: ``max_slices``, or all for an encoder of volumes."""
        return most_frames(self.encoder.card, self.pooling)

    def __len__(self) -> int:
        """Cases on file, those of other processes included."""
        return self.catalog.count()

    # writing

    def add(self, cases: Sequence[EmbeddedCase], *, replace: bool = False) -> list[Outcome]:
        """Commit cases in one durable transaction; what is returned has survived a power cut. Same order as given."""
        return self.catalog.commit(cases, fingerprint=self.fingerprint, replace=replace)

    def delete(self, case_ids: Iterable[str]) -> list[str]:
        """Delete for good; returns the ids that existed. No later search shows them, in any process."""
        return self.catalog.delete(list(case_ids))

    # embedding

    def embed(self, images: Sequence[Image]) -> Embedding:
        """One case's frames, in order, as one embedding: slices chosen, encoded and pooled as the gallery's are."""
        if not images:
            raise UsageError("Nothing to embed: expected at least one frame, got none.")
        chosen = choose_slices(len(images), self.pooling.max_slices)
        rows = self.encoder.encode([images[i] for i in chosen])
        return Embedding(pool(rows, self.pooling), rows, tuple(int(i) for i in chosen))

    def embed_text(self, text: str) -> Embedding:
        """A sentence in the images' space. UsageError when the gallery's encoder has no text tower."""
        rows = text_encoder(self.encoder).encode_text([text])
        return Embedding(rows[0], rows, (0,))

    # asking

    def case(self, case_id: str) -> Case:
        """The case of that id; NotFoundError when there is none."""
        return self.catalog.case(case_id)

    def query_of(self, case_id: str) -> Query:
        """A stored case as a query: nothing is decoded or encoded."""
        return self.filed_query(case_id)[1]

    def filed_query(self, case_id: str) -> tuple[Case, Query]:
        """A stored case, and itself as a query. NotFoundError when there is none."""
        with self.catalog.one_state():
            case = self.catalog.case(case_id)
            key, embedding = self.catalog.embedding(case_id)
        told = case.attributes
        return case, Query(
            embedding,
            case.patient_key,
            key,
            case.frames,
            case.study_uid,
            modality=told.modality,
            body_part=told.body_part,
        )

    def text_query(self, text: str) -> Query:
        """A sentence as a query. UsageError when the gallery's encoder has no text tower."""
        return Query(self.embed_text(text), text_weight=1.0)

    def with_text(self, query: Query, text: str, *, weight: float = TEXT_WEIGHT, fusion: Fusion = Fusion.SUM) -> Query:
        """A query by image with a sentence beside it; patient, study and its own key stay what they are.

        ``weight``: share of the sentence, 0 to 1. ``fusion``: one vector, the weighted sum of the two, or reciprocal
        rank over the full exact rankings by each. UsageError for another weight or an encoder without a text tower.
        """
        check_weight(weight)
        vector = self.embed_text(text).vector
        return replace(query, text=vector, text_weight=weight, fusion=fusion)

    def similar_to(
        self,
        case_id: str,
        *,
        k: int = 10,
        filters: Filter | None = None,
        same_patient: SamePatient = SamePatient.EXCLUDE,
        group: GroupBy = GroupBy.PATIENT,
        rerank: bool = False,
    ) -> SearchResult:
        """The cases most like one on file, itself excluded."""
        query = self.query_of(case_id)
        return self.search(query, k=k, filters=filters, same_patient=same_patient, group=group, rerank=rerank)

    def search(
        self,
        query: Query,
        *,
        k: int = 10,
        filters: Filter | None = None,
        same_patient: SamePatient = SamePatient.EXCLUDE,
        group: GroupBy = GroupBy.PATIENT,
        rerank: bool = False,
    ) -> SearchResult:
        """The k most similar cases, best first; fewer only when fewer qualify.

        ``filters`` restrict what may be returned and never cost recall. ``same_patient`` says what happens to cases
        of the query's own patient; ``group`` keeps the best hit per patient or study (cases of unknown patient or
        study each stand alone). ``rerank`` reorders the best candidates by their slices instead of their pooled
        vectors (mean over the query's slices of the best slice of the hit), and then ``similarity`` is that figure.

        A query of image and text (``with_text``) obeys all of this. By reciprocal rank the order is that of its scores
        over every case that may be returned, similarities are to the weighted sum all the same, and ``rerank`` is
        refused.
        """
        if not 1 <= k <= MAX_K:
            raise UsageError(f"k must be from 1 to {MAX_K}, got {k}.")
        check_rerank(query, rerank=rerank)
        started = time.perf_counter()
        with self._live.agreeing(self.catalog.one_state) as snapshot:
            found = self._searching.answer(snapshot, query, Terms(k, filters, same_patient, group, rerank))
        return replace(found, took_ms=(time.perf_counter() - started) * 1e3)

    def snapshot(self) -> Snapshot:
        """The vectors as they are now, for reading many; within ``catalog.one_state`` of the same moment as that."""
        return self._live.refresh()

    def space(self) -> Space:
        """Where searches happen now: the stored vectors' own space or that of the live adapter."""
        return self._live.refresh().space

    def _adapter_name(self, space: Space) -> str:
        if space.head is None:
            return ""
        return next((row.name for row in self.catalog.adapters() if row.sha256 == space.head.sha256), "")

    def state(self) -> GalleryState:
        """What is live now. Replays other processes' writes first."""
        now = self._live.refresh()
        return GalleryState(
            size=len(now),
            encoder=self.encoder.card.name,
            fingerprint=now.space.fingerprint,
            pooling=self.pooling.spec,
            dim=now.space.dim,
            generation=now.generation,
            delta=len(now.delta) - len(now.delta_dead),
            damaged=now.damaged,
            adapter=self._adapter_name(now.space),
        )
