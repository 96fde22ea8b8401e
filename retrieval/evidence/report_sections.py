"""Pure: a report as the sections its author wrote. Nothing is lost: joined again, the sections are the report."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


class SectionKind(StrEnum):
    """What a section is for."""

    FINDINGS = "findings"
    IMPRESSION = "impression"
    CONTEXT = "context"  # why and how the study was done: history, technique, comparison


_HEADS = {
    SectionKind.FINDINGS: ("findings", "finding", "caption", "description", "report", "observations"),
    SectionKind.IMPRESSION: (
        "impressions", "impression", "conclusions", "conclusion", "opinion", "summary", "diagnosis", "interpretation",
    ),
    SectionKind.CONTEXT: (
        "clinical indication", "indications", "indication", "reason for examination", "reason for exam",
        "clinical history", "clinical information", "history", "comparisons", "comparison", "technique", "procedure",
        "examination", "exam", "differential diagnosis", "differential", "discussion", "treatment", "follow-up",
        "recommendations", "recommendation",
    ),
}  # fmt: skip
_KIND_OF = {name: kind for kind, names in _HEADS.items() for name in names}
_NAMES = "|".join(re.escape(name).replace(r"\ ", r"[ \t]+") for name in sorted(_KIND_OF, key=len, reverse=True))
_NUMBER = r"(?:\(?\d{1,2}[.)][ \t]*)?"
_LINE = rf"^[ \t]*{_NUMBER}(?P<line>{_NAMES})(?:[ \t]*:|[ \t]*$)"  # at the start of a line: a colon, or the line alone
_INLINE = rf"(?<!\S){_NUMBER}(?P<inline>{_NAMES})[ \t]*:"  # within a line: a capital and a colon
_HEAD = re.compile(f"{_LINE}|{_INLINE}", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Section:
    """``head``: as written, with its number and colon; "" for text before any head. ``text``: what follows it."""

    kind: SectionKind
    head: str
    text: str


def sections_of(report: str) -> tuple[Section, ...]:
    """The sections in their order; text without a head is findings. ``head + text`` of all, joined, is the report."""
    heads = [found for found in _HEAD.finditer(report) if found["line"] or found["inline"][0].isupper()]
    starts = [found.start() for found in heads]
    sections = [Section(SectionKind.FINDINGS, "", report[: starts[0] if starts else len(report)])]
    for found, end in zip(heads, [*starts, len(report)][1:], strict=True):
        name = " ".join((found["line"] or found["inline"]).lower().split())
        sections.append(Section(_KIND_OF[name], found[0], report[found.end() : end]))
    return tuple(section for section in sections if section.head or section.text)
