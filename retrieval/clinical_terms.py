"""Findings that two reports say, and say are absent; how much of a reference an answer gets right. Pure.

A finding that is denied is another statement than the finding: "no effusion" does not match "effusion".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources

from retrieval.negation import Token, tokens

Terms = dict[tuple[str, ...], str]  # the words of a way to say a finding -> its name


@dataclass(frozen=True, slots=True)
class Statement:
    """A finding, said to be there or said to be absent."""

    term: str
    negated: bool


@dataclass(frozen=True, slots=True)
class Agreement:
    """Statements of an answer and of its reference: how many agree, and how many each makes."""

    agreed: int
    said: int
    wanted: int

    @property
    def precision(self) -> float:
        """Share of what is said that the reference says; NaN where nothing is said."""
        return self.agreed / self.said if self.said else float("nan")

    @property
    def recall(self) -> float:
        """Share of what the reference says that is said; NaN where it says nothing."""
        return self.agreed / self.wanted if self.wanted else float("nan")


@cache
def vocabulary() -> Terms:
    """The findings that come with the product, about 60 with their ways to be said."""
    text = resources.files("retrieval").joinpath("clinical_terms.txt").read_text(encoding="utf-8")
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    out: Terms = {}
    for name, _, others in (line.partition(":") for line in lines):
        out |= with_terms({name.strip()}, others.split(","), name.strip())
    return out


def with_terms(names: Iterable[str], others: Iterable[str] = (), name: str = "") -> Terms:
    """Terms of these names, such as the values of a label, each standing for itself (or for ``name``)."""
    said = [*names, *others]
    ways = ((tuple(one.text for one in tokens(way.replace("_", " ")) if not one.breaks), way) for way in said)
    return {words: name or " ".join(words) for words, _ in ways if words}


def statements(text: str, terms: Terms) -> frozenset[Statement]:
    """What a text says of each term. Of overlapping terms the longest counts; one said in both ways counts for both."""
    words, out, place = tokens(text), set(), 0
    longest = max(map(len, terms), default=0)
    while place < len(words):
        step = 1
        for length in range(min(longest, len(words) - place), 0, -1):
            run = words[place : place + length]
            if name := _name(run, terms):
                out.add(Statement(name, any(word.negated for word in run)))
                step = length
                break
        place += step
    return frozenset(out)


def agreement(answer: str, reference: str, terms: Terms) -> Agreement:
    """How far the statements of an answer and of a reference agree."""
    said, wanted = statements(answer, terms), statements(reference, terms)
    return Agreement(len(said & wanted), len(said), len(wanted))


def _name(run: tuple[Token, ...], terms: Terms) -> str | None:
    """The term that a run of words is, its last word also in the plural."""
    if any(word.breaks for word in run):
        return None
    words = tuple(word.text for word in run)
    singular = (*words[:-1], words[-1].removesuffix("s"))
    return terms.get(words) or terms.get(singular)
