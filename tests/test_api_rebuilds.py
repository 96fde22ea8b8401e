"""Rebuilding over HTTP, and the small parts of the service."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from api.cache import ByteCache
from api.capacity import Capacity
from api.imaging import parse_window, png, stack_window
from api.previews import HELD_SECONDS, Previews
from api.problems import Problem
from api.rebuilding import KIND
from api.wire import excerpt, label_of
from indexer.sandbox import Sandbox
from retrieval.ages import age_band
from retrieval.catalog import Catalog
from retrieval.jobs import Jobs
from retrieval.types import Image, Label
from tests.api_client import SECRET_NAME, Seeded, seed, served

OTHER = "classical?recipe=ct-lung-v1"


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox) -> Seeded:
    return seed(tmp_path_factory.mktemp("rebuild"), sandbox)


@pytest.fixture(scope="module")
def client(seeded: Seeded) -> Iterator[TestClient]:
    with served(seeded.home) as opened:
        yield opened


def rebuilt(client: TestClient, **asked: object) -> dict:
    reply = client.post("/v1/rebuilds", json=asked)
    assert reply.status_code == 202
    where = reply.headers["location"]
    for _ in range(600):
        job = client.get(where).json()
        if job["state"] not in {"queued", "running"}:
            return job
        time.sleep(0.05)
    raise AssertionError(f"still {job['state']}")


def test_a_rebuild_goes_live_and_can_be_rolled_back(client: TestClient, seeded: Seeded) -> None:
    before = client.get(f"/v1/cases/{seeded.series[0]}/similar", params={"group": "none"}).json()
    first, second = rebuilt(client), rebuilt(client)
    assert (first["state"], second["state"]) == ("done", "done")
    assert second["progress"] == second["total"] == 7
    assert client.get("/v1/gallery").json()["generation"] == second["generation"]
    assert client.get("/v1/gallery").json()["delta"] == 0
    after = client.get(f"/v1/cases/{seeded.series[0]}/similar", params={"group": "none"}).json()
    assert [hit["case_id"] for hit in after["hits"]] == [hit["case_id"] for hit in before["hits"]]
    assert after["generation"] == second["generation"]
    assert client.post(f"/v1/rebuilds/{first['id']}/rollback").status_code == 409
    assert client.post(f"/v1/rebuilds/{second['id']}/rollback").json() == {"generation": first["generation"]}
    assert client.get("/v1/gallery").json()["generation"] == first["generation"]
    listed = [job["id"] for job in client.get("/v1/rebuilds").json()["rebuilds"]]
    assert listed == sorted(listed, reverse=True)
    assert set(listed) >= {first["id"], second["id"]}


def test_a_rebuild_tells_how_it_compares(client: TestClient) -> None:
    live = rebuilt(client)["generation"]
    done = rebuilt(client)
    assert (done["report"]["old"]["generation"], done["report"]["new"]["generation"]) == (live, done["generation"])
    assert (done["report"]["overlap"], done["report"]["new"]["recall"], done["report"]["queries"]) == (1.0, 1.0, 7)
    assert 0 < done["report"]["new"]["p50_ms"] <= done["report"]["new"]["p99_ms"]


def test_a_dry_run_and_a_refusal_leave_what_is_live(client: TestClient) -> None:
    live = rebuilt(client)["generation"]
    tried = rebuilt(client, backend="faiss", dry_run=True, min_overlap=1)
    assert (tried["state"], tried["dry_run"], tried["generation"]) == ("done", True, "")
    assert tried["report"]["old"]["generation"] == live
    assert client.post(f"/v1/rebuilds/{tried['id']}/rollback").status_code == 409
    assert client.get("/v1/gallery").json()["generation"] == live
    assert client.post("/v1/rebuilds", json={"min_overlap": 2}).status_code == 422


def test_embedding_anew_over_http(tmp_path: Path, sandbox: Sandbox) -> None:
    """The service says that it must be restarted, still tells of the rebuild, and can take it back."""
    own = seed(tmp_path, sandbox)
    with served(own.home) as client:
        before = client.get(f"/v1/cases/{own.series[0]}/similar").json()
        refusals = (({"encoder": "nosuch"}, 404), ({"encoder": "classical"}, 400), ({"drop_missing": True}, 400))
        for asked, code in refusals:
            assert client.post("/v1/rebuilds", json=asked).status_code == code
        missing = sorted((own.studies / "pictures").iterdir())[0]
        kept = missing.read_bytes()
        missing.unlink()
        refused = rebuilt(client, encoder=OTHER)
        assert (refused["state"], refused["missing"], refused["generation"]) == ("failed", 1, "")
        assert refused["missing_cases"][0]["case_id"] in own.pictures
        assert SECRET_NAME not in str(refused)
        missing.write_bytes(kept)
        done = rebuilt(client, encoder=OTHER)
        assert (done["state"], done["missing"], done["progress"]) == ("done", 0, 7)
        for reply in (client.get("/readyz"), client.get(f"/v1/cases/{own.series[0]}/similar")):
            assert reply.status_code == 503
            assert "embedded anew" in reply.json()["detail"] and "restart" in reply.json()["detail"]
        with served(own.home) as restarted:
            after = restarted.get(f"/v1/cases/{own.series[0]}/similar").json()
            assert after["encoder"]["fingerprint"] == done["report"]["new"]["fingerprint"]
        assert client.post(f"/v1/rebuilds/{done['id']}/rollback").status_code == 200
        again = client.get(f"/v1/cases/{own.series[0]}/similar").json()
        assert again["encoder"] == before["encoder"] and again["hits"] == before["hits"]


def test_one_at_a_time(client: TestClient, seeded: Seeded) -> None:
    with Catalog.open(f"sqlite:///{seeded.home / 'catalog.sqlite3'}") as catalog:  # another worker of the service
        jobs = Jobs(catalog.database)
        other = jobs.begin(KIND)
        refused = client.post("/v1/rebuilds", json={})
        assert refused.status_code == 409
        assert f"job {other.id}" in refused.json()["detail"]
        jobs.fail(other.id, "It was only a test.")
    assert rebuilt(client)["state"] == "done"


def test_what_can_not_be_rebuilt_is_told_before_it_is_queued(client: TestClient) -> None:
    count = len(client.get("/v1/rebuilds").json()["rebuilds"])
    for backend in ("magic", "faiss:BANANA", "faiss:Flat,nprobe=4", "exact:fast", "milvus:/tmp/x.db", "milvus:x.db"):
        assert client.post("/v1/rebuilds", json={"backend": backend}).status_code == 400, backend
    assert client.post("/v1/rebuilds", json={"engine": "x"}).status_code == 422
    assert len(client.get("/v1/rebuilds").json()["rebuilds"]) == count
    assert client.get("/v1/rebuilds/9999").status_code == 404


def test_metrics_name_routes_by_template(client: TestClient, seeded: Seeded) -> None:
    client.get(f"/v1/cases/{seeded.series[0]}")
    client.get("/v1/nowhere/at/all")
    text = client.get("/metrics").text
    assert 'route="/v1/cases/{case_id}"' in text
    assert 'route="unmatched"' in text
    assert seeded.series[0] not in text
    assert "precedent_gallery_cases 7.0" in text
    assert "precedent_request_seconds_bucket" in text


@given(st.lists(st.tuples(st.sampled_from("pgd"), st.integers(0, 5), st.integers(0, 12)), max_size=60))
def test_a_byte_cache_holds_the_latest_that_fit(steps: list[tuple[str, int, int]]) -> None:
    cache: ByteCache[int, tuple[int, int]] = ByteCache(20)
    held: dict[int, int] = {}  # key -> size, least recently used first
    for act, key, size in steps:
        if act == "p":
            cache.put(key, (key, size), size)
            held.pop(key, None)
            if size <= 20:
                held[key] = size
            while sum(held.values()) > 20:
                held.pop(next(iter(held)))
        elif act == "d":
            cache.drop(key)
            held.pop(key, None)
        else:
            found = cache.get(key)
            assert (found is not None) == (key in held)
            if key in held:
                held[key] = held.pop(key)
        assert cache.bytes == sum(held.values())


def test_past_its_places_a_service_is_busy() -> None:
    capacity = Capacity(running=1, waiting=1)
    with capacity.slot(), capacity.place():
        with pytest.raises(Problem) as busy, capacity.slot():
            pass
        assert busy.value.status_code == 503
        assert busy.value.headers is not None
        assert "Retry-After" in busy.value.headers
    with capacity.slot():
        pass


def test_a_preview_shows_the_nearest_embedded_slice_until_its_time_is_up() -> None:
    now = [0.0]
    previews = Previews(clock=lambda: now[0])
    images = tuple(Image(np.full((2, 2), n, np.uint8)) for n in range(3))
    token = previews.keep(images, (0, 10, 20))
    assert [int(previews.frame(token, n).pixels[0, 0]) for n in (0, 4, 6, 14, 20)] == [0, 0, 1, 1, 2]
    with pytest.raises(Problem):
        previews.frame(token, 21)
    now[0] = HELD_SECONDS + 1
    with pytest.raises(Problem) as gone:
        previews.frame(token, 0)
    assert gone.value.status_code == 410


def test_one_window_serves_a_whole_stack_unless_frames_know_theirs() -> None:
    ramp = np.arange(1000, dtype=np.int16).reshape(20, 50)
    found = stack_window(Image(ramp, modality="MR"))
    assert found is not None
    assert found[0] == pytest.approx(500, abs=1)
    assert found[1] == pytest.approx(990, abs=2)
    for known in (Image(ramp, modality="CT"), Image(ramp, window=(1, 2)), Image(np.zeros((4, 4, 3), np.uint8))):
        assert stack_window(known) is None
    assert png(Image(ramp, modality="MR"), found, 0).startswith(b"\x89PNG")


def test_small_words() -> None:
    assert [age_band(age) for age in (None, 0, 9.9, 10, 47, 89.5, 90, 104)] == [
        "", "0-9", "0-9", "10-19", "40-49", "80-89", "90+", "90+",
    ]  # fmt: skip
    assert excerpt("a\n  b") == "a b"
    assert label_of("size", "1e3") == Label("size", "1e3", 1000.0)
    assert [label_of("x", text).number for text in ("nan", "inf", "1e300", "big")] == [None] * 4
    assert parse_window("") is None
    assert parse_window("-600,1500") == (-600.0, 1500.0)


def test_the_page_is_whole(tmp_path: Path) -> None:
    with served(tmp_path / "home") as client:
        page = client.get("/").text
        assert "not a medical device" in page
        assert " style=" not in page
        assert "onclick" not in page
        for name in ("main.js", "style.css", "viewer.css", "mark.svg"):
            assert f"/page/{name}" in page
            reply = client.get(f"/page/{name}")
            assert reply.status_code == 200
            assert client.get(f"/page/{name}", headers={"if-none-match": reply.headers["etag"]}).status_code == 304
