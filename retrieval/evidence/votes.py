"""Pure: what the labels of neighbours say, beside how often the gallery says it anyway.

A share of votes means nothing by itself: where nine of ten patients are normal, nine of ten neighbours are too. So each
share stands beside the base rate of its value, and their quotient, the lift, says what the query has to do with it.

Votes are weighted by similarity, ``exp(similarity / temperature)``: at a high temperature all neighbours count the
same, at a low one only the nearest do. Cosines of different encoders spread differently, so there is no temperature
that suits all; ``classify`` chooses one for a label on validation folds and states it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrieval.types import Hit

EQUAL = math.inf  # the temperature at which every neighbour has the same vote

Weights = npt.NDArray[np.float64]  # [n], or [queries, n] with every row of sum 1


@dataclass(frozen=True, slots=True)
class ValueRate:
    """How often a value occurs. ``rate``: its base rate, 0 to 1: the mean over patients of the share of each one's
    labelled cases that have it. ``patients``: how many of them have it in any case."""

    value: str
    rate: float
    cases: int
    patients: int


@dataclass(frozen=True, slots=True)
class LabelRates:
    """How often the values of one label occur, the most frequent first. Cases without the label are not counted."""

    label: str
    cases: int
    patients: int
    values: tuple[ValueRate, ...]

    def of(self, value: str) -> ValueRate:
        """That of one value; a rate of 0 for one that is not on file."""
        return next((rate for rate in self.values if rate.value == value), ValueRate(value, 0.0, 0, 0))


@dataclass(frozen=True, slots=True)
class ValueVotes:
    """What the neighbours say of one value. ``share``: its part of the weight of all voters, 0 to 1; several values of
    one case each have that case's whole vote. ``lift``: share over base rate, None for a value with no base rate.
    """

    value: str
    share: float
    count: int  # neighbours that have it
    base_rate: float
    lift: float | None
    case_ids: tuple[str, ...]  # those neighbours, the most similar first


@dataclass(frozen=True, slots=True)
class LabelVotes:
    """The vote on one label: ``voters`` of the hits have it. ``values``: the largest share first."""

    label: str
    voters: int
    values: tuple[ValueVotes, ...]


def rates_of(label: str, patient_keys: Sequence[str], values: Sequence[Iterable[str]]) -> LabelRates:
    """The base rates of a label, of one patient key ("" when unknown: a patient of its own) and its values per case.

    A patient counts once however many cases there are of it, as in a search, which keeps one hit per patient.
    """
    cases_of: dict[str, int] = defaultdict(int)
    having: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))  # value -> patient -> cases
    for n, (key, of_case) in enumerate(zip(patient_keys, values, strict=True)):
        if held := set(of_case):
            patient = key or f"\x00{n}"
            cases_of[patient] += 1
            for value in held:
                having[value][patient] += 1
    rates = [
        ValueRate(
            value=value,
            rate=math.fsum(count / cases_of[patient] for patient, count in held.items()) / len(cases_of),
            cases=sum(held.values()),
            patients=len(held),
        )
        for value, held in having.items()
    ]
    rates.sort(key=lambda rate: (-rate.rate, rate.value))
    return LabelRates(label, sum(cases_of.values()), len(cases_of), tuple(rates))


def weights_of(similarities: npt.ArrayLike, temperature: float) -> Weights:
    """Softmax of similarities / temperature along the last axis; what has the similarity -inf gets no weight.

    ``temperature``: greater than 0, in units of the similarity; ``EQUAL`` for equal votes. A row without any voter is
    all zeros.
    """
    known = np.asarray(similarities, dtype=np.float64)
    voting = np.isfinite(known)
    peak = np.max(known, axis=-1, keepdims=True, initial=-np.inf)
    with np.errstate(invalid="ignore"):
        powers = np.where(voting, np.exp((known - peak) / temperature), 0.0)
    total = powers.sum(axis=-1, keepdims=True)
    return np.asarray(np.divide(powers, total, out=np.zeros_like(powers), where=total > 0))


def vote_table(
    hits: Sequence[Hit], rates: Iterable[LabelRates], *, temperature: float = EQUAL
) -> tuple[LabelVotes, ...]:
    """The votes of the hits on each of the labels in ``rates``, in their order; a label no hit has, without values."""
    return tuple(votes_on(hits, of_label, temperature=temperature) for of_label in rates)


def votes_on(hits: Sequence[Hit], rates: LabelRates, *, temperature: float = EQUAL) -> LabelVotes:
    """The vote of those hits that have the label; the others are not asked."""
    held = [_values(hit, rates.label) for hit in hits]
    voters = [hit for hit, values in zip(hits, held, strict=True) if values]
    weights = weights_of([hit.similarity for hit in voters], temperature)
    said: dict[str, list[int]] = defaultdict(list)
    for n, values in enumerate(filter(None, held)):
        for value in values:
            said[value].append(n)
    votes = [
        _votes(rates.of(value), float(weights[ns].sum()), [voters[n].case.case_id for n in ns])
        for value, ns in said.items()
    ]
    votes.sort(key=lambda of_value: (-of_value.share, of_value.value))
    return LabelVotes(rates.label, len(voters), tuple(votes))


def _values(hit: Hit, label: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(said.value for said in hit.case.labels if said.name == label))


def _votes(rate: ValueRate, share: float, case_ids: list[str]) -> ValueVotes:
    share = min(share, 1.0)  # the sum of all weights may be a rounding above it
    return ValueVotes(
        value=rate.value,
        share=share,
        count=len(case_ids),
        base_rate=rate.rate,
        lift=share / rate.rate if rate.rate else None,
        case_ids=tuple(case_ids),
    )
