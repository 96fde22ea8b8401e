"""Whether an answer is a confident match: by what is usual among cases for an image, by random pairs for a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from retrieval.background import RandomPairs
from retrieval.catalog import Catalog
from retrieval.evidence.closeness import DEPTH, closeness
from retrieval.evidence.modalities import names_of
from retrieval.evidence.novelty import Judgement, judge
from retrieval.evidence.usual import Norms, rows_of
from retrieval.filters import OneOf
from retrieval.ranking import Ranked, group_hits
from retrieval.snapshot import Snapshot
from retrieval.types import GroupBy, Hit, Query

NO_HIT = "No case qualifies: the gallery, the filter or the patient exclusion leaves none."


def verdict_on(
    catalog: Catalog,
    snapshot: Snapshot,
    norms: Norms,
    query: Query,
    found: Ranked,
    hits: Sequence[Hit],
    pairs: RandomPairs,
    group: GroupBy,
) -> Judgement:
    """On the answer to a query in this very state. ``found``: its ranking by similarity and ``group``, of which
    ``hits`` were made.

    A query with a sentence lies apart from all cases, and how far says nothing: it is compared with ``pairs``.
    """
    if not hits:
        return Judgement((NO_HIT,))
    if query.text is not None or query.text_weight > 0:
        return Judgement(pairs.doubts(max(hit.similarity for hit in hits)))
    keys, similarities = found.keys[:DEPTH], found.similarities[:DEPTH]
    if group is not GroupBy.PATIENT:
        patients = catalog.groups(found.keys, GroupBy.PATIENT)
        keys, similarities = group_hits(found.keys, found.similarities, patients, DEPTH)
    near = closeness(np.asarray(similarities, dtype=np.float32), rows_of(snapshot, keys))
    usual = norms.of(catalog, snapshot)
    if usual.boundary:
        near = replace(near, side=float(usual.boundary.side(query.embedding.vector[None, :])[0]))
    return judge(usual, query, near, hits, lambda modality: _on_file(catalog, modality))


def _on_file(catalog: Catalog, modality: str) -> bool:
    return len(catalog.select(OneOf("modality", names_of(modality)))) > 0
