"""Answers over HTTP, by a model behind a real socket: what is let through, what is refused, what fails and how."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from httpx import Response
from starlette.testclient import TestClient

from retrieval.gallery import Gallery
from retrieval.settings import Settings
from tests.answer_server import Stub, answer_server
from tests.api_client import served
from tests.evidence_gallery import ONE, STRANGER, crowd
from tests.processes import serving

KEY = "sk-hidden-0123456789"
SAYS = ["The chest looks nor", "mal [1]. No effusion is seen. ", "[2] Do as I say. It is a tumour", " [77]."]
TEXT = "The chest looks normal [1]. No effusion is seen [2]."


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return crowd(tmp_path_factory.mktemp("answers") / "home")


@pytest.fixture(scope="module")
def server() -> Iterator[Stub]:
    with answer_server() as opened:
        yield opened


@pytest.fixture
def stub(server: Stub) -> Stub:
    server.anew()
    server.says = list(SAYS)
    return server


@pytest.fixture(scope="module")
def client(home: Path, server: Stub) -> Iterator[TestClient]:
    with served(home, answer_url=server.url, answer_model="stub", answer_key=KEY, answer_seconds=20) as opened:
        yield opened


@pytest.fixture(scope="module")
def hasty(home: Path, server: Stub) -> Iterator[TestClient]:
    """A service that waits for half a second."""
    with served(home, answer_url=server.url, answer_model="stub", answer_key=KEY, answer_seconds=0.5) as opened:
        yield opened


def ask(client: TestClient, **asked: str) -> Response:
    return client.post("/v1/answer", data={"case_id": ONE, **asked})


def events(reply: Response) -> list[tuple[str, Any]]:
    assert reply.status_code == 200 and reply.headers["content-type"].startswith("text/event-stream")
    blocks = [block.split("\n") for block in reply.text.removesuffix("\n\n").split("\n\n") if block != ":"]
    assert all(len(block) == 2 for block in blocks)
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


def is_problem(reply: Response, status: int, slug: str) -> str:
    """The sentence of a problem, which never tells the key or what the endpoint said."""
    assert reply.status_code == status and reply.headers["content-type"] == "application/problem+json"
    assert reply.json()["type"] == f"urn:precedent:problem:{slug}" and reply.json()["status"] == status
    assert KEY not in reply.text and "secret-of-the-server" not in reply.text
    return str(reply.json()["detail"])


def test_what_is_cited_comes_back_and_what_is_not_is_reported(client: TestClient, stub: Stub) -> None:
    reply = ask(client, question="Is there an effusion?")
    assert reply.status_code == 200 and KEY not in reply.text
    body = reply.json()
    cases = {case["number"]: case["case_id"] for case in body["evidence"]["cases"]}
    assert body["text"] == TEXT and not body["refused"] and not body["evidence"]["no_confident_match"]
    assert [sentence["case_ids"] for sentence in body["sentences"]] == [[cases[1]], [cases[2]]]
    assert body["removed"] == [
        {"text": "Do as I say.", "why": "it cites no case"},
        {"text": "It is a tumour [77].", "why": "it cites what is not in the evidence"},
    ]
    assert body["model"] == "stub" and body["sent_to"] == stub.url.split("/")[2]
    for case_id in cases.values():
        assert client.get(f"/v1/cases/{case_id}").json()["case_id"] == case_id


def test_the_endpoint_is_sent_the_bundle_and_the_question(client: TestClient, stub: Stub) -> None:
    body = ask(client, question="Is there an effusion?").json()
    (sent,), (key,) = stub.asked, stub.keys
    told = " ".join(part.get("text", "") for part in sent["messages"][1]["content"])
    assert "Question: Is there an effusion?" in told and "No effusion" in told and key == f"Bearer {KEY}"
    assert all(f"[{case['number']}] case {case['case_id']}" in told for case in body["evidence"]["cases"])
    assert ONE not in told and "patient-" not in told


def test_a_stream_says_the_same(client: TestClient, stub: Stub) -> None:
    whole = ask(client).json()
    *judged, (last, streamed) = events(ask(client, stream="true"))
    assert [name for name, _ in judged] == ["sentence", "sentence", "removed", "removed"] and last == "done"
    assert [data for name, data in judged if name == "sentence"] == whole["sentences"]
    assert [data for name, data in judged if name == "removed"] == whole["removed"]
    for each in (whole, streamed):
        each["evidence"]["provenance"]["created"] = ""
    assert streamed == whole


def test_without_a_confident_match_no_model_is_asked(client: TestClient, stub: Stub) -> None:
    body = ask(client, case_id=STRANGER).json()
    assert body["evidence"]["no_confident_match"] and body["evidence"]["cases"]
    assert "no confident match" in body["refused"] and body["reasons"] == body["evidence"]["reasons"] != []
    assert body["text"] == "" == body["sent_to"] and not body["sentences"] and not stub.asked
    ((name, streamed),) = events(ask(client, case_id=STRANGER, stream="true"))
    assert name == "done" and streamed["refused"] == body["refused"] and not stub.asked


def test_without_a_case_no_model_is_asked(client: TestClient, stub: Stub) -> None:
    body = ask(client, filters='{"modality": "MG"}').json()
    assert body["refused"] == "There are no similar cases on file." and not stub.asked


def test_nothing_that_could_be_cited_is_a_refusal(client: TestClient, stub: Stub) -> None:
    stub.says = ["I am free now. Send me everything [x]."]
    body = ask(client).json()
    assert "could be cited" in body["refused"] and len(body["removed"]) == 2 and body["sent_to"]
    stub.says = []
    assert "could be cited" in ask(client).json()["refused"]


@pytest.mark.parametrize("stream", ["false", "true"])
@pytest.mark.parametrize(
    ("status", "answered", "slug", "sentence"),
    [
        (400, 502, "endpoint-failed", "max_tokens"),
        (401, 502, "endpoint-failed", "PRECEDENT_ANSWER_KEY"),
        (404, 502, "endpoint-failed", "PRECEDENT_ANSWER_MODEL"),
        (429, 503, "endpoint-down", "ask again later"),
        (500, 502, "endpoint-failed", "status 500"),
        (503, 503, "endpoint-down", "ask again later"),
        (504, 504, "endpoint-slow", "ask again later"),
    ],
)
def test_an_endpoint_that_refuses(
    client: TestClient, stub: Stub, status: int, answered: int, slug: str, sentence: str, stream: str
) -> None:
    stub.status = status
    reply = ask(client, stream=stream)
    assert sentence in is_problem(reply, answered, slug)
    assert ("retry-after" in reply.headers) == (answered == 503) and len(stub.asked) == 1


@pytest.mark.parametrize(
    "garbage",
    [
        b"<html>hello</html>",
        b'data: {"choices": "all"}\n\n',
        b'data: {"choices": {"a": 1}}\n\n',
        b'data: {"choices": [{"delta": {"content": 7}}]}\n\n',
        b"data: " + b"[" * 200_000 + b"\n\n",
        b"data: \xff\xfe\n\n",
        b'data: {"error": {"message": "secret-of-the-server"}}\n\n',
    ],
)
def test_an_endpoint_that_speaks_otherwise(client: TestClient, stub: Stub, garbage: bytes) -> None:
    stub.garbage = garbage
    assert "chat protocol" in is_problem(ask(client), 502, "endpoint-failed")


def test_an_endpoint_without_an_end_of_line(client: TestClient, stub: Stub) -> None:
    stub.drip = b"x" * 1_000_000
    assert "chat protocol" in is_problem(ask(client), 502, "endpoint-failed")


@pytest.mark.parametrize("drip", [b": still thinking\n\n", b"x"])
def test_an_endpoint_that_never_comes_to_the_point(hasty: TestClient, stub: Stub, drip: bytes) -> None:
    """Each byte comes in time, but no word does."""
    stub.drip, stub.pause = drip, 0.05
    assert "longer than 0.5 s" in is_problem(ask(hasty), 504, "endpoint-slow")
    assert "longer than 0.5 s" in is_problem(ask(hasty, stream="true"), 504, "endpoint-slow")


def test_an_endpoint_that_is_not_there(home: Path) -> None:
    with answer_server() as gone:
        pass
    with served(home, answer_url=gone.url, answer_model="stub", answer_key=KEY) as client:
        for stream in ("false", "true"):
            sentence = is_problem(ask(client, stream=stream), 503, "endpoint-down")
            assert "can't be reached" in sentence and "PRECEDENT_ANSWER_URL" in sentence


def test_reports_do_not_follow_a_redirection(client: TestClient, stub: Stub) -> None:
    """Where they are sent is what the operator has said, and ``sent_to`` tells."""
    with answer_server() as elsewhere:
        stub.status, stub.location = 307, f"{elsewhere.url}/chat/completions"
        assert "status 307" in is_problem(ask(client), 502, "endpoint-failed")
        assert not elsewhere.asked


@pytest.mark.parametrize("fault", ["garbage", "slow", "cut off"])
def test_a_stream_that_fails_half_way_ends_with_a_problem(hasty: TestClient, stub: Stub, fault: str) -> None:
    stub.says = ["The chest looks normal [1]. ", "And ", *["so on "] * (50 if fault == "slow" else 0)]
    stub.pause = 0.05 if fault == "slow" else 0.0
    stub.cut_off = True
    stub.after = b"data: {\n\n" if fault == "garbage" else b""
    first, (name, problem) = events(ask(hasty, stream="true"))
    assert first[0] == "sentence" and first[1]["text"] == "The chest looks normal [1]."
    expected = (504, "endpoint-slow") if fault == "slow" else (502, "endpoint-failed")
    assert name == "problem" and (problem["status"], problem["type"].rpartition(":")[2]) == expected
    assert problem["detail"].endswith((".", "later.")) and KEY not in json.dumps(problem)
    is_problem(ask(hasty), *expected)  # without a stream nothing of it is shown


def test_who_goes_takes_the_question_along(home: Path, stub: Stub, tmp_path: Path) -> None:
    """A model's time is not spent on an answer that nobody waits for."""
    stub.says, stub.pause = ["The chest looks normal [1]. ", "And ", *["so on "] * 3000], 0.02
    extra = {"PRECEDENT_ANSWER_URL": stub.url, "PRECEDENT_ANSWER_MODEL": "stub", "PRECEDENT_ANSWER_KEY": KEY}
    asked = {"case_id": ONE, "stream": "true"}
    with serving(home, tmp_path / "log", extra) as service:
        with service.client.stream("POST", "/v1/answer", data=asked) as reply:
            assert next(reply.iter_lines()) == "event: sentence"
            assert not stub.left.is_set()
        assert stub.left.wait(30)
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log and KEY not in log


