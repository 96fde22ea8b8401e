"""Pure: text of others made fit to stand before a language model, and before people. No word is changed."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable

_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn"}  # controls, bidirectional marks, zero widths, tags, and what is no character
_FILLERS = frozenset("\u115f\u1160\u3164\uffa0\u034f\u17b4\u17b5\u2800") | {chr(n) for n in range(0xFE00, 0xFE10)}
_VARIATIONS = range(0xE0100, 0xE01F0)
_BACKTICKS = re.compile(r"`+")


def cleaned(text: str) -> str:
    """The text without characters that are not seen; every kind of line break is one line feed, a tab is a space."""
    lines = "\n".join(text.splitlines())
    return "".join(c for c in lines.replace("\t", " ") if c == "\n" or _seen(c))


def one_line(text: str) -> str:
    """``cleaned``, with single spaces for all white space: for names and values."""
    return " ".join(cleaned(text).split())


def _seen(c: str) -> bool:
    return unicodedata.category(c) not in _UNSEEN and c not in _FILLERS and ord(c) not in _VARIATIONS


def fence_of(texts: Iterable[str]) -> str:
    """A word of 32 hex digits that stands in none of the texts: of their SHA-256.

    It is the same for the same texts, and nobody can write a text that holds it: to change the text changes the word.
    """
    parts = list(texts)
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]
    while any(digest in part for part in parts):
        digest = hashlib.sha256(digest.encode()).hexdigest()[:32]
    return digest


def fenced(text: str, fence: str) -> str:
    """The text as data: between two lines that name the fence, in a code block that the text cannot close."""
    ticks = "`" * max(3, 1 + max((len(run) for run in _BACKTICKS.findall(text)), default=0))
    return f"{ticks}text\nBEGIN DATA {fence}\n{text}\nEND DATA {fence}\n{ticks}"
