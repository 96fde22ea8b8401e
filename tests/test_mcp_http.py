"""The tools of the Model Context Protocol at ``/mcp`` of a real service, by the SDK's own client."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from retrieval.access import AccessKeys
from retrieval.catalog import Catalog
from retrieval.settings import Settings
from tests.api_client import served as served_here
from tests.processes import Served, run, serving
from tests.studies import write_pictures

WITHOUT_MCP = "import sys; sys.modules['mcp'] = None; from indexer.cli import main; main()"
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
TAKES = {"accept": "application/json, text/event-stream"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("mcp")
    write_pictures(place / "pictures", 5)
    run("index", place / "pictures", home=place / "home")
    return place


@pytest.fixture(scope="module")
def keys(home: Path) -> dict[str, str]:
    with Catalog.open(Settings(home=home / "home").url) as catalog:
        made = AccessKeys(catalog.database)
        tokens = {scope: made.create_key(scope, scope) for scope in ("read", "admin")}
        tokens["revoked"] = made.create_key("old", "admin")
        made.revoke("old")
    return tokens


@pytest.fixture(scope="module")
def service(home: Path, keys: dict[str, str]) -> Iterator[Served]:
    with serving(home / "home", home / "log") as served:
        yield served


@pytest.fixture(scope="module")
def cases(home: Path) -> list[str]:
    with Catalog.open(Settings(home=home / "home").url) as catalog:
        return [case.case_id for case in catalog.list_cases()]


@pytest.fixture(scope="module")
def picture(home: Path) -> Path:
    return next(path for path in (home / "pictures").rglob("*") if path.is_file())


def address(service: Served) -> str:
    return str(service.client.base_url.join("/mcp"))


async def talk(url: str, key: str, mode: str, cases: list[str], picture: Path) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        tools = (await client.list_tools()).tools
        return {
            "tools": {tool.name: tool.input_schema["properties"] for tool in tools},
            "found": await client.call_tool("search_similar_cases", {"case_id": cases[0], "k": 3}),
            "case": await client.call_tool("get_case", {"case_id": cases[0]}),
            "evidence": await client.call_tool("get_evidence", {"case_id": cases[0], "k": 3}),
            "compared": await client.call_tool("compare_cases", {"first": cases[0], "second": cases[1]}),
            "missing": await client.call_tool("get_case", {"case_id": "nowhere"}),
            "by_file": await client.call_tool("search_similar_cases", {"path": str(picture)}),
        }


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_four_tools_with_a_key_that_may_read(
    service: Served, keys: dict[str, str], cases: list[str], picture: Path, mode: str
) -> None:
    told = asyncio.run(talk(address(service), keys["read"], mode, cases, picture))
    assert set(told["tools"]) == {"search_similar_cases", "get_case", "get_evidence", "compare_cases"}
    similar = service.client.get(
        f"/v1/cases/{cases[0]}/similar", params={"k": 3}, headers={"Authorization": f"Bearer {keys['read']}"}
    ).json()["hits"]
    hits = told["found"].structured_content["hits"]
    assert [(hit["case"]["case_id"], hit["similarity"]) for hit in hits] == [
        (hit["case_id"], pytest.approx(hit["similarity"], abs=1e-6)) for hit in similar
    ]
    assert told["case"].structured_content["case_id"] == cases[0]
    assert len(told["evidence"].structured_content["cases"]) == 3
    assert -1 <= told["compared"].structured_content["similarity"] <= 1
    assert told["missing"].is_error and "No case nowhere" in told["missing"].content[0].text


def test_no_file_of_the_services_machine_can_be_asked_for(
    service: Served, keys: dict[str, str], cases: list[str], picture: Path
) -> None:
    told = asyncio.run(talk(address(service), keys["admin"], "auto", cases, picture))
    assert all("path" not in given for given in told["tools"].values())
    assert told["by_file"].is_error and "exactly one of case_id and text" in told["by_file"].content[0].text


@pytest.mark.parametrize("key", ["", "precedent_no-such-key", "revoked"])
def test_without_a_key_it_answers_as_every_route_does(service: Served, keys: dict[str, str], key: str) -> None:
    token = keys.get(key, key)
    headers = {**TAKES, **({"Authorization": f"Bearer {token}"} if token else {})}
    reply = service.client.post("/mcp", json=PING, headers=headers)
    other = service.client.get("/v1/gallery", headers=headers)
    assert reply.status_code == other.status_code == 401
    assert reply.json()["detail"] == other.json()["detail"]
    assert reply.headers["www-authenticate"] == other.headers["www-authenticate"]


def test_the_guards_of_every_route_stand_before_it(service: Served, keys: dict[str, str]) -> None:
    headers = {**TAKES, "Authorization": f"Bearer {keys['read']}"}
    assert service.client.post("/mcp", json=PING, headers=headers).json()["result"] == {}
    assert service.client.post("/mcp", json=PING, headers={**headers, "host": "evil.example"}).status_code == 421
    assert service.client.post("/mcp", json=PING, headers={**headers, "origin": "http://evil"}).status_code == 403
    own = str(service.client.base_url).rstrip("/")
    assert service.client.post("/mcp", json=PING, headers={**headers, "origin": own}).status_code == 200
    large = service.client.post("/mcp", json={**PING, "params": {"x": "x" * (1 << 20)}}, headers=headers)
    assert large.status_code == 413 and "limit of 1 MiB" in large.json()["detail"]
    assert service.client.get("/mcp", headers=headers).status_code == 405
    assert service.client.post("/mcp", json=PING, params={"x": 1}, headers=headers).status_code == 422


def test_open_to_the_network_it_answers_under_any_name(home: Path, keys: dict[str, str]) -> None:
    headers = {**TAKES, "Authorization": f"Bearer {keys['read']}", "host": "gallery.example:8443"}
    with served_here(home / "home", host="0.0.0.0") as client:
        assert client.post("/mcp", json=PING, headers=headers).json()["result"] == {}
        assert client.post("/mcp", json=PING, headers={**headers, "origin": "http://evil"}).status_code == 403


def test_without_the_sdk_there_is_a_sentence_and_nothing_else_changes(home: Path, keys: dict[str, str]) -> None:
    headers = {**TAKES, "Authorization": f"Bearer {keys['read']}"}
    with serving(home / "home", home / "bare", command=(sys.executable, "-c", WITHOUT_MCP, "serve")) as served:
        reply = served.client.post("/mcp", json=PING, headers=headers)
        assert reply.status_code == 501 and "precedent[mcp]" in reply.json()["detail"]
        assert served.client.post("/mcp", json=PING, headers=TAKES).status_code == 401
        assert served.client.get("/v1/gallery", headers=headers).status_code == 200
