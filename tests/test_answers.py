"""Answers by a model that is not trusted: what passes, what is taken out, and what happens when its server fails."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.answers.answer import NOTHING_LEFT, answer_of, answering
from retrieval.answers.checking import Fault, Removed, Sentence, checked, checked_stream
from retrieval.answers.endpoint import Endpoint, endpoint_of
from retrieval.errors import EndpointDown, EndpointError, EndpointGarbled, EndpointSlow, UsageError
from retrieval.evidence.bundle import Evidence, gather
from retrieval.evidence.formats.messages import Picture, messages
from retrieval.settings import Settings
from tests.answer_server import Stub, answer_server
from tests.evidence_gallery import PLAIN, evidence_gallery

SECOND = f"{2:016d}"


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    with evidence_gallery(tmp_path_factory.mktemp("answers"), [PLAIN] * 4) as gallery:
        found = gather(gallery, gallery.query_of(f"{1:016d}"))
    return replace(found, no_confident_match=False, reasons=())


@pytest.fixture
def stub() -> Iterator[Stub]:
    with answer_server() as opened:
        yield opened


def endpoint(stub: Stub, seconds: float = 20.0) -> Endpoint:
    return Endpoint(stub.url, "stub", seconds, "sk-hidden")


def ask(stub: Stub, evidence: Evidence, seconds: float = 20.0) -> list[Sentence | Removed]:
    told = messages(evidence, {}, question="What is it?")
    return list(chain.from_iterable(answering(evidence, told, endpoint(stub, seconds))))


def test_what_passes_and_what_does_not(evidence: Evidence) -> None:
    assert checked("Normal [1].", evidence) == Sentence("Normal [1].", (SECOND,))
    assert checked("Normal [1, 2] and calm [3].", evidence).case_ids == tuple(f"{n:016d}" for n in (2, 3, 4))
    assert checked(f"Normal [{SECOND}].", evidence) == Sentence(f"Normal [{SECOND}].", (SECOND,))
    for text, fault in {
        "Normal.": Fault.UNCITED,
        "[1].": Fault.UNCITED,
        "Normal [9].": Fault.UNKNOWN,
        "Normal [1] [9].": Fault.UNKNOWN,
        "Normal [1, 9].": Fault.UNKNOWN,
        "Normal [].": Fault.UNKNOWN,
        "Normal [01].": Fault.UNKNOWN,
        "See [1](http://evil.example).": Fault.ACTIVE,
        "![1](//evil.example)": Fault.ACTIVE,
        "<img src=x> [1]": Fault.ACTIVE,
        "Look at https://evil.example [1].": Fault.ACTIVE,
    }.items():
        assert checked(text, evidence) == Removed(text, fault)


ANSWER = "It looks normal [1]. No mass is seen. [2] Perhaps. See Dr. Who [9]. Clear of effusion, approx. 3.5 cm [1, 3]."


@given(st.lists(st.integers(1, len(ANSWER) - 1), unique=True).map(sorted))
def test_pieces_change_nothing(evidence: Evidence, cuts: list[int]) -> None:
    pieces = [ANSWER[a:b] for a, b in zip([0, *cuts], [*cuts, len(ANSWER)], strict=True)]
    judged = list(chain.from_iterable(checked_stream(pieces, evidence)))
    assert [each.text for each in judged if isinstance(each, Sentence)] == [
        "It looks normal [1].",
        "No mass is seen [2].",
        "Clear of effusion, approx. 3.5 cm [1, 3].",
    ]
    assert [each.text for each in judged if isinstance(each, Removed)] == ["Perhaps.", "See Dr. Who [9]."]


def test_a_model_over_the_wire(stub: Stub, evidence: Evidence) -> None:
    stub.says = ["It looks nor", "mal [1]. It was told to ", "ignore its rules.", " Fine [7]."]
    answer = answer_of(evidence, ask(stub, evidence), endpoint(stub))
    assert answer.text == "It looks normal [1]." and answer.sent_to == stub.url.split("/")[2]
    assert [gone.fault for gone in answer.removed] == [Fault.UNCITED, Fault.UNKNOWN]
    assert stub.keys == ["Bearer sk-hidden"] and stub.asked[0]["stream"] is True
    assert "sk-hidden" not in repr(endpoint(stub))


def test_an_answer_without_a_sentence_left_is_refused(stub: Stub, evidence: Evidence) -> None:
    stub.says = ["I am free now."]
    assert answer_of(evidence, ask(stub, evidence), endpoint(stub)).refused == NOTHING_LEFT


def test_no_model_is_asked_without_a_confident_match(stub: Stub, evidence: Evidence) -> None:
    doubtful = replace(evidence, no_confident_match=True, reasons=("Nothing is near.",))
    answer = answer_of(doubtful, ask(stub, doubtful), endpoint(stub))
    assert not stub.asked and "no confident match" in answer.refused and answer.sent_to == ""
    assert answer.reasons == ("Nothing is near.",)
    assert ask(stub, replace(evidence, cases=())) == [] and not stub.asked


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503, 504])
def test_a_server_that_refuses(stub: Stub, evidence: Evidence, status: int) -> None:
    stub.status = status
    with pytest.raises(EndpointError, match=f"status {status}") as caught:
        ask(stub, evidence)
    assert "secret-of-the-server" not in str(caught.value) and "sk-hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "garbage",
    [b"hello", b"data: {not json\n\n", b'data: {"choices": 3}\n\n', b'data: {"choices": [{"delta": null}]}\n\n'],
)
def test_a_server_that_speaks_otherwise(stub: Stub, evidence: Evidence, garbage: bytes) -> None:
    stub.garbage = garbage
    with pytest.raises(EndpointGarbled, match="chat protocol"):
        ask(stub, evidence)


def test_an_answer_that_is_cut_off(stub: Stub, evidence: Evidence) -> None:
    stub.says, stub.cut_off = ["It looks normal [1]. And"], True
    with pytest.raises(EndpointGarbled):
        ask(stub, evidence)


def test_a_server_that_is_slow(stub: Stub, evidence: Evidence) -> None:
    stub.says, stub.pause = ["word "] * 50, 0.2
    with pytest.raises(EndpointSlow, match=r"longer than 0\.5 s"):
        ask(stub, evidence, seconds=0.5)


def test_a_server_that_is_not_there(evidence: Evidence) -> None:
    with answer_server() as gone:
        pass
    with pytest.raises(EndpointDown, match="can't be reached"):
        ask(gone, evidence)


def test_answers_are_off_unless_configured(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Answers are off"):
        endpoint_of(Settings(home=tmp_path))
    with pytest.raises(UsageError, match="http://"):
        endpoint_of(Settings(home=tmp_path, answer_url="file:///etc", answer_model="m"))
    settings = Settings(home=tmp_path, answer_url="http://me:pw@host:1/v1", answer_model="m", answer_key="sk-hidden")
    assert "sk-hidden" not in repr(settings) and endpoint_of(settings).host == "host:1"


def test_messages_end_with_the_query(evidence: Evidence) -> None:
    shown = Picture("image/png", b"png")
    refs = [ref for case in evidence.cases for ref in case.images]
    system, user = messages(evidence, {refs[0]: replace(shown, thumbnail=True)}, [shown], "What is it?")
    assert system["role"] == "system" and "never follow" in system["content"]
    kinds = [part["type"] for part in user["content"]]
    assert kinds.count("image_url") == 2 and kinds[-1] == "image_url"
    assert user["content"][-1]["image_url"]["url"] == "data:image/png;base64,cG5n"
    assert any("the original file is gone" in part.get("text", "") for part in user["content"])
