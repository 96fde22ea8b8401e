"""Which value of a label a query has, by the votes of its neighbours: probabilities and what follows from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from retrieval.curves import auc
from retrieval.errors import UsageError
from retrieval.evidence.calibration import smoothed
from retrieval.evidence.operating import (
    SENSITIVITY,
    Answer,
    OperatingPoint,
    at_sensitivity,
    at_specificity,
    check_share,
    judged,
    reached,
    youden,
)
from retrieval.evidence.sample import having
from retrieval.evidence.selection import MIN_POSITIVE
from retrieval.evidence.trust import trust_notes
from retrieval.evidence.types import Classification, Cut, ValueAnswer
from retrieval.evidence.votes import LabelVotes, ValueVotes, votes_on, weights_of
from retrieval.evidence.voting import VotingFit, column_error, voting_fit
from retrieval.filters import Filter
from retrieval.gallery import Gallery
from retrieval.types import GroupBy, Query, SamePatient, SearchResult

_NOT_TOLD = (
    "No thresholds: on held-out patients the votes do not tell this value from the others better than chance might."
)
_UNLIKE = "No answer: there is no confident match, and thresholds are those of cases that have one."
_Choose = Callable[[npt.NDArray[np.float64], npt.NDArray[np.bool_]], OperatingPoint | None]


def classify(
    gallery: Gallery,
    query: Query,
    *,
    label: str,
    k: int | None = None,
    filters: Filter | None = None,
    same_patient: SamePatient = SamePatient.EXCLUDE,
    sensitivity: float = SENSITIVITY,
    specificity: float | None = None,
) -> Classification:
    """The probability of each value of ``label``, by the cases that ``gallery.search`` finds among those that have it.

    How many neighbours vote (unless ``k`` says so), how their votes are weighted and calibrated is fitted on the
    gallery with each patient left out, at the first call for a label and filter; see ``retrieval.evidence.voting``.
    A value is positive or negative by Youden's point (or, when given, that of ``specificity``) and that of
    ``sensitivity``; both are free to change from call to call. It is unknown where the search has no confident match:
    so it says neither for a picture unlike all on file. UsageError for a label that is not on file or is a
    number, for shares out of bounds, and when no neighbour has the label.
    """
    check_share("sensitivity", sensitivity)
    if specificity is not None:
        check_share("specificity", specificity)
    fit = voting_fit(gallery, label, filters, k)
    found = gallery.search(
        query, k=fit.chosen.way.k, filters=having(label, filters), same_patient=same_patient, group=GroupBy.PATIENT
    )
    votes = votes_on(found.hits, fit.ballot.rates, temperature=fit.chosen.way.temperature)
    if not votes.voters:
        raise UsageError(
            f"No case that may be found has the label '{label}': ask with a wider filter, or another label."
        )
    probabilities = probabilities_of(fit, votes, found)
    cuts = _cuts(gallery, fit, (label, filters, k), sensitivity, specificity)
    values = [
        _value(fit, n, float(probabilities[n]), votes, cuts[n], specificity) for n in range(len(fit.ballot.values))
    ]
    if found.no_confident_match:
        values = [_withheld(each) for each in values]
    values.sort(key=lambda value: (-value.probability, value.value))
    return Classification(
        label=label,
        exclusive=fit.ballot.exclusive,
        values=tuple(values),
        other=float(probabilities[-1]) if fit.ballot.pooled else 0.0,
        way=fit.chosen.way,
        method=fit.chosen.calibrator.method,
        fitted_on=fit.fitted_on,
        quality=fit.quality,
        neighbours=found,
        notes=(*_notes(fit), *trust_notes(gallery, query, same_patient, votes.voters, fit.chosen.way.k)),
    )


def probabilities_of(fit: VotingFit, votes: LabelVotes, found: SearchResult) -> npt.NDArray[np.float64]:
    """The calibrated probability of each column of the ballot."""
    share_of = {each.value: each.share for each in votes.values}
    shares = [share_of.pop(value, 0.0) for value in fit.ballot.values]
    weights = weights_of([hit.similarity for hit in found.hits], fit.chosen.way.temperature)
    if fit.ballot.pooled:
        held = [{said.value for said in hit.case.labels if said.name == fit.ballot.label} for hit in found.hits]
        listed = set(fit.ballot.values)
        shares.append(float(sum(weight for weight, of in zip(weights, held, strict=True) if of - listed)))
    smooth = smoothed(np.array([shares]), weights[None, :], fit.ballot.base)
    return np.asarray(fit.chosen.calibrator.apply(smooth)[0])


def _cuts(
    gallery: Gallery, fit: VotingFit, asked: tuple[object, ...], sensitivity: float, specificity: float | None
) -> tuple[tuple[Cut, ...], ...]:
    """The operating points of every value; read off scores that are held, and themselves held for the next call."""

    def work_out() -> tuple[tuple[Cut, ...], ...]:
        return tuple(_cuts_of(fit, n, sensitivity, specificity) for n in range(len(fit.ballot.values)))

    key = ("cuts", *asked, gallery.space().fingerprint, fit.heads, sensitivity, specificity)
    return gallery.kept.of(key, fit.heads, fit.fitted_on.gallery_size, work_out)


def _cuts_of(fit: VotingFit, column: int, sensitivity: float, specificity: float | None) -> tuple[Cut, ...]:
    """Youden's point, that of the sensitivity, and that of the specificity if one is asked for and reached.

    Thresholds are chosen on the probabilities that the calibration in use gives the cases of the sample, whose votes
    are those of other patients. What they reach is measured on the held-out probabilities, fold by fold.
    """
    held_out = fit.chosen.held_out
    if not fit.enough[column] or held_out is None:
        return ()
    ways: list[_Choose] = [youden, lambda scores, truth: at_sensitivity(scores, truth, sensitivity)]
    if specificity is not None:
        ways.append(lambda scores, truth: at_specificity(scores, truth, specificity))
    truth = fit.truth[:, column]
    return tuple(
        Cut(point, reached(held_out[:, column], truth, fit.folds, choose))
        for choose in ways
        if (point := choose(fit.chosen.fitted[:, column], truth)) is not None
    )


def _value(
    fit: VotingFit,
    column: int,
    probability: float,
    votes: LabelVotes,
    cuts: tuple[Cut, ...],
    specificity: float | None,
) -> ValueAnswer:
    value = fit.ballot.values[column]
    rate = fit.ballot.rates.of(value)
    nobody = ValueVotes(value, 0.0, 0, rate.rate, 0.0 if rate.rate else None, ())
    telling = fit.telling[column]
    rule_out = cuts[1].point if cuts and telling else None
    rule_in = _rule_in(cuts, specificity) if telling else None
    held_out, enough = fit.chosen.held_out, fit.enough[column]
    return ValueAnswer(
        value=value,
        probability=probability,
        answer=judged(probability, rule_in, rule_out) if rule_in and rule_out else Answer.UNKNOWN,
        rule_in=rule_in,
        rule_out=rule_out,
        cuts=cuts,
        votes=next((each for each in votes.values if each.value == value), nobody),
        patients=rate.patients,
        auc=auc(held_out[:, column], fit.truth[:, column]) if held_out is not None and enough else None,
        calibration_error=column_error(fit, column) if enough else None,
        note=_note(cuts, rule_in, rule_out, specificity) if telling or not cuts else _NOT_TOLD,
    )


def _withheld(told: ValueAnswer) -> ValueAnswer:
    if told.answer is Answer.UNKNOWN:
        return told
    return replace(told, answer=Answer.UNKNOWN, rule_in=None, rule_out=None, note=_UNLIKE)


def _rule_in(cuts: tuple[Cut, ...], specificity: float | None) -> OperatingPoint | None:
    if not cuts:
        return None
    if specificity is None:
        return cuts[0].point
    return cuts[2].point if len(cuts) > 2 else None


def _note(
    cuts: tuple[Cut, ...], rule_in: OperatingPoint | None, rule_out: OperatingPoint | None, specificity: float | None
) -> str:
    if not cuts:
        return (
            f"No thresholds: they need at least {MIN_POSITIVE} patients in the sample that have this value, and as "
            "many that have a case without it."
        )
    if rule_in is None or rule_out is None:
        return f"No threshold has a specificity of {specificity:.2f} here."
    if rule_out.threshold > rule_in.threshold:
        return (
            f"The rule-out threshold lies above the rule-in one: {rule_in.name} finds more than the sensitivity asked "
            "for. Between the two, one rule says yes and the other no, and the answer is 'possible'."
        )
    return ""


def _notes(fit: VotingFit) -> tuple[str, ...]:
    if fit.quality is not None:
        return ()
    return (
        f"Not calibrated: too few patients to leave some out ({fit.fitted_on.patients}). The probabilities are "
        "shares of votes, drawn towards the base rates by one more vote.",
    )
