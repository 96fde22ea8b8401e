"""Reports as sections and sentences: nothing lost, nothing turned round."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.evidence.report_sections import SectionKind, sections_of
from retrieval.evidence.sentences import sentences

WORDS = st.sampled_from(
    ["FINDINGS:", "Impression:", "impression", "1. ", "2) ", "CONCLUSION", "History:", "\n", "\n\n", " ", ". ", "No ",
     "evidence of", ":\n- ", "Mass", "3.5 cm", "Dr. ", "e.g. ", "?", "\r\n", "\u2028"]
)  # fmt: skip
TEXTS = st.one_of(st.text(), st.lists(WORDS).map("".join))


def kinds(report: str) -> list[tuple[SectionKind, str]]:
    return [(section.kind, section.text.strip()) for section in sections_of(report)]


@given(TEXTS)
def test_sections_joined_are_the_report(report: str) -> None:
    assert "".join(section.head + section.text for section in sections_of(report)) == report


@given(TEXTS)
def test_sentences_joined_are_the_text(text: str) -> None:
    assert "".join(sentences(text)) == text


@pytest.mark.parametrize(
    "report",
    [
        "INDICATION: Cough.\nFINDINGS: Lungs are clear.\nIMPRESSION: Normal.",
        "indication: Cough.\nfindings:\nLungs are clear.\nimpression:\nNormal.",
        "1. INDICATION: Cough.\n2. FINDINGS: Lungs are clear.\n3. OPINION: Normal.",
        "INDICATION\nCough.\nFINDINGS\nLungs are clear.\nCONCLUSION\nNormal.",
        "History: Cough. Findings: Lungs are clear. Diagnosis: Normal.",
    ],
)
def test_heads_as_people_write_them(report: str) -> None:
    assert kinds(report) == [
        (SectionKind.CONTEXT, "Cough."),
        (SectionKind.FINDINGS, "Lungs are clear."),
        (SectionKind.IMPRESSION, "Normal."),
    ]


def test_a_report_without_heads_is_findings() -> None:
    report = "Compared with the history of the findings: a mass. No impression on the cord."
    assert kinds(report) == [(SectionKind.FINDINGS, report)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No evidence of pneumonia. Heart normal.", ["No evidence of pneumonia.", "Heart normal."]),
        ("No evidence of\npneumonia. Heart normal.", ["No evidence of\npneumonia.", "Heart normal."]),
        ("Seen by Dr. Smith. Mass approx. 3.5 cm. Stable.", ["Seen by Dr. Smith.", "Mass approx. 3.5 cm.", "Stable."]),
        ("No mass, e.g. Hamartoma, seen. Clear.", ["No mass, e.g. Hamartoma, seen.", "Clear."]),
        ("No evidence of:\n- Pneumonia.\n- Effusion.", ["No evidence of:\n- Pneumonia.\n- Effusion."]),
        ("No evidence of: 1. Pneumonia 2. Effusion", ["No evidence of: 1. Pneumonia 2. Effusion"]),
        ("No evidence of\n\nPneumonia.", ["No evidence of\n\nPneumonia."]),
        ("1. No mass. 2. Clear.", ["1. No mass.", "2. Clear."]),
        ("- No mass\n- Clear", ["- No mass", "- Clear"]),
        ("Is there a mass? No. Clear!", ["Is there a mass?", "No.", "Clear!"]),
    ],
)
def test_a_sentence_is_whole(text: str, expected: list[str]) -> None:
    assert [sentence.strip() for sentence in sentences(text)] == expected
