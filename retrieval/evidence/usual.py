"""Asks a sample of the cases on file for their nearest cases of other patients: what a query is then judged by.

The sample goes through the live index itself, so that what that one misses is missed for cases and queries alike. It is
drawn by a fixed seed, bounded in cases and in arithmetic whatever the size of the gallery, and drawn again when the
gallery has doubled or halved.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from retrieval.catalog import Catalog
from retrieval.catalog.facts import CaseFacts
from retrieval.evidence.closeness import DEPTH, UsualCloseness, by_depth
from retrieval.evidence.modalities import kind_of
from retrieval.evidence.novelty import ANY, ASSURANCE, STRANGE, Agreement, Told, Usual
from retrieval.filters import OneOf
from retrieval.filters.tree import fold
from retrieval.snapshot import NO_KEYS, Snapshot
from retrieval.types import Keys, UnitRows

MOST, LEAST = 1000, 200  # cases of the whole gallery that are asked
PRODUCTS = 2.5e10  # multiplications that asking them may take where everything is scored: a second of a core
OF_A_KIND = 150  # cases of a modality that are asked if it has so many
KINDS = 12  # modalities of which that is seen to, the most frequent ones
KNOWN = 0.99  # share of cases of a known modality above which one that is not on file is told to be missing
SEED = 0
_WIDTHS = (8, 64, 512)  # how far is looked for cases of other patients
_BLOCK = 64  # cases asked together


@dataclass(frozen=True, slots=True)
class Asked:
    """A case of the sample and its nearest. ``near``, ``apart``: float64 [DEPTH], closeness to so many neighbours, NaN
    where it has fewer. ``modality``, ``body_part``: place of the first neighbour told the same, as in ``Agreement``."""

    facts: CaseFacts
    nearest: CaseFacts
    near: npt.NDArray[np.float64]
    apart: npt.NDArray[np.float64]
    modality: int
    body_part: int


class Norms:
    """What is usual in a gallery, by the fingerprint of the space that is searched. For several threads."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[int, Usual]] = {}
        self._lock = threading.Lock()

    def of(self, catalog: Catalog, snapshot: Snapshot) -> Usual:
        """Free when nothing much has changed; to be called in the state of the catalog that the snapshot is of."""
        fingerprint, size = snapshot.space.fingerprint, len(snapshot)
        with self._lock:
            drawn_at, usual = self._held.get(fingerprint, (-1, None))
            if usual is None or size > 2 * drawn_at or 2 * size < drawn_at:
                usual = draw(catalog, snapshot)
                self._held[fingerprint] = (size, usual)
            return usual


def draw(catalog: Catalog, snapshot: Snapshot) -> Usual:
    """Draw the sample, ask it, and sort what was found by modality and body part."""
    keys, rng = snapshot.keys(), np.random.default_rng(SEED)
    most = int(np.clip(PRODUCTS / max(1, len(keys) * snapshot.space.dim), LEAST, MOST))
    drawn = _drawn(rng, keys, most)
    asked = ask(catalog, snapshot, drawn)
    counts = [(modality, count) for modality, count in catalog.modalities() if count]
    names: dict[str, list[str]] = defaultdict(list)
    for modality, _ in counts:
        names[kind_of(modality)].append(modality)
    unknown = names.pop("", None)
    of_kind = {kind: [each for each in asked if kind_of(each.facts.modality) == kind] for kind in names}
    for kind in islice(names, KINDS):
        if (missing := OF_A_KIND - len(of_kind[kind])) > 0:
            others = np.setdiff1d(np.intersect1d(catalog.select(OneOf("modality", tuple(names[kind]))), keys), drawn)
            of_kind[kind] += ask(catalog, snapshot, _drawn(rng, others, missing))
    without = sum(count for modality, count in counts if not modality) if unknown else 0
    return Usual(
        closeness={kind: _closeness(each) for kind, each in {ANY: asked, **of_kind}.items()},
        modalities={kind: Agreement(tuple(one.modality for one in each)) for kind, each in of_kind.items()},
        body_parts=_by_body_part(of_kind),
        complete=without <= (1 - KNOWN) * len(keys),
    )


def rows_of(snapshot: Snapshot, keys: Keys) -> UnitRows:
    """The vectors of keys that were found in this very snapshot, in the space that is searched, [n, dim]."""
    found = np.empty((len(keys), snapshot.space.dim), np.float32)
    for index in (snapshot.delta,) if snapshot.base is None else (snapshot.delta, snapshot.base):
        held = index.keys()
        if len(held):
            here = held[np.minimum(np.searchsorted(held, keys), len(held) - 1)] == keys
            if here.any():
                found[here] = index.vectors(keys[here])
    return found


