"""Cases over HTTP: list, look, add, correct, delete."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture
from starlette.testclient import TestClient

from indexer.sandbox import Sandbox
from tests.api_client import SECRET_NAME, Seeded, parts, seed, served, zipped
from tests.studies import write_pictures, write_series


@pytest.fixture
def seeded(tmp_path: Path, sandbox: Sandbox) -> Seeded:
    return seed(tmp_path, sandbox)


@pytest.fixture
def client(seeded: Seeded) -> Iterator[TestClient]:
    with served(seeded.home) as opened:
        yield opened


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Picture.open(io.BytesIO(png)))


def test_pages_cover_the_gallery_once(client: TestClient, seeded: Seeded) -> None:
    seen: list[str] = []
    after: int | None = 0
    while after is not None:
        page = client.get("/v1/cases", params={"limit": 3, "after": after}).json()
        assert len(page["cases"]) <= 3
        seen += [case["case_id"] for case in page["cases"]]
        after = page["next"]
    assert sorted(seen) == sorted([*seeded.series, *seeded.pictures])
    narrowed = client.get("/v1/cases", params={"filters": '{"modality": "CT"}'}).json()
    assert {case["case_id"] for case in narrowed["cases"]} == set(seeded.series)
    assert narrowed["next"] is None


def test_a_case_tells_what_is_safe_and_nothing_else(client: TestClient, seeded: Seeded) -> None:
    reply = client.get(f"/v1/cases/{seeded.series[0]}")
    case = reply.json()
    assert case["modality"] == "CT"
    assert case["attributes"]["slices"] == 5
    assert case["slice_positions_mm"] == [0.0, 3.0, 6.0, 9.0, 12.0]
    assert case["patient_known"] is True
    assert SECRET_NAME not in reply.text
    assert str(seeded.home.parent) not in reply.text


def test_slices_are_rendered_windowed_and_sized(client: TestClient, seeded: Seeded) -> None:
    url = f"/v1/cases/{seeded.series[0]}/image"
    slices = [client.get(url, params={"slice": n}) for n in range(5)]
    assert {reply.headers["content-type"] for reply in slices} == {"image/png"}
    assert len({reply.content for reply in slices}) == 5
    dark, bright = (pixels(client.get(url, params={"window": w}).content) for w in ("90000,100", "-90000,100"))
    assert dark.max() == 0
    assert bright.min() == 255
    assert pixels(client.get(url, params={"size": 16}).content).shape == (
        16,
        11,
    )  # pixels of 0.7 x 0.5 mm become square
    assert client.get(url, params={"slice": 5}).status_code == 404
    for wrong in ({"window": "wide"}, {"window": "1,0"}, {"window": "1,nan"}, {"slice": -1}, {"size": 99999}):
        assert client.get(url, params=wrong).status_code == 422, wrong


def test_an_image_that_is_known_is_not_sent_again(client: TestClient, seeded: Seeded) -> None:
    for url in (f"/v1/cases/{seeded.series[0]}/image", f"/v1/cases/{seeded.series[0]}/thumbnail"):
        first = client.get(url)
        again = client.get(url, headers={"if-none-match": first.headers["etag"]})
        assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
    tags = {client.get(f"/v1/cases/{seeded.series[0]}/image?slice={n}").headers["etag"] for n in range(5)}
    assert len(tags) == 5


def test_a_source_that_went_away_is_410_and_a_thumbnail_stays(client: TestClient, seeded: Seeded) -> None:
    for file in seeded.files_of(2):
        file.unlink()
    gone = client.get(f"/v1/cases/{seeded.series[2]}/image", params={"slice": 1})
    assert gone.status_code == 410
    assert gone.json()["type"] == "urn:precedent:problem:source-gone"
    assert SECRET_NAME not in gone.text
    thumbnail = client.get(f"/v1/cases/{seeded.series[2]}/thumbnail")
    assert thumbnail.headers["content-type"] == "image/jpeg"
    assert max(Picture.open(io.BytesIO(thumbnail.content)).size) <= 256


def test_what_is_added_is_found_at_once_and_its_pixels_stay(client: TestClient, tmp_path: Path) -> None:
    files = write_series(tmp_path / "new", 3, seed=41, patient="P7")
    reply = client.post("/v1/cases", files=parts(files), data={"labels": '{"finding": ["mass", "cyst"], "bmi": 24.5}'})
    assert reply.status_code == 201
    added = reply.json()
    assert added["indexed"] == 3
    assert [status["file"] for status in added["files"]] == [0, 1, 2]
    assert SECRET_NAME not in reply.text
    (case_id,) = {status["case_id"] for status in added["files"]}
    case = client.get(f"/v1/cases/{case_id}").json()
    assert {(label["name"], label["value"]) for label in case["labels"]} >= {("finding", "mass"), ("finding", "cyst")}
    for file in files:
        file.unlink()
    assert client.get(f"/v1/cases/{case_id}/image", params={"slice": 2}).status_code == 200
    assert client.get(f"/v1/cases/{case_id}/similar").status_code == 200
    assert client.get("/v1/gallery").json()["size"] == 8


def test_adding_twice_adds_nothing(client: TestClient, tmp_path: Path) -> None:
    packed = zipped(write_pictures(tmp_path / "more", 2, seed=5))
    first = client.post("/v1/cases", files={"files": ("a.zip", packed)})
    second = client.post("/v1/cases", files={"files": ("b.zip", packed)})
    assert (first.status_code, first.json()["indexed"]) == (201, 2)
    assert (second.status_code, second.json()["indexed"]) == (200, 0)
    assert {status["status"] for status in second.json()["files"]} == {"unchanged"}


def test_what_is_on_file_is_updated_only_when_something_new_is_said(client: TestClient, tmp_path: Path) -> None:
    files = write_pictures(tmp_path / "more", 1, seed=5)
    case_id = client.post("/v1/cases", files=parts(files)).json()["files"][0]["case_id"]
    for said in ({"labels": '{"finding": "cyst"}'}, {"source": "ward 3"}):
        for status, updated in (("updated", 1), ("unchanged", 0)):
            reply = client.post("/v1/cases", files=parts(files), data=said)
            assert reply.status_code == 200
            assert reply.json()["files"] == [{"file": 0, "status": status, "case_id": case_id, "reason": ""}]
            assert (reply.json()["indexed"], reply.json()["updated"]) == (0, updated)
    case = client.get(f"/v1/cases/{case_id}").json()
    assert (case["labels"][0]["value"], case["source"]) == ("cyst", "ward 3")


def test_a_bad_file_among_good_ones_is_told_by_its_place(client: TestClient, tmp_path: Path) -> None:
    (good,) = write_pictures(tmp_path / "good", 1, seed=6)
    body = [*parts([good]), ("files", (f"{SECRET_NAME}.png", good.read_bytes()[:200]))]
    reply = client.post("/v1/cases", files=body)
    assert reply.status_code == 201
    statuses = {status["file"]: status for status in reply.json()["files"]}
    assert statuses[0]["status"] == "indexed"
    assert statuses[1]["status"] == "failed"
    assert statuses[1]["reason"]
    assert SECRET_NAME not in reply.text
    none = client.post("/v1/cases", files=body[1:])
    assert none.status_code == 422
    assert none.json()["errors"][0]["where"] == "files.0"


def test_files_without_an_image_are_refused_each_with_its_reason(client: TestClient, tmp_path: Path) -> None:
    (good,) = write_pictures(tmp_path / "good", 1, seed=6)
    words = ("files", (f"{SECRET_NAME}.txt", b"no image"))
    reply = client.post("/v1/cases", files=[words, words])
    assert reply.status_code == 422
    assert [cause["where"] for cause in reply.json()["errors"]] == ["files.0", "files.1"]
    assert "Not an image" in reply.json()["errors"][1]["message"]
    assert SECRET_NAME not in reply.text
    assert client.post("/v1/cases", files={"files": ("empty.zip", zipped([]))}).status_code == 422
    for status in (201, 200):  # what is on file already is no refusal
        assert client.post("/v1/cases", files=[words, *parts([good])]).status_code == status


@pytest.mark.parametrize(
    "labels",
    [
        *("[1]", "{", '{"a": {"b": 1}}', '{"a": true}', '{"": "x"}', '{"a": null}'),
        *('{"a": NaN}', '{"a": [-Infinity]}', '{"a": 1e400}', f'{{"a": 1{"0" * 400}}}'),
    ],
)
def test_labels_that_are_none_are_refused_before_anything_is_indexed(
    client: TestClient, tmp_path: Path, labels: str
) -> None:
    reply = client.post("/v1/cases", files=parts(write_pictures(tmp_path, 1, seed=8)), data={"labels": labels})
    assert reply.status_code == 422
    assert "labels" in reply.json()["detail"]
    assert client.get("/v1/gallery").json()["size"] == 7


def test_a_patch_changes_what_it_names(client: TestClient, seeded: Seeded) -> None:
    url = f"/v1/cases/{seeded.series[0]}"
    before = client.get(url).json()
    change = {"attributes": {"body_part": "CHEST", "age": 47}, "labels": [{"name": "stage", "value": "2"}]}
    after = client.patch(url, json=change).json()
    assert after["attributes"]["body_part"] == "CHEST"
    assert after["attributes"]["age_band"] == "40-49"
    assert after["labels"] == [{"name": "stage", "value": "2", "number": 2.0}]
    assert (after["report"], after["modality"]) == (before["report"], before["modality"])
    assert client.get(url).json() == after
    facets = client.get("/v1/gallery").json()["facets"]
    assert facets["body_part"] == [{"value": "CHEST", "cases": 1}]
    assert facets["label.stage"] == [{"value": "2", "cases": 1}]
    assert client.patch(url, json={"pixels": 1}).status_code == 422
    assert client.patch(url, json={"attributes": {"age": 400}}).status_code == 422
    assert client.patch("/v1/cases/nosuchcase000000", json=change).status_code == 404


def test_labels_go_back_as_they_came(client: TestClient, seeded: Seeded) -> None:
    url = f"/v1/cases/{seeded.series[0]}"
    labels = client.get(url).json()["labels"]
    assert {label["number"] for label in labels} == {None, 12.0}
    assert client.patch(url, json={"labels": labels}).json()["labels"] == labels
    for number, status in ((12, 200), (None, 200), (13, 422), ("x", 422)):
        label = {"name": "diameter", "value": "12", "number": number}
        assert client.patch(url, json={"labels": [label]}).status_code == status, number
    assert client.patch(url, json={"labels": [{"name": "a", "value": "b", "number": 1}]}).status_code == 422


def test_deleted_means_gone(client: TestClient, seeded: Seeded, tmp_path: Path) -> None:
    kept = client.post("/v1/cases", files=parts(write_pictures(tmp_path / "kept", 1, seed=3))).json()
    uploaded = kept["files"][0]["case_id"]
    for case_id in (seeded.pictures[0], uploaded):
        assert client.delete(f"/v1/cases/{case_id}").json() == {"deleted": [case_id]}
        assert client.delete(f"/v1/cases/{case_id}").status_code == 404
        for tail in ("", "/image", "/thumbnail", "/similar"):
            assert client.get(f"/v1/cases/{case_id}{tail}").status_code == 404
    assert not list((seeded.home / "kept").iterdir())
    hits = client.get(f"/v1/cases/{seeded.series[0]}/similar", params={"k": 50, "group": "none"}).json()["hits"]
    assert not {seeded.pictures[0], uploaded} & {hit["case_id"] for hit in hits}


def test_a_patient_is_erased_by_pseudonym(client: TestClient, seeded: Seeded) -> None:
    key = client.get(f"/v1/cases/{seeded.series[0]}").json()["patient_key"]
    assert sorted(client.delete(f"/v1/patients/{key}").json()["deleted"]) == sorted(seeded.series[:2])
    assert client.delete(f"/v1/patients/{key}").status_code == 404
    assert client.delete("/v1/patients/P1").status_code == 422
    assert client.get("/v1/gallery").json()["size"] == 5


def test_an_empty_gallery_is_served(tmp_path: Path) -> None:
    with served(tmp_path / "new") as client:
        assert client.get("/readyz").status_code == 200
        assert client.get("/v1/gallery").json()["size"] == 0
        assert client.get("/v1/cases").json() == {"cases": [], "next": None}
        answer = client.post("/v1/search", files=parts(write_pictures(tmp_path / "p", 1))).json()
        assert (answer["hits"], answer["no_confident_match"]) == ([], True)
