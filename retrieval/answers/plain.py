"""Answers as plain JSON values."""

from __future__ import annotations

from typing import Any

from retrieval.answers.answer import Answer
from retrieval.answers.checking import Judged, Sentence


def judged_json(judged: Judged) -> dict[str, Any]:
    """One sentence, kept or removed."""
    if isinstance(judged, Sentence):
        return {"text": judged.text, "case_ids": list(judged.case_ids)}
    return {"text": judged.text, "why": judged.fault.value}


def answer_json(answer: Answer) -> dict[str, Any]:
    """The whole answer, without its evidence."""
    return {
        "text": answer.text,
        "sentences": [judged_json(each) for each in answer.sentences],
        "removed": [judged_json(each) for each in answer.removed],
        "refused": answer.refused,
        "reasons": list(answer.reasons),
        "model": answer.model,
        "sent_to": answer.sent_to,
    }
