"""A damaged index is built anew by the service itself; what it is made of is all in SQL."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from indexer.rebuild import rebuild
from indexer.sandbox import Sandbox
from retrieval.generations import generations_folder
from retrieval.verify import verify
from tests.api_client import served
from tests.studies import index_all, open_gallery, write_pictures


@pytest.fixture
def home(tmp_path: Path, sandbox: Sandbox) -> Path:
    """Twenty pictures and two generations of a compressed index."""
    write_pictures(tmp_path / "in", 20)
    with open_gallery(tmp_path / "home", index="faiss") as gallery:
        index_all(gallery, sandbox, tmp_path / "in")
        rebuild(gallery)
        rebuild(gallery)
    return tmp_path / "home"


def damage(home: Path, generation: str) -> None:
    path = generations_folder(home) / generation / "vectors.npy"
    data = bytearray(path.read_bytes())
    data[-9] ^= 16
    path.write_bytes(data)


def live(home: Path) -> str:
    with open_gallery(home) as gallery:
        return gallery.catalog.heads().generation


@pytest.fixture
def damaged(home: Path) -> str:
    name = live(home)
    damage(home, name)
    return name


def ready(client: TestClient) -> None:
    for _ in range(600):
        if client.get("/readyz").status_code == 200:
            return
        time.sleep(0.05)
    raise AssertionError(client.get("/readyz").text)


def hits(client: TestClient) -> list[tuple[str, float]]:
    case_id = client.get("/v1/cases").json()["cases"][0]["case_id"]
    return [(hit["case_id"], hit["similarity"]) for hit in client.get(f"/v1/cases/{case_id}/similar").json()["hits"]]


@pytest.fixture
def client(home: Path) -> Iterator[TestClient]:
    with served(home) as opened:
        yield opened


def test_a_service_that_starts_on_a_damaged_index_mends_it(home: Path, damaged: str) -> None:
    with served(home) as client:
        told = client.get("/readyz")
        assert told.status_code == 503 and damaged in told.json()["detail"]
        before = hits(client)
        ready(client)
        now = client.get("/v1/gallery").json()
        assert (now["damaged"], now["delta"]) == ("", 0) and now["generation"] not in {"", damaged}
        assert hits(client) == before
    with open_gallery(home) as gallery:
        assert verify(gallery.catalog, home).ok
        rows = gallery.catalog.generations()
        assert [row.backend for row in rows] == ["faiss", "faiss"]  # as it was, and the sound one before to go back to
        assert damaged not in {row.name for row in rows}


def test_damage_under_a_running_service_is_mended(home: Path, client: TestClient) -> None:
    assert client.get("/readyz").status_code == 200
    before, name = hits(client), live(home)
    damage(home, name)
    assert client.get("/readyz").status_code == 503
    assert hits(client) == before
    ready(client)
    assert hits(client) == before
    assert client.get("/v1/gallery").json()["generation"] not in {"", name}


def test_it_is_not_tried_over_and_over(home: Path, client: TestClient) -> None:
    """What ails a disk may spoil the next index as well: one attempt a minute."""
    for _ in range(2):
        damage(home, live(home))
        assert client.get("/readyz").status_code == 503
        for _ in range(100):
            jobs = client.get("/v1/rebuilds").json()["rebuilds"]
            if not any(job["state"] == "running" for job in jobs):
                break
            time.sleep(0.05)
    assert [job["state"] for job in jobs] == ["done"]
    assert client.get("/readyz").status_code == 503
