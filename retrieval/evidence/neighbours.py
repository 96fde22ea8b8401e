"""Pure: the nearest cases of other patients, one per patient, for many queries at once.

What ``Gallery.search`` finds for a case on file, for a sample of them in one pass over the vectors. Memory is bounded
by the number of queries times the size of a batch; nothing is approximate.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrieval.types import Similarities, UnitRows

Numbers = npt.NDArray[np.int64]
NOBODY = -1

Batch = tuple[Numbers, UnitRows]  # positions of cases, ascending, and their vectors


@dataclass(frozen=True, slots=True)
class Nearest:
    """By rank, the most similar first. ``cases``: positions [queries, k], ``NOBODY`` where there are no more;
    ``similarities`` [queries, k], -inf there."""

    cases: Numbers
    similarities: Similarities


@dataclass(frozen=True, slots=True)
class Ties:
    """What ties cases to one another, numbers per case, [n]. ``patients``: a query finds one case of each.
    ``groups``: of patients, studies and equal pixels; a query finds no case of its own."""

    patients: Numbers
    groups: Numbers


def nearest(asked: Numbers, vectors: UnitRows, batches: Iterable[Batch], ties: Ties, k: int) -> Nearest:
    """The k nearest of other groups for each of the cases ``asked`` [q] with its vector, [q, d].

    Ties by position, save among those that are equally far at the last place.

    The k best of distinct patients among all batches are among the k best of each: so batches are merged one by one.
    """
    found = Nearest(
        np.full((len(asked), 0), NOBODY, dtype=np.int64), np.full((len(asked), 0), -np.inf, dtype=np.float32)
    )
    for cases, rows in batches:
        similarities = vectors @ rows.T
        similarities[ties.groups[asked, None] == ties.groups[None, cases]] = -np.inf
        found = _merged(found, _best_of_each_patient(cases, similarities, ties.patients[cases], k), ties.patients, k)
    return _padded(found, k)


def _best_of_each_patient(cases: Numbers, similarities: Similarities, patients: Numbers, k: int) -> Nearest:
    """Of one batch: at most k candidates per query, of distinct patients, in any order."""
    order = np.argsort(patients, kind="stable")
    starts = np.flatnonzero(np.diff(patients[order], prepend=-1))
    by_patient = similarities[:, order]
    best = np.maximum.reduceat(by_patient, starts, axis=1)
    if len(starts) == len(order):
        first = np.broadcast_to(np.arange(len(order)), best.shape)
    else:
        lengths = np.diff(np.append(starts, len(order)))
        is_best = by_patient == np.repeat(best, lengths, axis=1)
        first = np.minimum.reduceat(np.where(is_best, np.arange(len(order)), len(order)), starts, axis=1)
    keep = np.argpartition(-best, k - 1, axis=1)[:, :k] if best.shape[1] > k else None
    if keep is not None:
        best, first = np.take_along_axis(best, keep, axis=1), np.take_along_axis(first, keep, axis=1)
    return Nearest(np.where(np.isfinite(best), cases[order][first], NOBODY), best)


def _merged(one: Nearest, other: Nearest, patients: Numbers, k: int) -> Nearest:
    cases = np.concatenate([one.cases, other.cases], axis=1)
    similarities = np.concatenate([one.similarities, other.similarities], axis=1)
    order = np.lexsort((cases, -similarities), axis=1)
    cases, similarities = np.take_along_axis(cases, order, axis=1), np.take_along_axis(similarities, order, axis=1)
    again = _seen_before(np.where(cases == NOBODY, NOBODY, patients[cases]))
    similarities = np.where(again, np.float32(-np.inf), similarities)
    order = np.argsort(again, axis=1, kind="stable")[:, :k]
    cases, similarities = np.take_along_axis(cases, order, axis=1), np.take_along_axis(similarities, order, axis=1)
    return Nearest(np.where(np.isfinite(similarities), cases, NOBODY), similarities)


def _seen_before(patients: Numbers) -> npt.NDArray[np.bool_]:
    """For each place of each row, whether its number stands further left; [q, n]."""
    order = np.argsort(patients, axis=1, kind="stable")
    ordered = np.take_along_axis(patients, order, axis=1)
    repeated = np.zeros(patients.shape, dtype=bool)
    repeated[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    again = np.empty_like(repeated)
    np.put_along_axis(again, order, repeated, axis=1)
    return again


def _padded(found: Nearest, k: int) -> Nearest:
    missing = ((0, 0), (0, k - found.cases.shape[1]))
    return Nearest(
        np.pad(found.cases, missing, constant_values=NOBODY),
        np.pad(found.similarities, missing, constant_values=-np.inf),
    )
