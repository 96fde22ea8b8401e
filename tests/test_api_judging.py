"""Classifying and estimating over HTTP and on the command line: one shape, the answers of the engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from retrieval.encoders.base import unit_rows
from retrieval.types import Case, CaseKind, EmbeddedCase, Embedding, Label
from tests.api_client import parts, served
from tests.evidence_cases import angles, drawn
from tests.processes import answer, run
from tests.studies import open_gallery, write_pictures


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 patients on a circle within the default encoder's space, with a kind and a size."""
    place = tmp_path_factory.mktemp("judging") / "home"
    at = angles(120, seed=1)
    sizes = 50 + 30 * np.cos(at)
    with open_gallery(place) as gallery:
        rows = np.zeros((120, gallery.encoder.card.dim))
        rows[:, 0], rows[:, 1] = np.cos(at), np.sin(at)
        rows = unit_rows(rows)
        gallery.add(
            [
                EmbeddedCase(
                    Case(
                        f"case-{n:03d}", CaseKind.IMAGE, patient_key=f"patient {n}", content_sha256=f"{n}",
                        pixel_sha256=f"{n}",
                        labels=(Label("kind", kind), Label("size", f"{sizes[n]:.2f}", float(sizes[n]))),
                    ),
                    Embedding(rows[n], rows[n][None], (0,)),
                )
                for n, kind in enumerate(drawn(at, seed=2))
            ]
        )  # fmt: skip
    return place


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[TestClient]:
    with served(home) as opened:
        yield opened


def test_a_case_is_classified(client: TestClient) -> None:
    reply = client.post("/v1/classify", data={"case_id": "case-007", "label": "kind", "sensitivity": "0.8"})
    assert reply.status_code == 200, reply.text
    found = reply.json()
    assert sum(value["probability"] for value in found["values"]) == pytest.approx(1.0)
    assert found["exclusive"] is True and found["other"] == 0.0
    assert found["fitted_on"] == {
        "cases": 120, "patients": 120, "queries": 120, "folds": 5, "seed": 0, "gallery_size": 120,
    }  # fmt: skip
    for value in found["values"]:
        names = [point["name"] for point in value["operating_points"]]
        assert names == ["youden", "sensitivity>=0.80"]
        assert (value["rule_in"], value["rule_out"]) == tuple(names)
        assert "case-007" not in value["case_ids"]
    assert found["query"]["case_id"] == "case-007"
    assert "not a medical device" in found["intended_use"].lower()


def test_a_number_is_estimated(client: TestClient) -> None:
    at = angles(120, seed=1)[7]
    found = client.post("/v1/estimate", data={"case_id": "case-007", "label": "size"}).json()
    assert found["low"] <= found["number"] <= found["high"]
    assert found["number"] == pytest.approx(50 + 30 * np.cos(at), abs=5)
    assert found["quality"]["error"] < found["quality"]["error_of_mean"]
    assert {vote["case_id"] for vote in found["neighbours"]}.isdisjoint({"case-007"})


def test_a_picture_can_be_sent(client: TestClient, tmp_path: Path) -> None:
    files = parts(write_pictures(tmp_path, 1, seed=9))
    for route, label in (("classify", "kind"), ("estimate", "size")):
        reply = client.post(f"/v1/{route}", files=files, data={"label": label, "k": "5"})
        assert reply.status_code == 200, reply.text
        assert reply.json()["k"] == 5 and reply.json()["query"]["case_id"] is None


@pytest.mark.parametrize("route", ["classify", "estimate"])
@pytest.mark.parametrize(
    ("fields", "status", "word"),
    [
        ({"label": "kind"}, 422, "exactly one"),
        ({"case_id": "case-001"}, 422, "label"),
        ({"case_id": "case-001", "label": "colour"}, 400, "label on file, which are 'kind', 'size'"),
        ({"case_id": "case-001", "label": "col\x00our"}, 400, "label on file"),
        ({"case_id": "nosuchcase000000", "label": "kind"}, 404, "nosuchcase000000"),
        ({"case_id": "case-001", "label": "kind", "k": "0"}, 422, "k:"),
        ({"case_id": "case-001", "label": "kind", "level": "2", "sensitivity": "2"}, 422, "level"),
        ({"case_id": "case-001", "label": "kind", "filters": "[1"}, 422, "JSON"),
    ],
)
def test_what_can_not_be_asked_is_told(
    client: TestClient, route: str, fields: dict[str, str], status: int, word: str
) -> None:
    reply = client.post(f"/v1/{route}", data=fields)
    assert (reply.status_code, reply.headers["content-type"]) == (status, "application/problem+json")
    assert word in reply.json()["detail"]


def test_the_command_line_tells_the_same(client: TestClient, home: Path) -> None:
    over_http = client.post("/v1/classify", data={"case_id": "case-011", "label": "kind"}).json()
    told = answer("classify", "case-011", "--label", "kind", home=home)
    for name in ("values", "k", "temperature", "method", "fitted_on", "quality", "neighbours"):
        assert told[name] == over_http[name], name
    estimated = answer("estimate", "case-011", "--label", "size", "--level", "0.8", home=home)
    assert estimated["level"] == 0.8 and estimated["low"] < estimated["number"] < estimated["high"]


def test_tables_for_people(home: Path) -> None:
    table = run("classify", "case-011", "--label", "kind", "--specificity", "0.9", home=home).stdout
    assert all(word in table for word in ("calm", "mixed", "wild", "base rate", "rule out", "120 patients"))
    assert "interval" in run("estimate", "case-011", "--label", "size", home=home).stdout
    refused = run("classify", "case-011", "--label", "shape", home=home, code=2)
    assert "'kind', 'size'" in refused.stderr


@pytest.mark.parametrize(("route", "label"), [("classify", "kind"), ("estimate", "size")])
def test_answers_and_forms_are_as_described(client: TestClient, route: str, label: str) -> None:
    described = client.get("/openapi.json").json()
    operation = described["paths"][f"/v1/{route}"]["post"]
    reference = operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
    schema = described["components"]["schemas"][reference.rsplit("/", 1)[1]]
    found = client.post(f"/v1/{route}", data={"case_id": "case-003", "label": label}).json()
    assert set(found) == set(schema["properties"]) == set(schema["required"])
    form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["required"] == ["label"]
    assert {"files", "case_id", "text", "label", "k", "filters", "same_patient"} <= set(form["properties"])
