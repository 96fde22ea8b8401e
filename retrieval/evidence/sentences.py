"""Pure: a text as its sentences. Joined again, they are the text.

A sentence is what a budget may leave out, so the cut must never part a negation from what it negates: a full stop ends
a sentence only where a new one begins, a wrapped line ends none, and a list that a colon opens ("No evidence of:")
stays with the words that open it. Where in doubt, two sentences are taken for one.
"""

from __future__ import annotations

import re

_ABBREVIATIONS = frozenset(
    (
        "approx", "ca", "cf", "dr", "drs", "dx", "e.g", "eg", "et", "ft", "hx", "i.e", "ie", "jr",
        "max", "min", "mr", "mrs", "ms", "prof", "resp", "sr", "st", "u.s", "v", "vs", "viz",
    )
)  # fmt: skip
_END = re.compile(r"[.!?]+[\"')\]]*(?=\s)|\n(?=\s*\n)|\n(?=[ \t]*(?:[-*\u2022]|\(?\d{1,2}[.)])[ \t])")
_NEXT = re.compile(r"\s*(?:[-*\u2022]\s|[\"'(\[]*(?:[^\W_a-z]))")
_MARK = re.compile(r"\s*(?:[-*\u2022]|\(?\d{1,2}[.)])\s")
_ONLY_MARK = re.compile(r"\s*\(?\d{1,2}[.)]")
_OPENS = re.compile(r":\s*(?:\n|(?:[-*\u2022]|\(?1[.)])(?:\s|$))")
_NUMBERED = frozenset(("no", "nos", "fig", "figs"))  # abbreviations before a number, words of their own elsewhere
_JOINING = frozenset(
    (
        "a", "an", "and", "any", "as", "at", "by", "for", "from", "in", "no", "nor", "not", "of",
        "on", "or", "the", "to", "versus", "with", "without",
    )
)  # fmt: skip  # what no sentence ends with, though the line does


def sentences(text: str) -> tuple[str, ...]:
    """The sentences in order, each with the white space that follows it."""
    found: list[str] = []
    start = 0
    for end in _END.finditer(text):
        if _ends(text, start, end):
            stop = end.end() + len(text[end.end() :]) - len(text[end.end() :].lstrip())
            found.append(text[start:stop])
            start = stop
    if start < len(text):
        found.append(text[start:])
    return tuple(found)


def _ends(text: str, start: int, end: re.Match[str]) -> bool:
    said = text[start : end.end()]
    rest = text[end.end() :]
    if not said.strip() or not _NEXT.match(rest) or _ONLY_MARK.fullmatch(said):
        return False
    if _in_list(said, rest):
        return False
    words = said.rstrip(".\n ").split()
    word = words[-1].lstrip("(\"'[").lower() if words else ""
    if end[0].startswith("\n"):  # after "Fig." a wrapped "2)" is no item of a list
        shortened = said.rstrip().endswith(".") and (word in _NUMBERED or word in _ABBREVIATIONS)
        return word not in _JOINING and not shortened
    if not end[0].startswith("."):
        return True
    if word in _NUMBERED and rest.lstrip()[:1].isdigit():
        return False
    return word not in _ABBREVIATIONS and not re.fullmatch(r"[a-z]", word)


def _in_list(said: str, rest: str) -> bool:
    """Whether a list that a colon opened goes on, or may: over items on lines, or numbers within a line."""
    if said.rstrip().endswith(":"):
        return True
    return bool(_OPENS.search(said)) and ("\n" not in rest[: len(rest) - len(rest.lstrip())] or bool(_MARK.match(rest)))
