"""One shape for every error, over every route; and the table of errors and statuses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.problems import BY_ERROR, BY_STATUS, URN, kind_of
from retrieval import errors
from retrieval.settings import Settings
from tests.api_client import client_of, served

WRONG_ID = "nosuchcase000000"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with served(tmp_path_factory.mktemp("empty") / "home") as opened:
        yield opened


def operations(client: TestClient) -> list[tuple[str, str]]:
    paths = client.get("/openapi.json").json()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


def check_shape(reply) -> dict:
    assert reply.headers["content-type"] == "application/problem+json"
    body = reply.json()
    assert set(body) - {"errors"} == {"type", "title", "status", "detail", "instance"}
    assert body["status"] == reply.status_code
    assert body["type"].startswith(URN)
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", body["instance"])
    assert body["instance"].endswith(reply.headers["x-request-id"])
    assert body["detail"].endswith("."), body["detail"]
    assert "Traceback" not in reply.text
    return body


def test_every_route_refuses_in_the_same_shape(client: TestClient) -> None:
    fill = {"case_id": WRONG_ID, "token": "none", "key": "0" * 32, "job_id": "99"}
    refused = 0
    for method, path in operations(client):
        url = re.sub(r"{(\w+)}", lambda found: fill[found[1]], path)
        reply = client.request(method, url, params={"limit": "no", "k": "no", "slice": "no", "filters": "no"})
        if reply.status_code >= 400:
            check_shape(reply)
            refused += 1
    assert refused >= 14, "nearly every route can be asked wrongly"


def test_a_method_that_is_not_there_is_405_everywhere(client: TestClient) -> None:
    for path in {path for _, path in operations(client)}:
        url = re.sub(r"{\w+}", "99", path)
        reply = client.request("TRACE", url)
        assert reply.status_code == 405
        check_shape(reply)
        assert ("GET" in reply.headers["allow"]) == ("HEAD" in reply.headers["allow"])


def test_a_query_parameter_that_is_not_declared_is_refused(client: TestClient) -> None:
    described = client.get("/openapi.json").json()["paths"]
    for method, path in operations(client):
        if not path.startswith("/v1/"):
            continue
        known = [one["name"] for one in described[path][method.lower()].get("parameters", []) if one["in"] == "query"]
        reply = client.request(method, re.sub(r"{\w+}", "99", path), params={"filter": "{}"})
        assert reply.status_code == 422, (method, path)
        body = check_shape(reply)
        assert body["errors"][0]["where"] == "filter"
        assert all(name in body["detail"] for name in known)
    similar = f"/v1/cases/{WRONG_ID}/similar"
    assert "twice" in client.get(f"{similar}?k=3&k=4").json()["detail"]
    assert client.get(f"{similar}?k=3").status_code == 404
    assert client.get("/livez?probe=1").status_code == 200


def test_head_is_get_without_the_body(client: TestClient) -> None:
    gets = [path for method, path in operations(client) if method == "GET"]
    for path in ["/", "/page/main.js", "/openapi.json", *gets]:
        url = re.sub(r"{\w+}", "99", path)
        got, head = client.get(url), client.head(url)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert head.headers["content-type"] == got.headers["content-type"]
        assert head.headers["content-length"].isdecimal()
    assert client.head("/livez").status_code == 200
    assert client.head("/v1/search").status_code == 405
    assert 'method="HEAD",route="/livez"' in client.get("/metrics").text


def test_every_problem_a_route_can_give_is_described(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    assert "ProblemBody" in described["components"]["schemas"]
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    assert list(response["content"]) == ["application/problem+json"], (path, method, status)


def test_the_statuses_a_route_gives_are_described(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    fill = {"case_id": WRONG_ID, "token": "none", "key": "0" * 32, "job_id": "99"}
    for path, methods in paths.items():
        for method, operation in methods.items():
            url = re.sub(r"{(\w+)}", lambda found: fill[found[1]], path)
            reply = client.request(method.upper(), url)
            assert str(reply.status_code) in operation["responses"], (method, path, reply.status_code)


@pytest.mark.parametrize("path", ["/nope", "/v1/", "/v1/cases/", "/page/../app.py", "/page/%2e%2e/app.py", "/docs"])
def test_what_is_not_there_is_404(client: TestClient, path: str) -> None:
    reply = client.get(path)
    assert reply.status_code == 404
    check_shape(reply)


def test_a_body_that_is_no_json_is_400(client: TestClient) -> None:
    reply = client.patch(f"/v1/cases/{WRONG_ID}", content=b"{", headers={"content-type": "application/json"})
    assert reply.status_code == 400
    check_shape(reply)


def all_errors(root: type[errors.PrecedentError]) -> list[type[errors.PrecedentError]]:
    return [root, *(below for child in root.__subclasses__() for below in all_errors(child))]


@pytest.mark.parametrize("error", all_errors(errors.PrecedentError))
def test_every_error_has_the_status_its_tree_promises(error: type[errors.PrecedentError]) -> None:
    made = {
        errors.FingerprintMismatch: lambda: errors.FingerprintMismatch("a", "b", "c."),
        errors.MissingExtra: lambda: errors.MissingExtra("x", "y"),
    }.get(error) or (lambda: error("scan", "why.") if issubclass(error, errors.RejectedInput) else error("why."))
    kind = kind_of(made())
    lines = (errors.__doc__ or "").splitlines()
    line = next((line for line in lines if re.search(rf"── {error.__name__} ", line)), "")
    told = re.search(r"HTTP (\d+)", line)
    if told:
        assert kind.status == int(told[1])
    assert 400 <= kind.status < 600


def test_the_table_has_one_title_per_type() -> None:
    kinds = [*BY_ERROR.values(), *BY_STATUS.values()]
    assert len({kind.slug for kind in kinds}) == len(set(kinds))
    assert all(kind.status == status for status, kind in BY_STATUS.items())


def test_the_unforeseen_is_a_500_that_tells_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    app = create_app(Settings(home=tmp_path / "home", workers=1))

    @app.get("/broken")
    def broken() -> None:
        raise LookupError("patient Erika Mustermann is missing")

    @app.get("/full")
    def full() -> None:
        with open("/dev/full", "wb", buffering=0) as file:
            file.write(b"x")

    @app.get("/nowhere")
    def nowhere() -> None:
        (tmp_path / "nowhere" / "Mustermann").read_bytes()

    with client_of(app) as client:
        for url, status in (("/broken", 500), ("/full", 507), ("/nowhere", 500)):
            reply = client.get(url)
            assert reply.status_code == status
            check_shape(reply)
            assert "Mustermann" not in reply.text
            assert str(tmp_path) not in reply.text
    assert "LookupError" in caplog.text
    assert "Mustermann" not in caplog.text


def test_a_gallery_that_does_not_open_says_why_and_recovers(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with served(home) as client:
        assert client.get("/readyz").json() == {"status": "ok", "writes": ""}
    key = (home / "secret.key").read_bytes()
    (home / "secret.key").write_bytes(b"short")
    with served(home) as client:
        for url in ("/readyz", "/v1/gallery", "/v1/cases"):
            body = check_shape(client.get(url))
            assert body["status"] == 503
            assert "secret.key" in body["detail"]
            assert str(home) not in body["detail"]
        assert client.get("/livez").status_code == 200
        assert client.get("/").status_code == 200
        (home / "secret.key").write_bytes(key)
        assert client.get("/readyz").status_code == 200
        assert client.get("/v1/gallery").status_code == 200
