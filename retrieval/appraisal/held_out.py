"""Votes of neighbours, probabilities and thresholds, each judged on patients that had no part in choosing it.

Patients are dealt into folds. For each fold the other folds are the gallery: there cases are asked against cases of
other patients, and on these answers everything is chosen as ``classify`` chooses it: how many neighbours vote and with
what weights, the calibration, then the thresholds. The cases of the fold are then asked against that same gallery. So
nothing of a patient, not even a label lent to a neighbour, has a part in a choice that its figures depend on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrieval.appraisal.observation import Observed
from retrieval.evidence.neighbours import NOBODY, Nearest, Ties
from retrieval.evidence.operating import Chooser, at_sensitivity, at_specificity, youden
from retrieval.evidence.sample import MOST_QUERIES, folds_of
from retrieval.evidence.selection import Chosen, Tried, choose, ways_of
from retrieval.evidence.voting import FACTORS, KS, rates_without, votes_of
from retrieval.leave_one_out import Cohort

POINTS: tuple[tuple[str, Chooser], ...] = (
    ("youden", youden),
    ("sensitivity>=0.90", lambda scores, truth: at_sensitivity(scores, truth, 0.90)),
    ("specificity>=0.90", lambda scores, truth: at_specificity(scores, truth, 0.90)),
)

Shares = npt.NDArray[np.float64]  # [queries, values], 0 to 1
Flags = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """For each query [q] and measured value [v]: the share of the vote, the probability, whether it is true.

    ``flagged``: for each operating point by name, whether the probability reaches the threshold of the query's fold,
    bool [q, v]; ``thresholds``: these, [folds, v], infinite where none could be set. ``ways``: what each fold chose.
    """

    shares: Shares
    probabilities: Shares
    truth: Flags
    flagged: dict[str, Flags]
    thresholds: dict[str, Shares]
    ways: tuple[str, ...]


def hold_out(cohort: Cohort, observed: Observed, measured: Numbers, seed: int) -> HeldOut:
    """Ask each fold against the others. ``measured``: columns of the values, of each of which there is enough."""
    fold_of_case = folds_of(cohort.patients)
    fold_of_query = fold_of_case[observed.queries]
    members = _columns(cohort, measured)
    truth = members[observed.queries]
    count = int(fold_of_case.max()) + 1
    shares, probabilities = np.zeros(truth.shape), np.zeros(truth.shape)
    thresholds = {name: np.full((count, len(measured)), np.inf) for name, _ in POINTS}
    ways = []
    for fold in range(count):
        asked = _Asked.of(cohort, observed, members, fold_of_case, fold, seed)
        chosen = asked.choose(members)
        held = np.flatnonzero(fold_of_query == fold)
        shares[held], probabilities[held] = asked.answers(members, chosen, held)
        way, method = chosen.way, chosen.calibrator.method
        ways.append(f"{way.k} voters, temperature {way.temperature:.3g}, calibration {method}")
        fitted = chosen.fitted if chosen.held_out is None else chosen.held_out
        for name, set_threshold in POINTS:
            for value in range(len(measured)):
                outcomes = truth[asked.chosen_on, value]
                if outcomes.any() and not outcomes.all() and (point := set_threshold(fitted[:, value], outcomes)):
                    thresholds[name][fold, value] = point.threshold
    kept = slice(None, len(measured))
    flagged = {name: probabilities[:, kept] >= of_fold[fold_of_query] for name, of_fold in thresholds.items()}
    return HeldOut(shares[:, kept], probabilities[:, kept], truth[:, kept], flagged, thresholds, tuple(ways))


def _columns(cohort: Cohort, measured: Numbers) -> Flags:
    """Which measured values each case has, and in a last column, if there are others, whether it has any of those."""
    members = cohort.members > 0
    others = np.asarray(np.delete(members, measured, axis=1), dtype=bool)
    columns = [members[:, measured]]
    if others.any():
        columns.append(np.asarray(others.any(axis=1))[:, None])
    return np.concatenate(columns, axis=1)


@dataclass(frozen=True, slots=True)
class _Asked:
    """The gallery without one fold: neighbours of every query there, on whom is chosen, base rates there."""

    near: Nearest  # [q, m]
    chosen_on: Numbers  # queries of other folds, or a sample of them
    folds: Numbers  # of ``chosen_on``, dealt anew
    groups: Numbers  # patients of ``chosen_on``
    truth: Flags  # of ``chosen_on``, [n, columns]
    rates: Shares  # of ``chosen_on``, without their own patient, [n, columns]
    base: Shares  # [columns]
    exclusive: bool

    @classmethod
    def of(
        cls, cohort: Cohort, observed: Observed, members: Flags, fold_of_case: Numbers, fold: int, seed: int
    ) -> _Asked:
        inside = fold_of_case != fold
        candidates = np.flatnonzero(inside[observed.queries])
        drawn = np.random.default_rng([seed, fold]).permutation(candidates)[:MOST_QUERIES]
        chosen_on = np.sort(drawn)
        patients = cohort.patients[inside]
        known, number = np.unique(patients, return_inverse=True)
        rates = rates_without(members[inside], Ties(number, number))
        groups = cohort.patients[observed.queries[chosen_on]]
        cases = np.bincount(number).astype(np.float64)
        of_patient = np.zeros((len(known), members.shape[1]))
        np.add.at(of_patient, number, members[inside])
        return cls(
            near=_within(observed, inside),
            chosen_on=chosen_on,
            folds=folds_of(groups),
            groups=groups,
            truth=members[observed.queries[chosen_on]],
            rates=rates[np.searchsorted(known, groups)],
            base=(of_patient / cases[:, None]).mean(axis=0),
            exclusive=bool((cohort.members[inside].sum(axis=1) == 1).all()),
        )

    def choose(self, members: Flags) -> Chosen:
        """What ``classify`` would choose in this gallery."""
        near = self._rows(self.chosen_on)
        most = max(int((near.cases != NOBODY).sum(axis=1).max(initial=0)), 1)
        ways = ways_of(near.similarities, sorted({min(k, most) for k in KS}), FACTORS)
        votes = tuple(votes_of(near, way, members, self.rates) for way in ways)
        return choose(Tried(ways, votes, self.truth, self.base, self.folds, self.groups, self.exclusive))

    def answers(self, members: Flags, chosen: Chosen, queries: Numbers) -> tuple[Shares, Shares]:
        """Votes and probabilities of queries of the fold that was left out, each [n, columns]."""
        rates = np.broadcast_to(self.base, (len(queries), len(self.base)))
        votes = votes_of(self._rows(queries), chosen.way, members, rates)
        return votes, chosen.calibrator.apply(votes)

    def _rows(self, queries: Numbers) -> Nearest:
        return Nearest(self.near.cases[queries], self.near.similarities[queries])


def _within(observed: Observed, inside: Flags) -> Nearest:
    """The first neighbours of each query that lie in a part of the gallery, as many as may vote."""
    kept = (observed.near != NOBODY) & inside[observed.near]
    places = np.argsort(~kept, axis=1, kind="stable")[:, : max(KS)]
    there = np.take_along_axis(kept, places, axis=1)
    cases = np.take_along_axis(observed.near, places, axis=1)
    similarities = np.take_along_axis(observed.similarities, places, axis=1)
    return Nearest(np.where(there, cases, NOBODY), np.where(there, similarities, -np.inf).astype(np.float32))
