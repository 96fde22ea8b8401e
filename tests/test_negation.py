"""What a report denies: NegEx's four kinds of phrase, and terms that must not match their denial."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.clinical_terms import Statement, agreement, statements, vocabulary, with_terms
from retrieval.negation import tokens

TERMS = with_terms(["effusion", "pneumothorax", "cardiomegaly", "nodule", "pneumonia", "pleural effusion"])


def said(text: str) -> dict[str, bool]:
    """Whether each term is affirmed."""
    return {one.term: not one.negated for one in statements(text, TERMS)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("There is an effusion.", {"effusion": True}),
        ("No effusion.", {"effusion": False}),
        ("No evidence of pneumothorax, effusion", {"pneumothorax": False, "effusion": False}),
        ("No effusion or nodules.", {"effusion": False, "nodule": False}),
        ("Lungs are clear without effusion", {"effusion": False}),
        ("Negative for pneumonia.", {"pneumonia": False}),
        # what comes after
        ("Pneumothorax is not seen.", {"pneumothorax": False}),
        ("The pneumothorax is no longer seen.", {"pneumothorax": False}),
        ("Cardiomegaly. Effusion: none. Nodule: small.", {"cardiomegaly": True, "effusion": False, "nodule": True}),
        ("Pneumonia denied.", {"pneumonia": False}),
        ("There is nothing to suggest pneumonia. Effusion.", {"pneumonia": False, "effusion": True}),
        ("Resolution of the effusion", {"effusion": False}),
        ("Pneumonia has been ruled out", {"pneumonia": False}),
        ("Cardiomegaly, effusion is absent.", {"cardiomegaly": True, "effusion": False}),
        ("Effusion and pneumothorax are not identified.", {"effusion": False, "pneumothorax": False}),
        # what looks like a negation
        ("No change in the effusion.", {"effusion": True}),
        ("No significant interval change of the nodule.", {"nodule": True}),
        ("Pneumonia cannot be excluded.", {"pneumonia": True}),
        ("Not only cardiomegaly, also a nodule.", {"cardiomegaly": True, "nodule": True}),
        # what ends a negation
        ("No pneumothorax but a small effusion.", {"pneumothorax": False, "effusion": True}),
        ("No effusion. Cardiomegaly.", {"effusion": False, "cardiomegaly": True}),
        ("No effusion; cardiomegaly", {"effusion": False, "cardiomegaly": True}),
        ("Without effusion, however cardiomegaly", {"effusion": False, "cardiomegaly": True}),
        ("No findings except for a 1.5 cm nodule", {"nodule": True}),
        # words, not letters
        ("Nodular", {}),
        ("Pneumothoraxlike", {}),
        ("", {}),
    ],
)  # fmt: skip
def test_what_is_said(text: str, expected: dict[str, bool]) -> None:
    assert said(text) == expected


def test_the_longest_term_counts_and_plurals_are_understood() -> None:
    assert said("Bilateral pleural effusions") == {"pleural effusion": True}
    assert statements("pleural, effusion", TERMS) == {Statement("effusion", False)}  # no term runs over a comma


def test_a_denied_finding_is_another_statement() -> None:
    one = agreement("No effusion. Cardiomegaly.", "Effusion. Cardiomegaly. Nodule.", TERMS)
    assert (one.agreed, one.said, one.wanted) == (1, 2, 3)
    assert (one.precision, one.recall) == (0.5, pytest.approx(1 / 3))
    assert agreement("no effusion", "Effusion is not seen", TERMS).precision == 1.0
    assert math.isnan(agreement("clear", "clear", TERMS).recall)


def test_the_vocabulary_knows_other_ways_to_say_a_finding() -> None:
    assert statements("Enlarged heart. No pneumothoraces.", vocabulary()) == {
        Statement("cardiomegaly", False),
        Statement("pneumothorax", True),
    }


@given(st.text(max_size=80))
def test_any_text_is_read(text: str) -> None:
    assert all(token.text for token in tokens(text))
    assert agreement(text, text, vocabulary()).precision in {1.0} or not statements(text, vocabulary())
