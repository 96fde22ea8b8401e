"""A sample of a gallery's labelled cases, each asked for its neighbours among all the others: what fits are made on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from retrieval.adapters.split import groups_of
from retrieval.catalog.types import Labelled
from retrieval.errors import UsageError
from retrieval.evidence.neighbours import Batch, Nearest, Numbers, Ties, nearest
from retrieval.filters import And, Equals, Filter, Not, Range
from retrieval.filters.tree import LABEL
from retrieval.gallery import Gallery
from retrieval.space import Space
from retrieval.storable import clean
from retrieval.types import Keys

MOST_QUERIES = 2000  # asked of a gallery; more of them change a calibration little and cost time
FOLDS = 5
MIN_PATIENTS = 10  # fewer than these can't be parted into folds that mean something
SEED = 0
_BATCH = 4096
_MOST = 1e15  # a label's number is below this


@dataclass(frozen=True, slots=True)
class FittedOn:
    """What a fit rests on: labelled cases and their patients, how many of them were asked, in which folds, and the size
    of the whole gallery then. ``patients`` counts a case whose patient is unknown as a patient of its own."""

    cases: int
    patients: int
    queries: int
    folds: int  # 0 when there were too few patients for any
    seed: int
    gallery_size: int


@dataclass(frozen=True, slots=True)
class Sample:
    """``labelled``: all cases with the label that pass the filter. ``asked``: positions among them [q], with the
    ``nearest`` of each, and the ``folds`` they fall in, [q], all -1 when there are too few patients.

    ``ties``: of all labelled cases. Folds part groups, so that no patient, study or picture is in two of them.
    """

    label: str
    labelled: Labelled
    ties: Ties
    asked: Numbers
    nearest: Nearest
    folds: Numbers
    fitted_on: FittedOn


def having(label: str, filters: Filter | None = None, *, numeric: bool = False) -> Filter:
    """Those cases of a filter that have a value of the label, or a number of it."""
    known: Filter = Range(LABEL + label, gte=-_MOST) if numeric else Not(Equals(LABEL + label, None))
    return known if filters is None else And((filters, known))


def read_sample(gallery: Gallery, label: str, filters: Filter | None, k: int, *, numeric: bool = False) -> Sample:
    """Ask at most ``MOST_QUERIES`` of the labelled cases, drawn by ``SEED``, for their ``k`` nearest.

    ``numeric``: only those that have a number. UsageError for a label that no case has, naming those on file, or that
    none has which passes the filter, and for one without numbers where these are needed.
    """
    space = gallery.space()  # before the state is held: the index must not be made to catch up with an older one
    with gallery.catalog.one_state():
        labelled = _passing(gallery, label, filters)
        if numeric:
            labelled = _numeric(labelled, label)
        patients, groups = _ties(gallery, labelled)
        size = gallery.catalog.count()
        rng = np.random.default_rng(SEED)
        drawn = np.sort(rng.permutation(len(labelled.keys))[:MOST_QUERIES])
        ties = Ties(patients, groups)
        keys, vectors = gallery.catalog.vectors_of(labelled.keys[drawn])
        asked = np.searchsorted(labelled.keys, keys)
        found = nearest(asked, space.place(vectors), _batches(gallery, space, labelled.keys), ties, k)
    folds = folds_of(groups[asked])
    fitted_on = FittedOn(
        cases=len(labelled.keys),
        patients=len(np.unique(patients)),
        queries=len(asked),
        folds=int(folds.max(initial=-1)) + 1,
        seed=SEED,
        gallery_size=size,
    )
    return Sample(label, labelled, ties, asked, found, folds, fitted_on)


def folds_of(groups: Numbers) -> Numbers:
    """The fold of each case, 0 to ``FOLDS`` - 1, by scikit-learn: whole groups, drawn by ``SEED``. All -1 when there
    are fewer than ``MIN_PATIENTS`` groups."""
    from sklearn.model_selection import GroupKFold

    folds = np.full(len(groups), -1, dtype=np.int64)
    if len(np.unique(groups)) >= MIN_PATIENTS:
        parts = GroupKFold(FOLDS, shuffle=True, random_state=SEED).split(groups, groups=groups)
        for number, (_, held_out) in enumerate(parts):
            folds[held_out] = number
    return folds


def _passing(gallery: Gallery, label: str, filters: Filter | None) -> Labelled:
    labelled = gallery.catalog.labelled(clean(label))
    if not len(labelled.keys):
        names = ", ".join(f"'{each.name}'" for each in gallery.catalog.counts().labels) or "none"
        raise UsageError(f"No case has the label '{label}': expected a label on file, which are {names}.")
    if filters is None:
        return labelled
    chosen = np.flatnonzero(np.isin(labelled.keys, gallery.catalog.select(filters)))
    if not len(chosen):
        raise UsageError(f"No case with the label '{label}' passes the filter: ask with a wider one.")
    return _rows_of(labelled, chosen)


def _numeric(labelled: Labelled, label: str) -> Labelled:
    chosen = np.array([n for n, number in enumerate(labelled.numbers) if number is not None], dtype=np.int64)
    if not len(chosen):
        raise UsageError(f"The label '{label}' holds no numbers: it can be classified, not estimated.")
    return _rows_of(labelled, chosen)


def _rows_of(labelled: Labelled, chosen: Numbers) -> Labelled:
    """Only the cases at these positions."""
    return Labelled(
        labelled.keys[chosen],
        [labelled.patient_keys[n] for n in chosen],
        [labelled.values[n] for n in chosen],
        [labelled.numbers[n] for n in chosen],
    )


def _ties(gallery: Gallery, labelled: Labelled) -> tuple[Numbers, Numbers]:
    links = gallery.catalog.links(labelled.keys)
    numbers: dict[str, int] = {}
    patients = [numbers.setdefault(link.patient or f"\x00{n}", len(numbers)) for n, link in enumerate(links)]
    return np.array(patients, dtype=np.int64), groups_of(links)


def _batches(gallery: Gallery, space: Space, keys: Keys) -> Iterator[Batch]:
    """Positions and vectors, in the space that is searched, of those of the keys (ascending) that have one."""
    for start in range(0, len(keys), _BATCH):
        found, rows = gallery.catalog.vectors_of(keys[start : start + _BATCH])
        yield np.searchsorted(keys, found), space.place(rows)