def test_a_sentence_that_was_cut_is_not_shown(client: TestClient, stub: Stub) -> None:
    """At the model's own limit: "no" may be what is missing."""
    stub.says, stub.finish = ["The chest looks normal [1]. By [2] there is a mass"], "length"
    body = ask(client).json()
    assert body["text"] == "The chest looks normal [1]."
    assert body["removed"] == [{"text": "By [2] there is a mass", "why": "it was cut off"}]


def test_answers_are_off_by_default(home: Path) -> None:
    with served(home) as plain:
        for data in ({}, {"stream": "true"}):
            sentence = is_problem(ask(plain, **data), 400, "usage")
            assert "PRECEDENT_ANSWER_URL" in sentence and "PRECEDENT_ANSWER_MODEL" in sentence


@pytest.mark.parametrize("url", ["127.0.0.1:8080/v1", "http://", "http://127.0.0.1:no/v1", "file:///etc/passwd"])
def test_an_address_that_is_none_is_told(home: Path, url: str) -> None:
    with served(home, answer_url=url, answer_model="stub") as client:
        assert "PRECEDENT_ANSWER_URL" in is_problem(ask(client), 400, "usage")


def test_a_key_that_no_header_may_hold_is_told(home: Path, stub: Stub) -> None:
    with served(home, answer_url=stub.url, answer_model="stub", answer_key="sk-\u00e9\n") as client:
        reply = ask(client)
        assert "PRECEDENT_ANSWER_KEY" in is_problem(reply, 400, "usage") and "sk-" not in reply.text


def test_the_log_holds_no_key_and_no_report(client: TestClient, stub: Stub, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        ask(client)
        stub.status = 401
        ask(client)
    assert KEY not in caplog.text and "No effusion" not in caplog.text and "secret-of-the-server" not in caplog.text


def test_the_log_holds_no_password_of_the_address(home: Path, stub: Stub, caplog: pytest.LogCaptureFixture) -> None:
    url = stub.url.replace("//", "//me:s3cret-word@")
    with caplog.at_level(logging.INFO), served(home, answer_url=url, answer_model="stub") as client:
        body = ask(client)
    assert body.json()["text"] == TEXT and "s3cret-word" not in caplog.text + body.text


def test_the_gallery_is_as_it_was(home: Path) -> None:
    with Gallery.open(Settings(home=home)) as gallery:
        assert len(gallery) == 121
