"""Pure: choosing k, the temperature of the weights and the calibration on patient-disjoint folds, without peeking.

Held-out probabilities are nested: those of a fold come from what was chosen and fitted on the other folds alone, so the
figures measured on them hold for patients that had no part in any choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrieval.evidence.calibration import Calibrator, Method, Probabilities, Truth, brier, fit
from retrieval.evidence.neighbours import Numbers

MIN_POSITIVE = 10  # patients that have a value, and that have not, before it gets steps and thresholds of its own


@dataclass(frozen=True, slots=True)
class Way:
    """How neighbours vote: how many, and the temperature of their weights."""

    k: int
    temperature: float


@dataclass(frozen=True, slots=True)
class Tried:
    """Smoothed votes of every way, each [n, values]; what is true [n, values]; base rates [values]; folds [n], all -1
    when there are too few patients; groups [n]."""

    ways: tuple[Way, ...]
    votes: tuple[Probabilities, ...]
    truth: Truth
    rates: npt.NDArray[np.float64]
    folds: Numbers
    groups: Numbers
    exclusive: bool


@dataclass(frozen=True, slots=True)
class Chosen:
    """``way`` and ``calibrator`` as fitted on everything. ``raw`` and ``fitted``: votes and probabilities of the cases
    asked, by that way. ``held_out``: nested probabilities, [n, values], None without folds."""

    way: Way
    calibrator: Calibrator
    raw: Probabilities
    fitted: Probabilities
    held_out: Probabilities | None


def choose(tried: Tried) -> Chosen:
    """The way and the calibration with the least Brier score on held-out patients, fitted on everything.

    Without folds: the first way, not calibrated.
    """
    losses = np.stack([brier(votes, tried.truth) for votes in tried.votes])
    everything = np.arange(tried.truth.shape[0])
    if (tried.folds < 0).all():
        calibrator = fit(
            Method.NONE, tried.votes[0], tried.truth, tried.rates, _enough(tried, everything), exclusive=tried.exclusive
        )
        return Chosen(tried.ways[0], calibrator, tried.votes[0], calibrator.apply(tried.votes[0]), None)
    held_out = np.empty_like(tried.votes[0])
    for fold in np.unique(tried.folds).tolist():
        at, calibrator = _chosen(tried, losses, np.flatnonzero(tried.folds != fold))
        here = tried.folds == fold
        held_out[here] = calibrator.apply(tried.votes[at][here])
    at, calibrator = _chosen(tried, losses, everything)
    return Chosen(tried.ways[at], calibrator, tried.votes[at], calibrator.apply(tried.votes[at]), held_out)


def _chosen(tried: Tried, losses: npt.NDArray[np.float64], rows: Numbers) -> tuple[int, Calibrator]:
    """Which way, and its calibration, as chosen and fitted on these rows alone; the first of equal ones."""
    at = int(np.argmin(losses[:, rows].mean(axis=1)))
    methods = list(Method)
    scores = [_cross_validated(tried, tried.votes[at], rows, method) for method in methods]
    return at, _fitted(tried, tried.votes[at], rows, methods[int(np.argmin(scores))])


def _cross_validated(tried: Tried, votes: Probabilities, rows: Numbers, method: Method) -> float:
    """The mean Brier score of a method over the folds among ``rows``, each fitted on the others."""
    total = 0.0
    for fold in np.unique(tried.folds[rows]).tolist():
        here, others = rows[tried.folds[rows] == fold], rows[tried.folds[rows] != fold]
        calibrator = _fitted(tried, votes, others, method)
        total += float(brier(calibrator.apply(votes[here]), tried.truth[here]).sum())
    return total / len(rows)


def _fitted(tried: Tried, votes: Probabilities, rows: Numbers, method: Method) -> Calibrator:
    enough = _enough(tried, rows)
    return fit(method, votes[rows], tried.truth[rows], tried.rates, enough, exclusive=tried.exclusive)


def _enough(tried: Tried, rows: Numbers) -> npt.NDArray[np.bool_]:
    return np.array([enough_patients(column, tried.groups[rows]) for column in tried.truth[rows].T], dtype=bool)


def enough_patients(truth: npt.NDArray[np.bool_], groups: Numbers, least: int = MIN_POSITIVE) -> bool:
    """Whether as many patients as that have a value [n], and as many have a case without it."""
    return all(len(np.unique(groups[part])) >= least for part in (truth, ~truth))


def ways_of(similarities: npt.NDArray[np.float32], ks: Sequence[int], factors: Sequence[float]) -> tuple[Way, ...]:
    """Every k with every temperature: multiples of the spread (standard deviation) of neighbours' similarities [n, k].

    A temperature of an infinite factor, or of neighbours that are all equally near, gives every neighbour one vote.
    """
    known = similarities[np.isfinite(similarities)]
    spread = float(known.std()) if len(known) else 0.0
    temperatures = sorted({float(factor * spread) if spread > 0 else np.inf for factor in factors}, reverse=True)
    return tuple(Way(k, temperature) for k in ks for temperature in temperatures)
