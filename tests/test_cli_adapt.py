"""``precedent adapt`` as its users run it, and the service beside it."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.adapter_cases import cases_of, hidden_label
from tests.api_client import served
from tests.processes import answer, run, start
from tests.studies import open_gallery

QUICK = ("--head", "linear", "--loss", "supcon")
CLASSICAL_DIM = 486


@pytest.fixture
def home(tmp_path: Path) -> Path:
    rows, values = hidden_label(240, dim=CLASSICAL_DIM)
    with open_gallery(tmp_path / "home") as gallery:
        gallery.add(cases_of(rows, values))
        gallery.add(cases_of(rows[::-1].copy(), _shuffled(values), label="noise", first=240))
    return tmp_path / "home"


def _shuffled(values: list[str]) -> list[str]:
    return [str(value) for value in np.repeat(np.random.default_rng(1).permutation(values[::2]), 2)]


def test_learn_use_list_and_go_back(home: Path) -> None:
    before = answer("search", "case-00000", home=home)
    trial = answer("adapt", "--label", "finding", *QUICK, "--dry-run", home=home)
    assert trial["improves"] and (trial["adapter"], trial["generation"]) == ("", "")
    learned = answer("adapt", "--label", "finding", *QUICK, "--name", "faint", home=home)
    assert learned["test"] == trial["test"]  # the seed decides, in every process
    assert learned["adapter"] == "faint" and learned["generation"].startswith("g000001-")
    after = answer("search", "case-00000", home=home)
    assert after["encoder"]["fingerprint"] == learned["fingerprint_after"] != before["encoder"]["fingerprint"]
    assert answer("stats", home=home)["state"]["adapter"] == "faint"
    assert "faint (live): finding, linear, supcon" in run("adapt", "--list", home=home).stdout
    assert answer("adapt", "--use", "none", home=home)["fingerprint"] == before["encoder"]["fingerprint"]
    assert answer("rebuild", "--rollback", home=home)["rolled_back"]
    assert [row["live"] for row in answer("adapt", "--list", home=home)] == [True]


def test_a_label_that_can_not_help_is_refused(home: Path) -> None:
    said = run("adapt", "--label", "noise", *QUICK, home=home, code=2).stdout
    assert "Not kept" in said and "Searches stay as they are" in said and "before" in said
    assert answer("adapt", "--list", home=home) == []
    assert answer("stats", home=home)["state"]["generation"] == ""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "exactly one of --label NAME, --use NAME and --list"),
        (("--label", "finding", "--use", "x"), "exactly one of"),
        (("--use", "x"), "no adapter 'x'"),
        (("--label", "colour"), "labels on file: finding, noise"),
        (("--label", "finding", "--name", "none"), "Expected an adapter's name"),
        (("--label", "finding", "--bins", "3"), "holds no numbers"),
    ],
)
def test_wrong_usage_is_told(home: Path, arguments: tuple[str, ...], told: str) -> None:
    assert told in run("adapt", *arguments, home=home, code=2).stderr


def test_a_running_service_follows(home: Path) -> None:
    with served(home) as client:
        assert facts(client) == ("", _fingerprint(client))
        answer("adapt", "--label", "finding", *QUICK, "--name", "faint", home=home)
        adapter, fingerprint = facts(client)
        assert adapter == "faint" and fingerprint == _fingerprint(client) and "-adapter-" in fingerprint
        assert client.get("/v1/gallery").json()["accepts_text"] is False
        run("adapt", "--use", "none", home=home)
        assert facts(client) == ("", _fingerprint(client)) and "-adapter-" not in _fingerprint(client)


def facts(client: TestClient) -> tuple[str, str]:
    body = client.get("/v1/gallery").json()
    return body["adapter"], body["encoder"]["fingerprint"]


def _fingerprint(client: TestClient) -> str:
    return str(client.get("/v1/cases/case-00000/similar").json()["encoder"]["fingerprint"])


def test_interrupted_while_learning_leaves_nothing(home: Path) -> None:
    process = start("adapt", "--label", "finding", home=home)
    try:
        process.wait(4)
    except subprocess.TimeoutExpired:  # still learning
        process.send_signal(signal.SIGKILL)
    process.communicate()
    assert answer("verify", home=home)["ok"]
    assert all(row["live"] for row in answer("adapt", "--list", home=home))
