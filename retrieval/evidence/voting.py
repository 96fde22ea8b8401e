"""What a gallery's votes on a label are worth: fitted on a sample of its cases, and kept with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrieval.adapters.label_values import MOST_GRADES
from retrieval.curves import area_by_chance, auc
from retrieval.errors import UsageError
from retrieval.evidence.calibration import Probabilities, shares_of, smoothed
from retrieval.evidence.neighbours import NOBODY, Nearest, Numbers, Ties
from retrieval.evidence.reliability import by_chance, calibration_error, confidence_error, mean_calibration_error
from retrieval.evidence.sample import FittedOn, Sample, read_sample
from retrieval.evidence.selection import Chosen, Tried, Way, choose, enough_patients, ways_of
from retrieval.evidence.types import CalibrationQuality
from retrieval.evidence.votes import LabelRates, rates_of, weights_of
from retrieval.filters import Filter
from retrieval.gallery import MAX_K, Gallery
from retrieval.heads import Heads

KS = (5, 10, 20, 50)  # tried unless one is asked for
FACTORS = (np.inf, 2.0, 1.0, 0.5, 0.25, 0.125)  # temperatures tried, in spreads of the neighbours' similarities
MOST_VALUES = 100  # listed one by one; the rarer ones beyond them count together
_CELLS = 1 << 22  # neighbours times values held at a time


@dataclass(frozen=True, slots=True)
class Ballot:
    """The values that are voted on, the most frequent first, and their base rates [columns]; where there are more than
    ``MOST_VALUES``, the last column stands for all the others. ``exclusive``: every case has exactly one value."""

    label: str
    rates: LabelRates
    values: tuple[str, ...]
    base: npt.NDArray[np.float64]
    exclusive: bool

    @property
    def pooled(self) -> bool:
        """Whether the last column stands for several values."""
        return len(self.base) > len(self.values)


@dataclass(frozen=True, slots=True)
class VotingFit:
    """A ballot, how its votes are counted and calibrated, and the scores of the cases asked, for operating points.

    ``truth`` [n, columns], ``folds`` [n]; ``enough``: columns with patients enough to measure; ``telling``: those of
    them that votes tell from the others better than chance. ``heads``: the state of the catalog it was fitted in.
    """

    ballot: Ballot
    chosen: Chosen
    truth: npt.NDArray[np.bool_]
    folds: Numbers
    enough: tuple[bool, ...]
    telling: tuple[bool, ...]
    quality: CalibrationQuality | None
    fitted_on: FittedOn
    heads: Heads


def voting_fit(gallery: Gallery, label: str, filters: Filter | None = None, k: int | None = None) -> VotingFit:
    """How votes on a label are to be counted in this gallery; fitted at the first call, then kept until a tenth of the
    gallery has changed. ``k`` None: chosen.

    Raises UsageError for a label that is not on file, or that is a number.
    """
    check_k(k)
    heads = gallery.catalog.heads()
    key = ("votes", label, filters, k, gallery.space().fingerprint)
    return gallery.kept.of(key, heads, len(gallery), lambda: _fitted(gallery, label, filters, k, heads))


def check_k(k: int | None) -> None:
    """UsageError unless a search can be asked for as many."""
    if k is not None and not 1 <= k <= MAX_K:
        raise UsageError(f"k must be from 1 to {MAX_K}, got {k}.")


def _fitted(gallery: Gallery, label: str, filters: Filter | None, k: int | None, heads: Heads) -> VotingFit:
    ks = KS if k is None else (k,)
    sample = read_sample(gallery, label, filters, max(ks))
    ballot = ballot_of(sample)
    members = _members(ballot, sample)
    tried = _tried(ballot, members, sample, ks)
    chosen = choose(tried)
    enough = tuple(enough_patients(column, tried.groups) for column in tried.truth.T)
    quality = None if chosen.held_out is None else quality_of(chosen.raw, chosen.held_out, tried.truth)
    telling = tuple(use and _tells(chosen, tried, column) for column, use in enumerate(enough))
    return VotingFit(ballot, chosen, tried.truth, tried.folds, enough, telling, quality, sample.fitted_on, heads)


def _tells(chosen: Chosen, tried: Tried, column: int) -> bool:
    """Whether a value is told from the others, as fitted and on held-out patients; a patient's cases count as one."""
    if chosen.held_out is None:
        return False
    truth = tried.truth[:, column]
    having, lacking = (len(np.unique(tried.groups[part])) for part in (truth, ~truth))
    least = area_by_chance(having, lacking)
    return all(auc(scores[:, column], truth) > least for scores in (chosen.fitted, chosen.held_out))


