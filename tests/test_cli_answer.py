"""``precedent answer`` as a process of its own, before a server that speaks the protocol."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.answer_server import Stub, answer_server
from tests.evidence_gallery import ONE, STRANGER, crowd
from tests.processes import answer, run, start

KEY = "sk-hidden-0123456789"
SENTENCES = ["The chest looks normal [1].", "No effusion is seen [2]."]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return crowd(tmp_path_factory.mktemp("answers") / "home")


@pytest.fixture
def stub() -> Iterator[Stub]:
    with answer_server() as opened:
        opened.says = [*(f"{each} " for each in SENTENCES), "Do as I say. It is a tumour", " [77]."]
        yield opened


def configured(stub: Stub, seconds: float = 60) -> dict[str, str]:
    return {
        "PRECEDENT_ANSWER_URL": stub.url,
        "PRECEDENT_ANSWER_MODEL": "stub",
        "PRECEDENT_ANSWER_KEY": KEY,
        "PRECEDENT_ANSWER_SECONDS": str(seconds),
    }


def test_sentences_are_printed_and_what_was_removed_is_told(home: Path, stub: Stub) -> None:
    done = run("answer", ONE, "--question", "Is there an effusion?", home=home, extra=configured(stub))
    assert done.stdout.splitlines() == SENTENCES
    assert done.stderr.splitlines() == [
        "removed, as it cites no case: Do as I say.",
        "removed, as it cites what is not in the evidence: It is a tumour [77].",
        f"Written by stub at {stub.url.split('/')[2]}, which was sent the cases above.",
    ]
    assert "Question: Is there an effusion?" in str(stub.asked[0]["messages"]) and KEY not in done.stderr


def test_as_json_it_has_its_evidence(home: Path, stub: Stub) -> None:
    told = answer("answer", ONE, home=home, extra=configured(stub))
    cases = {case["number"]: case["case_id"] for case in told["evidence"]["cases"]}
    assert told["text"] == " ".join(SENTENCES) and [each["case_ids"] for each in told["sentences"]] == [
        [cases[1]],
        [cases[2]],
    ]
    assert len(told["removed"]) == 2 and told["sent_to"] == stub.url.split("/")[2] and not told["refused"]


def test_a_refusal_is_told_with_its_reasons(home: Path, stub: Stub) -> None:
    done = run("answer", STRANGER, home=home, extra=configured(stub))
    refused, *reasons = done.stdout.splitlines()
    assert refused == "There is no confident match on file, so no answer is made."
    assert "nearest cases are less similar" in reasons[0] and not stub.asked and "Written by" not in done.stderr


def test_without_an_endpoint_it_says_how_to_get_one(home: Path) -> None:
    done = run("answer", ONE, home=home, code=2)
    assert done.stdout == "" and done.stderr.startswith("precedent: Answers are off: set PRECEDENT_ANSWER_URL")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("refuses", "PRECEDENT_ANSWER_KEY"),
        ("garbage", "chat protocol"),
        ("slow", "longer than 1 s"),
        ("down", "reached"),
    ],
)
def test_an_endpoint_that_fails_is_one_sentence(home: Path, stub: Stub, fault: str, sentence: str) -> None:
    stub.status = 401 if fault == "refuses" else 200
    stub.garbage = b"data: {" if fault == "garbage" else b""
    stub.pause = 0.2 if fault == "slow" else 0.0
    stub.says = ["word "] * 100
    extra = configured(stub, seconds=1)
    if fault == "down":
        extra["PRECEDENT_ANSWER_URL"] = "http://127.0.0.1:9/v1"
    done = run("answer", ONE, home=home, extra=extra, code=2)
    assert done.stdout == "" and done.stderr.startswith("precedent: The answer endpoint 127.0.0.1:")
    assert sentence in done.stderr and len(done.stderr.splitlines()) == 1
    assert KEY not in done.stderr and "secret-of-the-server" not in done.stderr


def test_what_was_said_before_a_failure_is_shown(home: Path, stub: Stub) -> None:
    stub.cut_off = True
    done = run("answer", ONE, home=home, extra=configured(stub), code=2)
    assert done.stdout.splitlines() == SENTENCES and "chat protocol" in done.stderr


def test_sentences_come_one_by_one_and_ctrl_c_ends_it(home: Path, stub: Stub) -> None:
    stub.says, stub.pause = ["The chest looks normal [1]. ", "And ", *["so on "] * 300], 0.1
    process = start("answer", ONE, home=home, extra=configured(stub))
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "The chest looks normal [1].\n"  # long before the end
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130 and out == "" and "Traceback" not in errors and KEY not in errors
