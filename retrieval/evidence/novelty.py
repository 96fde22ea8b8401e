"""Pure: whether a query is like anything on file, by what is usual among the cases on file themselves.

A sample of cases has been asked for its nearest cases of other patients (``usual``). A query that is less close to its
nearest cases than nearly all of these are to theirs is of a kind that the gallery does not hold. Kinds of picture
differ in how alike they are, so a query is judged by the cases of its own modality where there are enough of them: by
what its header says, or else by that of its nearest case.

What a header says is held against the neighbours too: a CT whose nearest cases are all MR is a contradiction, if
that hardly ever happens to a CT on file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from retrieval.evidence.boundary import Boundary
from retrieval.evidence.closeness import DEPTH, Closeness, UsualCloseness
from retrieval.evidence.conformal import Values, least_count
from retrieval.evidence.modalities import kind_of
from retrieval.filters.tree import fold
from retrieval.types import Attributes, Hit, Query

STRANGE = 0.04  # at most this share of cases like those on file is called strange for how close it is ...
CONTRADICTED = 0.01  # ... and this for what its neighbours are: together the 5 % of false alarms that are promised
ASSURANCE = 0.75  # how sure the first of these is, over the samples that may be drawn
LEAST_PATIENTS = least_count(STRANGE, ASSURANCE)  # with fewer, nothing is called strange
ENOUGH = 3  # strange cases that a modality must be granted to be gone by (98 patients): else one odd case would decide
ANY = ""  # all modalities together

Told = tuple[str, str]  # modality, as ``kind_of`` names it, and body part, folded


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far cases that are told alike agree with their neighbours. ``first``: of each the place (from 1) of the first
    neighbour that is told the same, ``DEPTH`` + 1 for none of the first ``DEPTH``."""

    first: tuple[int, ...] = ()

    def p_value(self, depth: int) -> float:
        """Share, in (0, 1], of these cases and a new one that agree with none of their first ``depth`` neighbours."""
        return (sum(place > depth for place in self.first) + 1) / (len(self.first) + 1)


@dataclass(frozen=True, slots=True)
class Usual:
    """What is usual in a gallery. ``closeness``: to 1, 2 ... ``DEPTH`` neighbours, by modality as ``kind_of`` names it
    and for ``ANY``. ``boundary``: between cases and strangers, None where the encoder has seen none, or too few
    patients are on file. ``modalities``: agreement of each modality that there are cases of; ``body_parts``: of each
    that was sampled. ``complete``: whether hardly a case on file is of an unknown modality."""

    closeness: Mapping[str, tuple[UsualCloseness, ...]]
    boundary: Boundary | None
    modalities: Mapping[str, Agreement]
    body_parts: Mapping[Told, Agreement]
    complete: bool


@dataclass(frozen=True, slots=True)
class Judgement:
    """``reasons``: sentences why there is no confident match. ``cautions``: what else should be known, also of one.
    ``p_value``: of the query's closeness among that of the cases on file, in (0, 1]; None where that means nothing."""

    reasons: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    p_value: float | None = None


def judge(
    usual: Usual, query: Query, found: Closeness, hits: Sequence[Hit], on_file: Callable[[str], bool]
) -> Judgement:
    """Judge a query by image. ``found``: how close it is to its nearest cases; ``hits``: at least one, best first.

    ``on_file``: whether there is a case of a modality now, asked only when none was found.
    """
    near = [hit.case.attributes for hit in hits[:DEPTH]]
    closeness = _judge_closeness(usual, query.modality or near[0].modality, found)
    header = _judge_header(usual, query, near, on_file)
    return Judgement(closeness.reasons + header.reasons, closeness.cautions + header.cautions, closeness.p_value)


def _judge_closeness(usual: Usual, modality: str, found: Closeness) -> Judgement:
    kind = kind_of(modality)
    if kind not in usual.closeness or usual.closeness[kind][found.depth - 1].joint.granted < ENOUGH:
        kind = ANY
    among = usual.closeness[kind][found.depth - 1]
    if not among.joint.can_tell:
        told = f"{among.joint.independent}, where {LEAST_PATIENTS} are needed"
        return Judgement(cautions=(f"Too few patients are on file to tell whether this query is like them: {told}.",))
    lower = among.lower(found)
    p_value = among.joint.p_value(lower)
    if not among.joint.strange(lower):
        return Judgement(p_value=p_value)
    whose = f"{modality} cases" if kind else "cases"
    few = f" (too few patients of {modality} to go by those alone)" if modality and not kind else ""
    return Judgement((f"{_why(among, found, whose)} on file{few}.",), p_value=p_value)


def _why(among: UsualCloseness, found: Closeness, whose: str) -> str:
    """By the figure that is the less usual of the two."""
    nearer = 1 - _below(found.near, among.near)
    second = among.second_of(found)
    if second is None or (surer := 1 - _below(second, among.second)) <= nearer:
        nearest = "nearest case is" if found.depth == 1 else f"{found.depth} nearest cases are"
        return f"The {nearest} less similar ({found.near:.2f}) than those of {_percent(nearer)} of the {whose}"
    if among.sided:
        return f"The query is more like drawings of nothing medical than {_percent(surer)} of the {whose}"
    return (
        f"The {found.depth} nearest cases are less like this query ({found.near:.2f}) than they are like one another "
        f"({found.near - second:.2f}); that gap is wider than those of {_percent(surer)} of the {whose}"
    )


def _below(value: float, reference: Values) -> float:
    return float(np.searchsorted(reference, value, side="left")) / len(reference)


def _percent(share: float) -> str:
    """Rounded down: never 100 % where it is not all."""
    return f"{int(share * 100 + 1e-9)} %" if share < 1 else "all"


def _judge_header(usual: Usual, query: Query, near: Sequence[Attributes], on_file: Callable[[str], bool]) -> Judgement:
    kind = kind_of(query.modality)
    if not kind or not all(each.modality for each in near):
        return Judgement()
    met = " and ".join(dict.fromkeys(_told(each.modality, each.body_part) for each in near))
    contradiction = f"Sent as {_told(query.modality, query.body_part)}, its nearest cases are {met}."
    if all(kind_of(each.modality) != kind for each in near):
        if kind not in usual.modalities and not on_file(query.modality):
            return _weighed(f"No {query.modality} case is on file: the nearest cases are {met}.", sure=usual.complete)
        return _contradicted(contradiction, usual.modalities.get(kind), len(near))
    part = fold(query.body_part)
    if not part or not all(each.body_part for each in near) or any(fold(each.body_part) == part for each in near):
        return Judgement()
    return _contradicted(contradiction, usual.body_parts.get((kind, part)), len(near))


def _contradicted(sentence: str, agreement: Agreement | None, depth: int) -> Judgement:
    """A reason where it hardly ever happens to cases on file, else (or where too few can tell) a caution."""
    return _weighed(sentence, sure=agreement is not None and agreement.p_value(depth) <= CONTRADICTED)


def _weighed(sentence: str, *, sure: bool) -> Judgement:
    return Judgement(reasons=(sentence,)) if sure else Judgement(cautions=(sentence,))


def _told(modality: str, body_part: str) -> str:
    return f"{modality} {body_part}".strip()
