"""How neighbours' numbers become an estimate in a gallery: fitted on a sample of its cases, and kept with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrieval.errors import UsageError
from retrieval.evidence.intervals import (
    Centre,
    Reals,
    Scale,
    centre_of,
    interval_score,
    quantile,
    spread_of,
    units_of,
)
from retrieval.evidence.neighbours import NOBODY, Nearest, Numbers
from retrieval.evidence.sample import FittedOn, read_sample
from retrieval.evidence.selection import Way, ways_of
from retrieval.evidence.types import EstimateQuality
from retrieval.evidence.votes import weights_of
from retrieval.evidence.voting import FACTORS, KS, check_k
from retrieval.filters import Filter
from retrieval.gallery import Gallery

LEVEL = 0.9  # of an interval, and what the scale of errors is chosen at


@dataclass(frozen=True, slots=True)
class EstimatingFit:
    """``centre`` and ``scale`` of the ``way`` chosen; the ``errors`` of the cases asked, [n], in units of the scale;
    ``typical``: the median of their neighbours' spreads; ``base``: the mean of the label over patients."""

    way: Way
    centre: Centre
    scale: Scale
    errors: Reals
    typical: float
    base: float
    held_out: HeldOut | None
    fitted_on: FittedOn

    def interval(self, number: float, spread: float, level: float) -> tuple[float, float] | None:
        """Around a prediction with its neighbours' spread; None when there are too few errors for the level."""
        if self.held_out is None:
            return None
        half = quantile(self.errors, level) * float(units_of(np.array([spread]), self.scale, self.typical)[0])
        return (number - half, number + half) if np.isfinite(half) else None


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Nested: what was predicted of each case's number by what was chosen on the other folds alone, [n] each.

    ``unit``: what errors of it are measured by; ``others``: those folds' errors in such units, by fold; ``mean``: the
    mean of their numbers.
    """

    truth: Reals
    predicted: Reals
    unit: Reals
    mean: Reals
    folds: Numbers
    others: tuple[Reals, ...]

    def quality(self, level: float) -> EstimateQuality | None:
        """Of intervals of this level; None when some fold leaves too few errors for it."""
        halves = np.array([quantile(errors, level) for errors in self.others])[self.folds] * self.unit
        if not np.isfinite(halves).all():
            return None
        misses = np.abs(self.truth - self.predicted)
        return EstimateQuality(
            coverage=float((misses <= halves).mean()),
            width=float(2.0 * halves.mean()),
            error=float(misses.mean()),
            error_of_mean=float(np.abs(self.truth - self.mean).mean()),
        )


def estimating_fit(gallery: Gallery, label: str, filters: Filter | None = None, k: int | None = None) -> EstimatingFit:
    """How numbers of a label are to be estimated in this gallery; fitted at the first call, then kept until a tenth of
    the gallery has changed. ``k`` None: chosen. UsageError for a label that is not on file, or that is no number."""
    check_k(k)
    key = ("numbers", label, filters, k, gallery.space().fingerprint)
    return gallery.kept.of(key, gallery.catalog.heads(), len(gallery), lambda: _fitted(gallery, label, filters, k))


def _fitted(gallery: Gallery, label: str, filters: Filter | None, k: int | None) -> EstimatingFit:
    ks = KS if k is None else (k,)
    sample = read_sample(gallery, label, filters, max(ks), numeric=True)
    numbers = np.array(sample.labelled.numbers, dtype=np.float64)
    found = sample.nearest.cases[:, 0] != NOBODY
    if not found.any():
        raise UsageError(f"All cases with the label '{label}' are of one patient: there is nothing to estimate by.")
    near = Nearest(sample.nearest.cases[found], sample.nearest.similarities[found])
    ways = [(way, centre) for way in ways_of(near.similarities, ks, FACTORS) for centre in Centre]
    tries = [Tried(way, centre, *predicted(near, way, centre, numbers)) for way, centre in ways]
    truth, folds = numbers[sample.asked[found]], sample.folds[found]
    everything = np.arange(len(truth))
    best = Choice(tries[0], Scale.CONSTANT) if (folds < 0).any() else chosen(tries, truth, everything)
    return EstimatingFit(
        way=best.tried.way,
        centre=best.tried.centre,
        scale=best.scale,
        errors=best.errors(truth, everything, everything),
        typical=float(np.median(best.tried.spread)),
        base=mean_over_patients(numbers, sample.ties.patients),
        held_out=None if (folds < 0).any() else _held_out(tries, truth, folds),
        fitted_on=sample.fitted_on,
    )


@dataclass(frozen=True, slots=True)
class Tried:
    """What one way of counting predicts of each case asked, and how its neighbours spread, [n] each."""

    way: Way
    centre: Centre
    predicted: Reals
    spread: Reals


@dataclass(frozen=True, slots=True)
class Choice:
    """A way and what its errors are measured by."""

    tried: Tried
    scale: Scale

    def units(self, rows: Numbers, of: Numbers) -> Reals:
        """Of the cases ``of``; what spread is typical is told by ``rows``."""
        return units_of(self.tried.spread[of], self.scale, float(np.median(self.tried.spread[rows])))

    def errors(self, truth: Reals, rows: Numbers, of: Numbers) -> Reals:
        """Of the cases ``of``, in units."""
        return np.asarray(np.abs(truth[of] - self.tried.predicted[of]) / self.units(rows, of))


def chosen(tries: Sequence[Tried], truth: Reals, rows: Numbers) -> Choice:
    """The way with the least mean absolute error on these rows, and the scale with the least interval score there."""
    errors = [float(np.abs(truth[rows] - tried.predicted[rows]).mean()) for tried in tries]
    tried = tries[int(np.argmin(errors))]
    choices = [Choice(tried, scale) for scale in Scale]
    scores = []
    for choice in choices:
        half = quantile(choice.errors(truth, rows, rows), LEVEL) * choice.units(rows, rows)
        number = tried.predicted[rows]
        scores.append(float(interval_score(truth[rows], number - half, number + half, LEVEL).mean()))
    return choices[int(np.argmin(scores))]


def _held_out(tries: Sequence[Tried], truth: Reals, folds: Numbers) -> HeldOut:
    number, unit, mean, others = np.empty_like(truth), np.empty_like(truth), np.empty_like(truth), []
    for fold in range(int(folds.max()) + 1):
        here, rest = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        choice = chosen(tries, truth, rest)
        number[here] = choice.tried.predicted[here]
        unit[here] = choice.units(rest, here)
        mean[here] = truth[rest].mean()
        others.append(choice.errors(truth, rest, rest))
    return HeldOut(truth, number, unit, mean, folds, tuple(others))


def predicted(near: Nearest, way: Way, centre: Centre, numbers: Reals) -> tuple[Reals, Reals]:
    """What the first k neighbours say of each query, and their spread, [q] each; ``numbers``: of all labelled cases."""
    weights = weights_of(near.similarities[:, : way.k], way.temperature)
    theirs = numbers[near.cases[:, : way.k]]
    return centre_of(theirs, weights, centre), spread_of(theirs, weights)


def mean_over_patients(numbers: Reals, patients: Numbers) -> float:
    """The mean over patients of the mean of each one's cases."""
    return float((np.bincount(patients, weights=numbers) / np.bincount(patients)).mean())
