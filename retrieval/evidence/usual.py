"""Asks a sample of the cases on file for their nearest cases of other patients: what a query is then judged by.

The sample goes through the live index itself, so that what that one misses is missed for cases and queries alike. It is
drawn by a fixed seed, bounded in cases and in arithmetic whatever the size of the gallery, and drawn again when the
gallery has doubled or halved.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from retrieval.catalog import Catalog
from retrieval.catalog.facts import CaseFacts
from retrieval.evidence.boundary import Boundary, sides_held_out
from retrieval.evidence.closeness import DEPTH, UsualCloseness, by_depth
from retrieval.evidence.conformal import Values
from retrieval.evidence.modalities import kind_of
from retrieval.evidence.novelty import ANY, ASSURANCE, LEAST_PATIENTS, STRANGE, Agreement, Told, Usual
from retrieval.evidence.strangers import Strangers
from retrieval.filters import OneOf
from retrieval.filters.tree import fold
from retrieval.snapshot import Snapshot
from retrieval.types import Keys, UnitRows

MOST, LEAST = 1000, 200  # cases of the whole gallery that are asked
PRODUCTS = 2.5e10  # multiplications that asking them may take where everything is scored: a second of a core
OF_A_KIND = 150  # cases of a modality that are asked if it has so many
KINDS = 12  # modalities of which that is seen to, the most frequent ones
KNOWN = 0.99  # share of cases of a known modality above which one that is not on file is told to be missing
SEED = 0
_WIDTHS = (8, 64, 512)  # how far is looked for cases of other patients
_FOUND = 1 << 15  # neighbours looked up together, so that their memory is bounded
_BLOCK = 256  # cases whose neighbours' vectors are held together

Near = tuple[CaseFacts, float]  # a neighbour and its similarity
Sides = dict[int, float]  # by key, the side of the boundary that a case lies on


@dataclass(frozen=True, slots=True)
class Asked:
    """A case of the sample and its nearest. ``near``, ``apart``: float64 [DEPTH], closeness to so many neighbours, NaN
    where it has fewer. ``modality``, ``body_part``: place of the first neighbour told the same, as in ``Agreement``."""

    facts: CaseFacts
    nearest: CaseFacts
    near: Values
    apart: Values
    modality: int
    body_part: int


class Norms:
    """What is usual in a gallery, by the fingerprint of the space that is searched. For several threads."""

    def __init__(self, strangers: Strangers) -> None:
        self._strangers = strangers
        self._held: dict[str, tuple[int, bool, Usual]] = {}  # with its size, and whether strangers had been met
        self._lock = threading.Lock()

    def of(self, catalog: Catalog, snapshot: Snapshot) -> Usual:
        """Free when nothing much has changed; to be called in the state of the catalog that the snapshot is of."""
        fingerprint, size = snapshot.space.fingerprint, len(snapshot)
        with self._lock:
            drawn_at, met, usual = self._held.get(fingerprint, (-1, False, None))
            if usual is None or size > 2 * drawn_at or 2 * size < drawn_at or met != self._strangers.met:
                usual = draw(catalog, snapshot, self._strangers.rows())
                self._held[fingerprint] = (size, self._strangers.met, usual)
            return usual


def draw(catalog: Catalog, snapshot: Snapshot, strangers: UnitRows | None) -> Usual:
    """Draw the sample, ask it, and sort what was found by modality and body part. ``strangers``: as stored."""
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
    boundary, sides = _boundary(snapshot, [asked, *of_kind.values()], strangers)
    return Usual(
        closeness={kind: _closeness(each, sides) for kind, each in {ANY: asked, **of_kind}.items()},
        boundary=boundary,
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
    facts = catalog.facts(keys)
    nearest = _nearest(catalog, snapshot, np.array([key for key in keys.tolist() if key in facts], np.int64), among)
    told = [(facts[key], nearest[key]) for key in keys.tolist() if nearest.get(key)]
    starts = range(0, len(told), _BLOCK)
    return [asked for at in starts for asked in _asked(snapshot, told[at : at + _BLOCK])]


def _nearest(catalog: Catalog, snapshot: Snapshot, keys: Keys, among: Keys | None) -> dict[int, list[Near]]:
    """By key. All are asked for few; those that meet too few others in them are asked for more."""
    nearest: dict[int, list[Near]] = {}
    for width in _WIDTHS:
        step = _FOUND // width
        for at in range(0, len(keys), step):
            nearest |= _within(catalog, snapshot, keys[at : at + step], min(width, len(snapshot)), among)
        keys = keys[[len(nearest[key]) < DEPTH for key in keys.tolist()]]
        if not len(keys) or width >= len(snapshot):
            break
    return nearest


def _within(catalog: Catalog, snapshot: Snapshot, keys: Keys, width: int, among: Keys | None) -> dict[int, list[Near]]:
    """For each key those of other patients that are among its ``width`` nearest."""
    found, similarities, _ = snapshot.search(rows_of(snapshot, keys), width, among)
    facts = catalog.facts(np.union1d(found[found > 0], keys))
    rows = zip(keys.tolist(), found.tolist(), similarities.tolist(), strict=True)
    return {key: _of_others(facts[key], near, scores, facts) for key, near, scores in rows}


def _of_others(own: CaseFacts, keys: list[int], similarities: list[float], facts: dict[int, CaseFacts]) -> list[Near]:
    """The first ``DEPTH`` that a search for this case would answer with: neither itself nor of its patient or study."""
    found: list[Near] = []
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


def _asked(snapshot: Snapshot, told: list[tuple[CaseFacts, list[Near]]]) -> Iterator[Asked]:
    """Of cases with their nearest, at least one each."""
    similarities = np.full((len(told), DEPTH), np.nan, np.float32)
    keys = np.zeros((len(told), DEPTH), np.int64)
    for n, (_, others) in enumerate(told):
        similarities[n, : len(others)] = [similarity for _, similarity in others]
        keys[n, : len(others)] = [other.key for other, _ in others]
    neighbours = np.zeros((len(told), DEPTH, snapshot.space.dim), np.float32)
    neighbours[keys > 0] = rows_of(snapshot, keys[keys > 0])
    near, apart = by_depth(similarities, neighbours)
    for n, (own, others) in enumerate(told):
        modality, body_part = kind_of(own.modality), fold(own.body_part)
        yield Asked(
            own,
            others[0][0],
            near[n],
            apart[n],
            _first(kind_of(other.modality) == modality for other, _ in others),
            _first(fold(other.body_part) == body_part for other, _ in others),
        )


def _first(same: Iterable[bool]) -> int:
    """Place of the first that is, counted from 1."""
    return next((place for place, one in enumerate(same, 1) if one), DEPTH + 1)


def _drawn(rng: np.random.Generator, keys: Keys, most: int) -> Keys:
    return keys if len(keys) <= most else np.sort(rng.choice(keys, most, replace=False))


def _boundary(
    snapshot: Snapshot, groups: Iterable[list[Asked]], strangers: UnitRows | None
) -> tuple[Boundary | None, Sides]:
    """That between the cases asked and strangers, and the side of each case; none where too few can tell."""
    facts = {each.facts.key: each.facts for asked in groups for each in asked}
    keys = np.array(sorted(facts), np.int64)
    patients = [_patient(facts[key]) for key in keys.tolist()]
    if strangers is None or len(set(patients)) < LEAST_PATIENTS:
        return None, {}
    boundary, sides = sides_held_out(rows_of(snapshot, keys), patients, snapshot.space.place(strangers))
    return boundary, dict(zip(keys.tolist(), sides.tolist(), strict=True))


def _patient(facts: CaseFacts) -> str:
    """A case of an unknown patient counts as a patient of its own."""
    return facts.patient or facts.case_id


def _closeness(asked: list[Asked], sides: Sides) -> tuple[UsualCloseness, ...]:
    """For 1, 2 ... ``DEPTH`` neighbours. ``sides``: empty where there is no boundary."""
    usual = []
    for depth in range(DEPTH):
        known = [each for each in asked if np.isfinite(each.near[depth])]
        patients = len({_patient(each.facts) for each in known})
        near, apart = (np.array([getattr(each, name)[depth] for each in known]) for name in ("near", "apart"))
        side = np.array([sides[each.facts.key] for each in known]) if sides else None
        usual.append(UsualCloseness.of(near, apart, patients, STRANGE, ASSURANCE, side))
    return tuple(usual)


def _by_body_part(of_kind: dict[str, list[Asked]]) -> dict[Told, Agreement]:
    first: dict[Told, list[int]] = defaultdict(list)
    for kind, asked in of_kind.items():
        for each in asked:
            if each.facts.body_part:
                first[kind, fold(each.facts.body_part)].append(each.body_part)
    return {told: Agreement(tuple(places)) for told, places in first.items()}
