"""Answers by retrieval alone: votes of neighbours, and what the nearest of them says. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from indexer.radbench.layout import Question, Task
from retrieval.evidence.modalities import kind_of
from retrieval.types import Case

_PUNCTUATION = re.compile(r"[^\w\s]")


@dataclass(frozen=True, slots=True)
class Answer:
    """``texts``: the answer; several diseases of one case. ``cited``: cases it rests on. Empty when none has one."""

    texts: tuple[str, ...]
    cited: tuple[str, ...]
    diagnosis: str = ""


@dataclass(frozen=True, slots=True)
class Reference:
    """What is answered from: how often each value of the diagnosis occurs, and which labels are the diagnosis."""

    label: str
    rates: dict[str, float]  # share of cases with the label that have each value

    @classmethod
    def of(cls, cases: Sequence[Case], label: str) -> Reference:
        held = [values for case in cases if (values := values_of(case, label))]
        counts = Counter(value for values in held for value in values)
        return cls(label, {value: count / len(held) for value, count in counts.items()})


def answer(question: Question, neighbours: Sequence[Case], reference: Reference) -> Answer:
    """The answer of these cases, the most similar first."""
    if question.task is Task.MODALITY:
        return _recognised(neighbours)
    if question.task is Task.DIAGNOSIS:
        return _diagnosed(question, neighbours, reference)
    if question.task is Task.VQA:
        return _asked(question, neighbours)
    report = next((case for case in neighbours if case.report), None)
    if report is None:
        return Answer((), ())
    diagnosis = _voted(neighbours, [values_of(case, reference.label) for case in neighbours])
    cited = tuple(dict.fromkeys((report.case_id, *diagnosis.cited)))
    return Answer((report.report,), cited, next(iter(diagnosis.texts), ""))


def values_of(case: Case, label: str) -> tuple[str, ...]:
    """The values that a case has of one label, as they are compared."""
    return tuple(dict.fromkeys(plain(said.value) for said in case.labels if said.name == label))


def plain(text: str) -> str:
    """As whole answers are compared: no capitals, no punctuation, single spaces; "infected" is not "not infected"."""
    return " ".join(_PUNCTUATION.sub(" ", text.replace("_", " ")).casefold().split())


def _voted(neighbours: Sequence[Case], said: Sequence[tuple[str, ...]]) -> Answer:
    """The value of most neighbours, of the nearer one where there are as many."""
    counts = Counter(value for values in said for value in values)
    if not counts:
        return Answer((), ())
    best = max(counts, key=lambda value: counts[value])  # the first of equals: counted by rising rank
    return Answer((best,), tuple(case.case_id for case, values in zip(neighbours, said, strict=True) if best in values))


def _recognised(neighbours: Sequence[Case]) -> Answer:
    """The modality, in the word of the nearest of the neighbours that have it: DX and CR vote together."""
    named = [case for case in neighbours if case.attributes.modality]
    votes = _voted(named, [(kind_of(case.attributes.modality),) for case in named])
    word = next((case.attributes.modality for case in named if case.case_id in votes.cited), None)
    return Answer((word,), votes.cited) if word else votes


def _diagnosed(question: Question, neighbours: Sequence[Case], reference: Reference) -> Answer:
    """Yes where a disease is more frequent among neighbours than on file; else the values that half of them have."""
    said = [values_of(case, reference.label) for case in neighbours]
    voters = [values for values in said if values]
    if not voters:
        return Answer((), ())
    if question.disease:
        asked = plain(question.disease)
        having = [case.case_id for case, values in zip(neighbours, said, strict=True) if asked in values]
        yes = len(having) / len(voters) > reference.rates.get(asked, 0.0)
        cited = having if yes else [case.case_id for case, values in zip(neighbours, said, strict=True) if values]
        return Answer(("yes" if yes else "no",), tuple(cited))
    counts = Counter(value for values in voters for value in values)
    half = tuple(sorted(value for value, count in counts.items() if 2 * count >= len(voters)))
    if not half:
        return _voted(neighbours, said)
    cited = [case.case_id for case, values in zip(neighbours, said, strict=True) if set(half) & set(values)]
    return Answer(half, tuple(cited))


def _asked(question: Question, neighbours: Sequence[Case]) -> Answer:
    """The value, voted by those that have it, of the label whose name is most like the question."""
    names = {said.name for case in neighbours for said in case.labels}
    if not names:
        return Answer((), ())
    best = max(sorted(names), key=lambda name: likeness(question.text, name))
    if likeness(question.text, best) == 0:
        return Answer((), ())
    return _voted(neighbours, [values_of(case, best) for case in neighbours])


def likeness(one: str, other: str) -> float:
    """Words that two texts share, over all words of both (Jaccard)."""
    first, second = set(plain(one).split()), set(plain(other).split())
    return len(first & second) / len(first | second) if first | second else 0.0
