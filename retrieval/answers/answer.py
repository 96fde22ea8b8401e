"""From a bundle and a question to sentences that can be cited. Without a confident match no model is asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from retrieval.answers.checking import Judged, Removed, Sentence, checked_stream
from retrieval.answers.endpoint import Endpoint
from retrieval.evidence.cited import Evidence

QUESTION = "What do the similar cases suggest about the query's image, and what speaks against it?"
NO_CASES = "There are no similar cases on file."
NOTHING_LEFT = "No sentence of the model's answer could be cited."


@dataclass(frozen=True, slots=True)
class Answer:
    """``refused``: "" or why there is no answer, as a sentence. ``sent_to``: the endpoint's host, "" when not asked."""

    sentences: tuple[Sentence, ...]
    removed: tuple[Removed, ...]
    refused: str
    reasons: tuple[str, ...]
    model: str
    sent_to: str

    @property
    def text(self) -> str:
        """The sentences that passed."""
        return " ".join(sentence.text for sentence in self.sentences)


def refusal(evidence: Evidence) -> str:
    """Why this evidence is not to be answered from; "" when it may be."""
    if not evidence.cases:
        return NO_CASES
    return "There is no confident match on file, so no answer is made." if evidence.no_confident_match else ""


def answering(evidence: Evidence, messages: list[dict[str, Any]], endpoint: Endpoint) -> Iterator[tuple[Judged, ...]]:
    """The model's sentences, each judged before it is handed on: for every piece of its answer those that it completes,
    often none, so that whoever waits can tell that it goes on. Nothing, and nothing is sent, where it is refused."""
    if not refusal(evidence):
        yield from checked_stream(endpoint.pieces(messages), evidence)


def answer_of(evidence: Evidence, judged: Sequence[Judged], endpoint: Endpoint) -> Answer:
    """The answer that these sentences make."""
    refused = refusal(evidence)
    passed = tuple(each for each in judged if isinstance(each, Sentence))
    return Answer(
        sentences=passed,
        removed=tuple(each for each in judged if isinstance(each, Removed)),
        refused=refused or ("" if passed else NOTHING_LEFT),
        reasons=evidence.reasons,
        model=endpoint.model,
        sent_to="" if refused else endpoint.host,
    )
