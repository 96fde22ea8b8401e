"""One pass over the ranking of every query: measures, nearest cases, and precision at other prevalences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrieval.leave_one_out import Block, Cohort, Scores, joined, ranked_blocks, score_block
from retrieval.prevalence import PREVALENCES, expected_precision

LOOKED_AT = 400  # nearest cases of each query among which the nearest patients are found
NEAREST = 100  # of these, one case of each patient, that are kept
MAX_QUERIES = 10_000
MAX_CELLS = 200_000_000  # queries x cases that are ranked; beyond, a sample of the queries is asked
MIN_QUERIES = 500


@dataclass(frozen=True, slots=True)
class Observed:
    """What the rankings of ``queries`` [q] (rows of the cohort) came to."""

    queries: npt.NDArray[np.int64]
    scores: Scores
    near: npt.NDArray[np.int64]  # [q, NEAREST or fewer], rows of the cohort, one a patient, by rank; -1 past the last
    similarities: npt.NDArray[np.float64]  # the same shape; -inf past the last
    rarer: npt.NDArray[np.float64]  # [q, measured values, PREVALENCES], P@k; NaN unless the query has the value


def sampled(cases: int, seed: int, most: int = MAX_QUERIES) -> npt.NDArray[np.int64]:
    """Rows of the queries to ask, ascending: all cases, or a random sample where all would take too long."""
    most = min(most, max(MIN_QUERIES, MAX_CELLS // max(cases, 1)))
    if cases <= most:
        return np.arange(cases, dtype=np.int64)
    chosen = np.random.default_rng(seed).choice(cases, size=most, replace=False)
    return np.sort(chosen).astype(np.int64)


def observe(
    cohort: Cohort, queries: npt.NDArray[np.int64], ks: tuple[int, ...], measured: npt.NDArray[np.int64], k: int
) -> Observed:
    """Rank all cases for each query. ``measured``: columns whose P@``k`` is wanted at other prevalences too."""
    scores, near, similarities, rarer = [], [], [], []
    for block in ranked_blocks(cohort, queries):
        scores.append(score_block(cohort, block, ks))
        nearest, how_near = _nearest(cohort, block)
        near.append(nearest)
        similarities.append(how_near)
        rarer.append(_rarer(cohort, block, measured, k))
    all_scores = joined(scores)
    return Observed(queries, all_scores, np.concatenate(near), np.concatenate(similarities), np.concatenate(rarer))


def _nearest(cohort: Cohort, block: Block) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The best case of each of the nearest patients, as a search answers."""
    order, similarities = block.order[:, :LOOKED_AT], block.similarities[:, :LOOKED_AT]
    first = _first_of_each(cohort.patients[order]) & np.isfinite(similarities)
    places = np.argsort(~first, axis=1, kind="stable")[:, :NEAREST]
    there = np.take_along_axis(first, places, axis=1)
    near = np.where(there, np.take_along_axis(order, places, axis=1), -1)
    return near, np.where(there, np.take_along_axis(similarities, places, axis=1), -np.inf).astype(np.float64)


def _first_of_each(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether each entry of a row is the first of its number, [q, n]."""
    by_number = np.argsort(numbers, axis=1, kind="stable")
    ordered = np.take_along_axis(numbers, by_number, axis=1)
    new = np.concatenate([np.ones((len(numbers), 1), dtype=bool), ordered[:, 1:] != ordered[:, :-1]], axis=1)
    out = np.zeros(numbers.shape, dtype=bool)
    np.put_along_axis(out, by_number, new, axis=1)
    return out


def _rarer(cohort: Cohort, block: Block, measured: npt.NDArray[np.int64], k: int) -> npt.NDArray[np.float64]:
    out = np.full((len(block.queries), len(measured), len(PREVALENCES)), np.nan)
    for place, column in enumerate(measured):
        asking = np.flatnonzero(cohort.members[block.queries, column] > 0)
        if len(asking):
            carrying = cohort.members[block.order[asking], column] > 0
            out[asking, place] = expected_precision(carrying, block.sizes[asking], k, PREVALENCES)
    return out
