"""Bundles and answers over HTTP, on real files."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image as Picture
from starlette.testclient import TestClient

from indexer.sandbox import Sandbox
from tests.answer_server import Stub, answer_server
from tests.api_client import SECRET_NAME, Seeded, parts, seed, served


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox) -> Seeded:
    return seed(tmp_path_factory.mktemp("evidence"), sandbox)


@pytest.fixture(scope="module")
def stub() -> Iterator[Stub]:
    with answer_server() as opened:
        yield opened


@pytest.fixture(scope="module")
def client(seeded: Seeded, stub: Stub) -> Iterator[TestClient]:
    with served(seeded.home, answer_url=stub.url, answer_model="stub", answer_key="sk-hidden") as opened:
        yield opened


def test_a_bundle_for_files(client: TestClient, seeded: Seeded) -> None:
    reply = client.post(
        "/v1/evidence", files=parts(seeded.files_of(2)), data={"k": "3", "filters": '{"kind": "volume"}'}
    )
    assert reply.status_code == 200
    bundle = reply.json()
    assert bundle["query"]["kind"] == "volume" and bundle["query"]["frames"] == 5
    (case,) = bundle["cases"]  # two volumes of one patient: the better one
    assert case["case_id"] in seeded.series[:2] and case["matches"][0]["hit_position_mm"] is not None
    assert client.get(f"/v1/cases/{case['case_id']}").json()["case_id"] == case["case_id"]
    assert client.get(case["images"][0]["url"]).headers["content-type"] == "image/png"
    assert SECRET_NAME not in reply.text


def test_the_querys_own_patient_is_never_in_it(client: TestClient, seeded: Seeded) -> None:
    bundle = client.post("/v1/evidence", data={"case_id": seeded.series[0]}).json()
    assert not {case["case_id"] for case in bundle["cases"]} & set(seeded.series[:2])
    refused = client.post("/v1/evidence", data={"case_id": seeded.series[0], "same_patient": "include"})
    assert refused.status_code == 422


def test_markdown_and_messages(client: TestClient, seeded: Seeded) -> None:
    asked = {"case_id": seeded.series[2], "filters": '{"kind": "volume"}', "k": "1"}
    told = client.post("/v1/evidence", data={**asked, "format": "markdown"})
    assert told.headers["content-type"].startswith("text/markdown") and "## [1] case" in told.text
    body = client.post("/v1/evidence", data={**asked, "format": "messages", "max_images": "2"}).json()
    urls = [part["image_url"]["url"] for part in body["messages"][1]["content"] if part["type"] == "image_url"]
    assert len(urls) == 2 and body["notes"] == []
    for url in urls:
        picture = Picture.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,"))))
        assert picture.format == "PNG" and max(picture.size) <= 512


def test_an_answer_or_a_refusal(client: TestClient, seeded: Seeded, stub: Stub) -> None:
    """So small a gallery knows no confident match, or does: either way nothing uncited comes back."""
    stub.says = ["Alike [1]. Obey me."]
    reply = client.post("/v1/answer", data={"case_id": seeded.pictures[0]})
    assert reply.status_code == 200 and "sk-hidden" not in reply.text
    body = reply.json()
    if body["evidence"]["no_confident_match"]:
        assert body["refused"] and body["sent_to"] == "" and not stub.asked
    else:
        assert body["text"] == "Alike [1]." and body["removed"][0]["text"] == "Obey me."
        assert body["sentences"][0]["case_ids"] == [body["evidence"]["cases"][0]["case_id"]]


def test_a_stream_ends_with_the_whole(client: TestClient, seeded: Seeded, stub: Stub) -> None:
    stub.says = ["Alike [1].", " Obey me."]
    reply = client.post("/v1/answer", data={"case_id": seeded.pictures[0], "stream": "true"})
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = [block.split("\ndata: ") for block in reply.text.strip().split("\n\n") if block != ":"]
    name, data = events[-1]
    assert name == "event: done"
    whole = json.loads(data)
    assert len(events) - 1 == len(whole["sentences"]) + len(whole["removed"])


def test_answers_are_off_by_default(seeded: Seeded) -> None:
    with served(seeded.home) as plain:
        reply = plain.post("/v1/answer", data={"case_id": seeded.pictures[0]})
    assert reply.status_code == 400 and "Answers are off" in reply.json()["detail"]


def test_a_gone_original_is_told(tmp_path: Path, sandbox: Sandbox) -> None:
    seeded = seed(tmp_path, sandbox)
    for path in (seeded.studies / "pictures").iterdir():
        path.unlink()
    asked = {"case_id": seeded.pictures[0], "format": "messages", "filters": '{"kind": "image"}'}
    with served(seeded.home) as client:
        body = client.post("/v1/evidence", data=asked).json()
    assert "thumbnails" in body["notes"][0]
    assert "the original file is gone" in json.dumps(body["messages"])
