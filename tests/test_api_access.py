"""Who may do what: every route against every kind of key, foreign hosts and foreign pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from starlette.testclient import TestClient

from indexer.sandbox import Sandbox
from retrieval.access import AccessKeys
from retrieval.catalog import Catalog
from retrieval.settings import Settings
from tests.api_client import Seeded, seed, served

# What each route needs. A route that is not listed here fails the test.
NEEDS = {
    "GET /livez": "nothing",
    "GET /readyz": "nothing",
    "GET /metrics": "read",
    "GET /health": "nothing",
    "POST /predict": "read",
    "POST /encode": "write",  # vectors are patient data
    "POST /v1/search": "read",
    "POST /v1/classify": "read",
    "POST /v1/estimate": "read",
    "POST /v1/evidence": "read",
    "POST /v1/answer": "read",
    "POST /mcp": "read",
    "GET /v1/cases": "read",
    "GET /v1/cases/{case_id}": "read",
    "GET /v1/cases/{case_id}/similar": "read",
    "GET /v1/cases/{case_id}/image": "read",
    "GET /v1/cases/{case_id}/thumbnail": "read",
    "GET /v1/queries/{token}/image": "read",
    "GET /v1/gallery": "read",
    "POST /v1/cases": "write",
    "PATCH /v1/cases/{case_id}": "write",
    "DELETE /v1/cases/{case_id}": "write",
    "DELETE /v1/patients/{key}": "admin",
    "POST /v1/rebuilds": "admin",
    "GET /v1/rebuilds": "admin",
    "GET /v1/rebuilds/{job_id}": "admin",
    "POST /v1/rebuilds/{job_id}/rollback": "admin",
}
GIVEN = ["none", "garbage", "revoked", "read", "write", "admin"]
POWER = {"nothing": 0, "none": 0, "garbage": 0, "revoked": 0, "read": 1, "write": 2, "admin": 3}


@dataclass(frozen=True)
class Keyed:
    client: TestClient
    seeded: Seeded
    tokens: dict[str, str]

    def headers(self, given: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[given]}"} if given != "none" else {}


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox) -> Iterator[Keyed]:
    seeded = seed(tmp_path_factory.mktemp("keyed"), sandbox)
    with Catalog.open(Settings(home=seeded.home).url) as catalog:
        keys = AccessKeys(catalog.database)
        tokens = {scope: keys.create_key(scope, scope) for scope in ("read", "write", "admin")}
        tokens |= {"revoked": keys.create_key("old", "admin"), "garbage": "precedent_no-such-key"}
        keys.revoke("old")
    with served(seeded.home, host="0.0.0.0") as client:
        yield Keyed(client, seeded, tokens)


def test_every_route_wants_the_scope_it_should(keyed: Keyed) -> None:
    paths = keyed.client.get("/openapi.json").json()["paths"]
    routes = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert routes == set(NEEDS)
    for route, needed in NEEDS.items():
        method, path = route.split(" ")
        url = re.sub(r"{\w+}", "99", path)
        for given in GIVEN:
            status = keyed.client.request(method, url, headers=keyed.headers(given)).status_code
            if POWER[given] >= POWER[needed]:
                assert status not in {401, 403}, (route, given, status)
            else:
                assert status == (403 if POWER[given] else 401), (route, given, status)


def test_the_page_itself_needs_no_key(keyed: Keyed) -> None:
    for url in ("/", "/page/main.js", "/page/style.css"):
        assert keyed.client.get(url).status_code == 200


def test_a_pseudonym_is_for_writers(keyed: Keyed) -> None:
    for given, shown in (("read", False), ("write", True), ("admin", True)):
        case = keyed.client.get(f"/v1/cases/{keyed.seeded.series[0]}", headers=keyed.headers(given)).json()
        assert case["patient_known"] is True
        assert bool(case["patient_key"]) is shown


def test_no_challenge_is_missing(keyed: Keyed) -> None:
    assert keyed.client.get("/v1/gallery").headers["www-authenticate"].startswith("Bearer")


def test_a_bad_key_is_not_told_apart_from_none_by_its_body(keyed: Keyed) -> None:
    details = {keyed.client.get("/v1/gallery", headers=keyed.headers(given)).json()["detail"] for given in GIVEN[:3]}
    assert len(details) == 1


def test_the_open_network_without_keys_is_served_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    with served(tmp_path_factory.mktemp("open") / "home", host="0.0.0.0") as client:
        reply = client.get("/v1/gallery")
        assert reply.status_code == 401
        assert "precedent keys create" in reply.json()["detail"]
        assert client.get("/livez").status_code == 200


def test_a_rebound_name_is_refused_on_loopback(tmp_path_factory: pytest.TempPathFactory) -> None:
    with served(tmp_path_factory.mktemp("loopback") / "home") as client:
        for host in ("127.0.0.1:8000", "localhost", "localhost:9", "[::1]:8000"):
            assert client.get("/v1/gallery", headers={"host": host}).status_code == 200, host
        for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8000", "[::1", ""):
            assert client.get("/v1/gallery", headers={"host": host}).status_code == 421, host


@pytest.mark.parametrize(
    "foreign",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_page_of_another_site_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, foreign: dict[str, str]
) -> None:
    with served(tmp_path_factory.mktemp("foreign") / "home") as client:
        reply = client.post("/v1/search", data={"case_id": "a"}, headers=foreign)
        assert reply.status_code == 403
        own = {"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"}
        assert client.post("/v1/search", data={"case_id": "a"}, headers=own).status_code == 404
        assert "access-control-allow-origin" not in reply.headers


def test_every_reply_carries_the_policy(tmp_path_factory: pytest.TempPathFactory) -> None:
    with served(tmp_path_factory.mktemp("policy") / "home") as client:
        for url in ("/", "/livez", "/nope", "/v1/gallery"):
            headers = client.get(url).headers
            assert "script-src 'self'" in headers["content-security-policy"]
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
