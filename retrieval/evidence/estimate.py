"""Which number of a label a query has, by the numbers of its neighbours, and how sure that is."""

from __future__ import annotations

import numpy as np

from retrieval.errors import UsageError
from retrieval.evidence.estimating import LEVEL, EstimatingFit, estimating_fit
from retrieval.evidence.intervals import centre_of, least_for, spread_of
from retrieval.evidence.sample import having
from retrieval.evidence.trust import trust_notes
from retrieval.evidence.types import Estimate, NumberVote
from retrieval.evidence.votes import weights_of
from retrieval.filters import Filter
from retrieval.gallery import Gallery
from retrieval.types import GroupBy, Hit, Query, SamePatient

_UNLIKE = "No interval: there is no confident match, and errors were measured on cases that have one."


def estimate(
    gallery: Gallery,
    query: Query,
    *,
    label: str,
    k: int | None = None,
    filters: Filter | None = None,
    same_patient: SamePatient = SamePatient.EXCLUDE,
    level: float = LEVEL,
) -> Estimate:
    """A number of ``label`` with a prediction interval, by the cases ``gallery.search`` finds among those with one.

    How many neighbours count (unless ``k`` says so), with which weights, by mean or median, and what errors are
    measured by, is fitted on the gallery with each patient left out, at the first call for a label and filter; see
    ``retrieval.evidence.estimating``. ``level``, above 0 and below 1, is free to change from call to call. UsageError
    for a label that is not on file or has no numbers, for a level out of bounds, and when no neighbour has a number.
    """
    if not 0 < level < 1:
        raise UsageError(f"Expected a level above 0 and below 1, got {level}.")
    fit = estimating_fit(gallery, label, filters, k)
    wanted = having(label, filters, numeric=True)
    found = gallery.search(query, k=fit.way.k, filters=wanted, same_patient=same_patient, group=GroupBy.PATIENT)
    known = [(hit, number) for hit in found.hits if (number := number_of(hit, label)) is not None]
    if not known:
        raise UsageError(f"No case that may be found has a number of '{label}': ask with a wider filter.")
    numbers = np.array([[number for _, number in known]])
    weights = weights_of([[hit.similarity for hit, _ in known]], fit.way.temperature)
    number, spread = float(centre_of(numbers, weights, fit.centre)[0]), float(spread_of(numbers, weights)[0])
    unlike = found.no_confident_match
    low, high = (None if unlike else fit.interval(number, spread, level)) or (None, None)
    return Estimate(
        label=label,
        number=number,
        low=low,
        high=high,
        level=level,
        spread=spread,
        base=fit.base,
        way=fit.way,
        centre=fit.centre,
        scale=fit.scale,
        fitted_on=fit.fitted_on,
        quality=None if fit.held_out is None else fit.held_out.quality(level),
        voters=tuple(
            NumberVote(hit.case.case_id, hit.similarity, theirs, float(weight))
            for (hit, theirs), weight in zip(known, weights[0], strict=True)
        ),
        neighbours=found,
        notes=(
            *(_notes(fit, level) or ((_UNLIKE,) if unlike else ())),
            *trust_notes(gallery, query, same_patient, len(known), fit.way.k),
        ),
    )


def number_of(hit: Hit, label: str) -> float | None:
    """The case's first number of the label."""
    return next((said.number for said in hit.case.labels if said.name == label and said.number is not None), None)


def _notes(fit: EstimatingFit, level: float) -> tuple[str, ...]:
    if fit.held_out is None:
        return (f"No interval: too few patients to leave some out ({fit.fitted_on.patients}).",)
    if len(fit.errors) < least_for(level):
        return (f"No interval: a level of {level:g} needs {least_for(level)} cases, the sample has {len(fit.errors)}.",)
    return ()