def ask(catalog: Catalog, snapshot: Snapshot, keys: Keys, among: Keys | None = None) -> list[Asked]:
    """The nearest cases of other patients of each key, one per patient; cases that have none are left out.

    ``among``: only of these (ascending); None for all on file.
    """
    starts = range(0, len(keys), _BLOCK)
    return [found for at in starts for found in _ask_block(catalog, snapshot, keys[at : at + _BLOCK], among)]


def _ask_block(catalog: Catalog, snapshot: Snapshot, keys: Keys, among: Keys | None) -> Iterator[Asked]:
    rows, facts = rows_of(snapshot, keys), catalog.facts(keys)
    open_ = np.array([n for n, key in enumerate(keys.tolist()) if key in facts], dtype=np.int64)
    nearest: dict[int, list[tuple[CaseFacts, float]]] = {}
    for width in _WIDTHS:
        if not len(open_):
            break
        found, similarities, _ = snapshot.search(rows[open_], min(width, max(1, len(snapshot))), among, NO_KEYS)
        facts |= catalog.facts(np.setdiff1d(found[found > 0], np.fromiter(facts, np.int64)))
        for n, near, scores in zip(open_.tolist(), found.tolist(), similarities.tolist(), strict=True):
            nearest[n] = _of_others(facts[int(keys[n])], near, scores, facts)
        open_ = np.array([n for n in open_.tolist() if len(nearest[n]) < DEPTH], dtype=np.int64)
        if width >= len(snapshot):
            break
    for n, others in sorted(nearest.items()):
        if others:
            yield _asked(facts[int(keys[n])], others, snapshot)


def _of_others(
    own: CaseFacts, keys: list[int], similarities: list[float], facts: dict[int, CaseFacts]
) -> list[tuple[CaseFacts, float]]:
    """The first ``DEPTH`` that a search for this case would answer with: neither itself nor of its patient or study."""
    found: list[tuple[CaseFacts, float]] = []
    seen, studies = {own.patient} - {""}, {own.study_uid} - {""}
    for key, similarity in zip(keys, similarities, strict=True):
        other = facts.get(key)
        if other is None or key == own.key or other.patient in seen or other.study_uid in studies:
            continue
        if other.patient:
            seen.add(other.patient)
        found.append((other, similarity))
        if len(found) == DEPTH:
            break
    return found


def _asked(own: CaseFacts, others: list[tuple[CaseFacts, float]], snapshot: Snapshot) -> Asked:
    similarities = np.full((1, DEPTH), np.nan, np.float32)
    similarities[0, : len(others)] = [similarity for _, similarity in others]
    neighbours = np.zeros((1, DEPTH, snapshot.space.dim), np.float32)
    neighbours[0, : len(others)] = rows_of(snapshot, np.array([other.key for other, _ in others], dtype=np.int64))
    near, apart = by_depth(similarities, neighbours)
    return Asked(
        own,
        others[0][0],
        near[0],
        apart[0],
        _first([kind_of(other.modality) == kind_of(own.modality) for other, _ in others]),
        _first([fold(other.body_part) == fold(own.body_part) for other, _ in others]),
    )


def _first(same: list[bool]) -> int:
    return same.index(True) + 1 if True in same else DEPTH + 1


def _drawn(rng: np.random.Generator, keys: Keys, most: int) -> Keys:
    return keys if len(keys) <= most else np.sort(rng.choice(keys, most, replace=False))


def _closeness(asked: list[Asked]) -> tuple[UsualCloseness, ...]:
    """For 1, 2 ... ``DEPTH`` neighbours. A case of an unknown patient counts as a patient of its own."""
    usual = []
    for depth in range(DEPTH):
        known = [each for each in asked if np.isfinite(each.near[depth])]
        patients = len({each.facts.patient or each.facts.case_id for each in known})
        near, apart = (np.array([getattr(each, name)[depth] for each in known]) for name in ("near", "apart"))
        usual.append(UsualCloseness.of(near, apart, patients, STRANGE, ASSURANCE))
    return tuple(usual)


def _by_body_part(of_kind: dict[str, list[Asked]]) -> dict[Told, Agreement]:
    first: dict[Told, list[int]] = defaultdict(list)
    for kind, asked in of_kind.items():
        for each in asked:
            if each.facts.body_part:
                first[kind, fold(each.facts.body_part)].append(each.body_part)
    return {told: Agreement(tuple(places)) for told, places in first.items()}
