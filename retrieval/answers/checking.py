"""Pure: what of a model's output may be shown. The output is never trusted: a sentence passes only when it cites, and
cites nothing but cases of the bundle."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from retrieval.evidence.cited import Evidence
from retrieval.evidence.cleaning import cleaned
from retrieval.evidence.sentences import sentences

_CITATION = re.compile(r"\[([^\[\]\n]{0,200})\]")
_LATE = re.compile(r"([.!?]+)[ \t]*((?:\[[^\[\]\n]{1,200}\][ \t]*)+)")
_TWICE = re.compile(r"([.!?])\s+[.!?](?=\s|$)")
_COMING = re.compile(r"[.!?]+[ \t]*(?:\[[^\[\]\n]{1,200}\][ \t]*)*\[[^\[\]\n]{0,200}$")  # a citation not yet closed
_ACTIVE = re.compile(r"\]\s*\(|\]\s*:|://|\bwww\.|\b(?:javascript|data):|<\s*[/!a-z]|&#|&\w+;", re.IGNORECASE)
_SPLIT = re.compile(r"\s*[,;]\s*|\s+and\s+")


class Fault(StrEnum):
    """Why a sentence was taken out."""

    UNCITED = "it cites no case"
    UNKNOWN = "it cites what is not in the evidence"
    ACTIVE = "it holds a link, an image or markup"
    CUT_OFF = "it was cut off"


@dataclass(frozen=True, slots=True)
class CutOff:
    """Stands after the last piece of a text that would have gone on. What was being said is then not known."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence that passed, and the case ids it cites, in the order of its citations."""

    text: str
    case_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Removed:
    """A sentence that did not pass."""

    text: str
    fault: Fault


Judged = Sentence | Removed


def checked(text: str, evidence: Evidence) -> Judged:
    """One sentence, judged."""
    if _ACTIVE.search(text):
        return Removed(text, Fault.ACTIVE)
    names = [name for inner in _CITATION.findall(text) for name in _SPLIT.split(inner.strip())]
    if not names:
        return Removed(text, Fault.UNCITED)
    cases = [evidence.cited(name.removeprefix("case ").strip()) for name in names]
    if None in cases or _CITATION.sub("", text).strip(" .!?-*\u2022") == "":
        return Removed(text, Fault.UNKNOWN if None in cases else Fault.UNCITED)
    return Sentence(text, tuple(dict.fromkeys(case.case_id for case in cases if case)))


def checked_stream(pieces: Iterable[str | CutOff], evidence: Evidence) -> Iterator[tuple[Judged, ...]]:
    """For each piece of a text the sentences that it completes, often none: a sentence is whole when the next one has
    begun or the text has ended.

    The last one of a text that is cut off does not pass, whole though it may seem: "no" may be what is missing.
    """
    held, cut_off = "", False
    for piece in pieces:
        if isinstance(piece, CutOff):
            cut_off = True
            break
        held += piece
        whole = []
        if not _COMING.search(held):
            *whole, held = _sentences(held)
        yield tuple(checked(text.strip(), evidence) for text in whole if text.strip())
    rest = [text.strip() for text in _sentences(cleaned(held)) if text.strip()]
    judged = [checked(text, evidence) for text in rest]
    if rest and cut_off:
        judged[-1] = Removed(rest[-1], Fault.CUT_OFF)
    yield tuple(judged)


def _sentences(text: str) -> list[str]:
    """At least one, the last of which may go on. Citations after a full stop belong to the sentence before it."""
    found: list[str] = []
    for line in _TWICE.sub(r"\1", _LATE.sub(_moved, text)).split("\n"):
        found += [cleaned(sentence) for sentence in sentences(line)] or [""]
    return found


def _moved(late: re.Match[str]) -> str:
    return f" {late[2].strip()}{late[1]} "
