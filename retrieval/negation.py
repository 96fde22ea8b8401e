"""Which words of a report are said to be absent. Pure.

After NegEx (Chapman et al., "A simple algorithm for identifying negated findings and diseases in discharge summaries",
J Biomed Inform 34, 2001): some phrases negate what follows ("no", "without"), some what precedes them ("is not seen"),
some look like negations and are none ("no change"), and some end what a negation reaches ("but", ";", the sentence).
Words said to be possible count as said; which of them are findings at all is not decided here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

BEFORE = (
    "no evidence of", "no evidence for", "no signs of", "no sign of", "no suspicious", "no new", "no definite",
    "no radiographic evidence of", "without evidence of", "negative for", "absence of", "free of", "clear of",
    "rather than", "rules out", "ruled out for", "has no", "have no", "not demonstrate", "not show", "denies",
    "nothing to suggest", "resolution of", "no longer has", "no longer shows",
    "without", "never had", "neither", "nor", "not", "no",
)  # fmt: skip
AFTER = (
    "is not seen", "are not seen", "not seen", "is not present", "are not present", "not present", "is not identified",
    "are not identified", "not identified", "is not evident", "are not evident", "not evident", "is not visualized",
    "is not visualised", "not visualized", "not visualised", "not demonstrated", "is ruled out", "are ruled out",
    "was ruled out", "has been ruled out", "ruled out", "is absent", "are absent", "absent", "is unlikely",
    "is no longer seen", "are no longer seen", "no longer seen", "is no longer present", "are no longer present",
    "no longer present", "is no longer visualized", "is no longer visualised", "no longer visualized",
    "no longer visualised", "is no longer identified", "no longer identified", "is no longer evident",
    "no longer evident", "are unlikely", "unlikely", "has resolved", "have resolved", "is excluded", "are excluded",
    "excluded", "denied", "is denied", "are denied",
)  # fmt: skip
ALONE = {"none", "nil", "no", "absent", "negative"}  # after a colon: "Effusion: none."
PSEUDO = (
    "no change", "no interval change", "no significant change", "no significant interval change", "without change",
    "without significant change", "no increase", "no interval increase", "no decrease", "not changed", "not increased",
    "not only", "not necessarily", "not certain if", "not certain whether", "not excluded", "cannot be excluded",
    "can not be excluded", "not be excluded", "not ruled out", "cannot be ruled out", "not be ruled out", "no further",
)  # fmt: skip
ENDS = (
    "but", "however", "although", "though", "nevertheless", "yet", "except for", "except", "apart from", "aside from",
    "other than", "secondary to", "due to", "which", "there is", "there are", "still", "now",
)  # fmt: skip

_KINDS = (("pseudo", PSEUDO), ("after", AFTER), ("before", BEFORE), ("end", ENDS))
_WORD = re.compile(r"[a-z0-9]+(?:['-][a-z0-9]+)*|[,;:.!?\n]")
_SENTENCE_ENDS = {".", ";", ":", "!", "?", "\n"}
_DECIMAL = re.compile(r"(?<=\d)\.(?=\d)")


@dataclass(frozen=True, slots=True)
class Token:
    """A word, in lower case, and whether it is said to be absent. ``breaks``: punctuation that no phrase runs over."""

    text: str
    negated: bool
    breaks: bool = False


def tokens(text: str) -> tuple[Token, ...]:
    """The words of a text with what negations make of them; commas and ends of sentences stand as breaks."""
    words = _WORD.findall(_DECIMAL.sub("-", text.lower()))
    negated = [False] * len(words)
    before = range(0)
    for start, end in _sentences(words):
        for place in _negated_places(words[start:end]):
            negated[start + place] = True
        if end - start == 1 and words[start] in ALONE and start and words[start - 1] == ":":
            for place in before:
                negated[place] = True
        before = range(start, end)
    return tuple(
        Token(word, flag, word in _SENTENCE_ENDS or word == ",") for word, flag in zip(words, negated, strict=True)
    )


def _sentences(words: list[str]) -> Iterator[tuple[int, int]]:
    start = 0
    for place, word in enumerate([*words, "."]):
        if word in _SENTENCE_ENDS:
            yield start, place
            start = place + 1


def _negated_places(words: list[str]) -> set[int]:
    """Of one sentence."""
    out: set[int] = set()
    phrases = list(_phrases(words))
    for number, (kind, start, end) in enumerate(phrases):
        if kind == "before":
            out.update(range(end, _scope_end(words, phrases[number + 1 :])))
        elif kind == "after":
            out.update(range(_scope_start(words, phrases[:number], start), start))
    return out


def _scope_end(words: list[str], following: list[tuple[str, int, int]]) -> int:
    """A negation reaches to the next phrase that ends it, or to the end of the sentence."""
    return next((start for kind, start, _ in following if kind in {"end", "pseudo"}), len(words))


def _scope_start(words: list[str], before: list[tuple[str, int, int]], start: int) -> int:
    """A negation that comes after reaches back to the last phrase or comma."""
    last_phrase = max((end for kind, _, end in before if kind in {"end", "pseudo"}), default=0)
    last_comma = max((place + 1 for place in range(start) if words[place] == ","), default=0)
    return max(last_phrase, last_comma)


def _phrases(words: list[str]) -> Iterator[tuple[str, int, int]]:
    """(kind, start, end) of every phrase, the longest where several begin, without overlap."""
    place = 0
    while place < len(words):
        found = next(
            (one for one in _table().get(words[place], ()) if tuple(words[place : place + len(one[1])]) == one[1]), None
        )
        if found:
            yield found[0], place, place + len(found[1])
        place += len(found[1]) if found else 1


@cache
def _table() -> dict[str, tuple[tuple[str, tuple[str, ...]], ...]]:
    """Phrases by their first word, the longest first; of equal ones, in the order of ``_KINDS``."""
    table: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    for kind, phrases in _KINDS:
        for phrase in phrases:
            words = tuple(phrase.split())
            table.setdefault(words[0], []).append((kind, words))
    return {first: tuple(sorted(found, key=lambda one: -len(one[1]))) for first, found in table.items()}
