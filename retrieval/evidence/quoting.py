"""Pure: what is quoted of the neighbours' reports, within a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from retrieval.evidence.cited import Quoted
from retrieval.evidence.cleaning import cleaned
from retrieval.evidence.report_sections import SectionKind, sections_of
from retrieval.evidence.sentences import sentences


@dataclass(frozen=True, slots=True)
class Quotable:
    """The sentences of a report that may be quoted, and the heads of what may not."""

    impression: tuple[str, ...]
    findings: tuple[str, ...]
    other_sections: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(self.impression) + len(self.findings)


def quotable(report: str) -> Quotable:
    """Impression and findings, cleaned, by sentences. History, technique and the like are named, not quoted."""
    parts = sections_of(cleaned(report))

    def of(kind: SectionKind) -> tuple[str, ...]:
        return tuple(
            s for part in parts if part.kind is kind for s in sentences(f"{part.text.strip()}\n\n") if s.strip()
        )

    heads = dict.fromkeys(part.head.strip(" \t:\n") for part in parts if part.kind is SectionKind.CONTEXT)
    return Quotable(of(SectionKind.IMPRESSION), of(SectionKind.FINDINGS), tuple(heads))


def order_of_quoting(reports: Sequence[Quotable]) -> tuple[int, ...]:
    """Which report each next sentence is taken from: impressions before findings, and the better a neighbour's rank
    the more of it: the first is given two sentences by the time the second is given one, and so on."""
    turns: list[tuple[int, int, int]] = []
    for place, report in enumerate(reports):
        for part, count in enumerate((len(report.impression), len(report.findings))):
            turns += [(part, (n + 1) * (place + 1), place) for n in range(count)]
    return tuple(place for _, _, place in sorted(turns))


def quoted(report: Quotable, count: int) -> Quoted:
    """The first ``count`` sentences of a report, the impression's before the findings'."""
    of_impression = report.impression[:count]
    of_findings = report.findings[: count - len(of_impression)]
    return Quoted(
        findings="".join(of_findings).strip(),
        impression="".join(of_impression).strip(),
        sentences=report.count,
        left_out=report.count - len(of_impression) - len(of_findings),
        other_sections=report.other_sections,
    )
