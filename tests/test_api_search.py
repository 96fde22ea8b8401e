"""Asking over HTTP: files, a case on file, a sentence; and what the answer says."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image as Picture
from starlette.testclient import TestClient

from indexer.sandbox import Sandbox
from tests.api_client import SECRET_NAME, Seeded, parts, seed, served, zipped
from tests.studies import write_pictures, write_series

HIT_FIELDS = {
    "rank", "case_id", "kind", "similarity", "percentile", "labels", "report_excerpt", "modality", "study_uid",
    "series_uid", "matches", "thumbnail_url", "viewer_url", "source", "attributes", "parts",
}  # fmt: skip
ANSWER_FIELDS = {
    "hits", "query", "encoder", "generation", "gallery_size", "plan", "candidates", "exhaustive", "no_confident_match",
    "reasons", "cautions", "p_value", "took_ms", "intended_use", "yardstick", "composition",
}  # fmt: skip


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox) -> Seeded:
    return seed(tmp_path_factory.mktemp("api"), sandbox)


@pytest.fixture(scope="module")
def client(seeded: Seeded) -> Iterator[TestClient]:
    with served(seeded.home) as opened:
        yield opened


def ask(client: TestClient, **fields: object) -> dict:
    reply = client.post("/v1/search", data=fields)
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_the_answer_has_the_promised_fields_and_no_others(client: TestClient, seeded: Seeded) -> None:
    answer = ask(client, case_id=seeded.series[2], k=5)
    assert set(answer) == ANSWER_FIELDS
    assert answer["hits"]
    assert all(set(hit) == HIT_FIELDS for hit in answer["hits"])
    assert answer["gallery_size"] == 7
    assert answer["exhaustive"] is True
    assert "not a medical device" in answer["intended_use"].lower()
    assert [hit["rank"] for hit in answer["hits"]] == list(range(1, len(answer["hits"]) + 1))
    similarities = [hit["similarity"] for hit in answer["hits"]]
    assert similarities == sorted(similarities, reverse=True)


def test_labels_report_and_matches_come_with_a_hit(client: TestClient, seeded: Seeded) -> None:
    hits = ask(client, case_id=seeded.series[2], k=10, group="none")["hits"]
    labelled = next(hit for hit in hits if hit["case_id"] == seeded.series[0])
    assert {"name": "diameter", "value": "12", "number": 12.0} in labelled["labels"]
    assert labelled["report_excerpt"].startswith("A nodule of 12 mm.")
    assert labelled["report_excerpt"].endswith("…")
    assert len(labelled["report_excerpt"]) < 300
    assert labelled["matches"]
    assert all(0 <= match["query_slice"] < 5 and 0 <= match["hit_slice"] < 5 for match in labelled["matches"])
    assert labelled["matches"][0]["hit_position_mm"] is not None


def test_a_series_sent_as_files_or_zip_finds_itself_out(client: TestClient, seeded: Seeded) -> None:
    files = seeded.files_of(2)
    several = client.post("/v1/search", files=parts(files), data={"k": "3"}).json()
    packed = client.post("/v1/search", files={"files": ("study.zip", zipped(files))}, data={"k": "3"}).json()
    stored = ask(client, case_id=seeded.series[2], k=3)
    for answer in (several, packed):
        assert answer["query"]["case_id"] == seeded.series[2], "known by its content"
        assert answer["query"]["slices"] == 5
        assert [hit["case_id"] for hit in answer["hits"]] == [hit["case_id"] for hit in stored["hits"]]


def test_the_patient_of_the_query_is_left_out_unless_asked_for(client: TestClient, seeded: Seeded) -> None:
    own = seeded.series[1]
    found = {
        way: {hit["case_id"] for hit in ask(client, case_id=seeded.series[0], same_patient=way, k=10)["hits"]}
        for way in ("exclude", "include", "only")
    }
    assert own not in found["exclude"]
    assert own in found["include"]
    assert found["only"] == {own}


def test_a_new_picture_is_answered_and_can_be_looked_at(client: TestClient, tmp_path: Path) -> None:
    (picture,) = write_pictures(tmp_path, 1, seed=9)
    reply = client.post("/v1/search", files=parts([picture]), data={"preview": "true"})
    answer = reply.json()
    assert answer["query"]["kind"] == "image"
    assert answer["query"]["patient_known"] is False
    assert answer["query"]["case_id"] is None
    shown = client.get(answer["query"]["preview"])
    assert shown.headers["content-type"] == "image/png"
    assert Picture.open(io.BytesIO(shown.content)).size == (64, 64)
    assert client.get(answer["query"]["preview"], params={"slice": 1}).status_code == 404
    assert SECRET_NAME not in reply.text


def test_every_slice_of_a_new_series_can_be_looked_at(client: TestClient, tmp_path: Path) -> None:
    files = write_series(tmp_path, 4, seed=77, patient="P9")
    preview = client.post("/v1/search", files=parts(files), data={"preview": "true"}).json()["query"]["preview"]
    seen = {client.get(preview, params={"slice": n}).content for n in range(4)}
    assert len(seen) == 4
    assert client.get(preview, params={"slice": 0, "window": "0,100"}).content not in seen


def test_pixels_are_kept_only_when_asked(client: TestClient, tmp_path: Path) -> None:
    (picture,) = write_pictures(tmp_path, 1, seed=10)
    assert client.post("/v1/search", files=parts([picture])).json()["query"]["preview"] is None
    gone = client.get("/v1/queries/no-such-token/image")
    assert gone.status_code == 410
    assert "send the query again" in gone.json()["detail"]


def test_filters_narrow(client: TestClient, seeded: Seeded) -> None:
    answer = ask(client, case_id=seeded.series[2], k=50, filters=json.dumps({"kind": "image"}))
    assert {hit["case_id"] for hit in answer["hits"]} == set(seeded.pictures)
    assert ask(client, case_id=seeded.series[2], filters="{}")["hits"]


@pytest.mark.parametrize(
    ("fields", "status", "word"),
    [
        ({"k": "3"}, 422, "exactly one"),
        ({"case_id": "a", "text_weight": "0.3"}, 422, "send both"),
        ({"text": "b", "fusion": "rrf"}, 422, "send both"),
        ({"case_id": "a", "text": "b", "text_weight": "1.5"}, 422, "text_weight"),
        ({"case_id": "a", "text": "b", "fusion": "max"}, 422, "fusion"),
        ({"text": "a nodule"}, 422, "text tower"),
        ({"case_id": "nosuchcase000000"}, 404, "nosuchcase000000"),
        ({"case_id": "a", "k": "0"}, 422, "k:"),
        ({"case_id": "a", "k": "1001"}, 422, "k:"),
        ({"case_id": "a", "surprise": "1"}, 422, "surprise"),
        ({"case_id": "a", "same_patient": "maybe"}, 422, "same_patient"),
        ({"case_id": "a", "filters": "[1"}, 422, "JSON"),
        ({"case_id": "a", "filters": '{"colour": "red"}'}, 400, "colour"),
    ],
)
def test_what_can_not_be_asked_is_told(client: TestClient, fields: dict[str, str], status: int, word: str) -> None:
    reply = client.post("/v1/search", data=fields)
    assert reply.status_code == status
    assert word in reply.json()["detail"]


def test_a_file_that_is_no_image_is_refused_with_its_reason(client: TestClient) -> None:
    reply = client.post("/v1/search", files={"files": (f"{SECRET_NAME}.dcm", b"not an image at all")})
    assert reply.status_code == 422
    assert reply.json()["type"] == "urn:precedent:problem:rejected-input"
    assert SECRET_NAME not in reply.text
    assert "precedent_rejected_inputs_total" in client.get("/metrics").text


def test_similar_is_the_same_as_searching_by_case(client: TestClient, seeded: Seeded) -> None:
    got = client.get(f"/v1/cases/{seeded.series[0]}/similar", params={"k": 4, "group": "none", "rerank": "true"}).json()
    asked = ask(client, case_id=seeded.series[0], k=4, group="none", rerank="true")
    assert [hit["case_id"] for hit in got["hits"]] == [hit["case_id"] for hit in asked["hits"]]
    assert seeded.series[0] not in {hit["case_id"] for hit in got["hits"]}


def test_a_form_without_files_may_be_urlencoded_or_multipart(client: TestClient, seeded: Seeded) -> None:
    body = f'--x\r\nContent-Disposition: form-data; name="case_id"\r\n\r\n{seeded.series[0]}\r\n--x--\r\n'
    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post("/v1/search", content=body, headers=headers).status_code == 200
    assert client.post("/v1/search", json={"case_id": seeded.series[0]}).status_code == 415