def ballot_of(sample: Sample) -> Ballot:
    """UsageError when the label is a number that takes too many values to be voted on."""
    label, labelled = sample.label, sample.labelled
    numbers = {number for number in labelled.numbers if number is not None}
    if len(numbers) > MOST_GRADES and None not in labelled.numbers:
        raise UsageError(
            f"The label '{label}' is a number with {len(numbers)} distinct values: it can be estimated, not classified."
        )
    rates = rates_of(label, labelled.patient_keys, labelled.values)
    values = tuple(rate.value for rate in rates.values[:MOST_VALUES])
    base = [rate.rate for rate in rates.values[:MOST_VALUES]]
    exclusive = all(len(set(of_case)) == 1 for of_case in labelled.values)
    if len(rates.values) > MOST_VALUES:
        rest = set(values)
        others = [("other",) if set(of_case) - rest else ("",) for of_case in labelled.values]
        base.append(rates_of(label, labelled.patient_keys, others).of("other").rate)
    return Ballot(label, rates, values, np.array(base), exclusive)


def _members(ballot: Ballot, sample: Sample) -> npt.NDArray[np.bool_]:
    """Which columns each labelled case has, [cases, columns]."""
    column = {value: n for n, value in enumerate(ballot.values)}
    members = np.zeros((len(sample.labelled.values), len(ballot.base)), dtype=bool)
    for row, of_case in enumerate(sample.labelled.values):
        members[row, [column.get(value, len(ballot.values)) for value in of_case]] = True
    return members


def _tried(ballot: Ballot, members: npt.NDArray[np.bool_], sample: Sample, ks: tuple[int, ...]) -> Tried:
    near = sample.nearest
    most = max(int((near.cases != NOBODY).sum(axis=1).max(initial=0)), 1)
    ways = ways_of(near.similarities, sorted({min(k, most) for k in ks}) if len(ks) > 1 else ks, FACTORS)
    rates = rates_without(members, sample.ties)[sample.ties.groups[sample.asked]]
    return Tried(
        ways=ways,
        votes=tuple(votes_of(near, way, members, rates) for way in ways),
        truth=members[sample.asked],
        rates=ballot.base,
        folds=sample.folds,
        groups=sample.ties.groups[sample.asked],
        exclusive=ballot.exclusive,
    )


def rates_without(members: npt.NDArray[np.bool_], ties: Ties) -> Probabilities:
    """For each group, the base rates [groups, columns] among the patients of all other groups."""
    cases = np.bincount(ties.patients).astype(np.float64)
    of_patient = np.zeros((len(cases), members.shape[1]))
    np.add.at(of_patient, ties.patients, members)
    of_patient /= cases[:, None]
    group = np.zeros(len(cases), dtype=np.int64)
    group[ties.patients] = ties.groups
    of_group = np.zeros((int(ties.groups.max()) + 1, members.shape[1]))
    np.add.at(of_group, group, of_patient)
    others = len(cases) - np.bincount(group, minlength=len(of_group)).astype(np.float64)
    return np.asarray((of_patient.sum(axis=0) - of_group) / np.maximum(others, 1.0)[:, None], dtype=np.float64)


def votes_of(near: Nearest, way: Way, members: npt.NDArray[np.bool_], rates: Probabilities) -> Probabilities:
    """Smoothed votes [q, columns] of the first k neighbours of each query; ``rates`` [q, columns]."""
    out = np.empty(rates.shape)
    step = max(1, _CELLS // (way.k * members.shape[1]))
    for start in range(0, len(rates), step):
        rows = slice(start, start + step)
        weights = weights_of(near.similarities[rows, : way.k], way.temperature)
        shares = shares_of(weights, members[near.cases[rows, : way.k]])
        out[rows] = smoothed(shares, weights, rates[rows])
    return out


def quality_of(before: Probabilities, after: Probabilities, truth: npt.NDArray[np.bool_]) -> CalibrationQuality:
    """The calibration errors of held-out cases [n, columns], before and after calibration."""
    chance = [by_chance(column) for column in after.T]
    return CalibrationQuality(
        mean_before=mean_calibration_error(before, truth),
        mean_after=mean_calibration_error(after, truth),
        confidence_before=confidence_error(before, truth),
        confidence_after=confidence_error(after, truth),
        expected=float(np.mean([each.mean for each in chance])),
    )


def column_error(fit: VotingFit, column: int) -> float | None:
    """The calibration error of one value on held-out patients; None when nobody was held out."""
    held_out = fit.chosen.held_out
    return None if held_out is None else calibration_error(held_out[:, column], fit.truth[:, column])
