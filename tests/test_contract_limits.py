"""What the service contract refuses, how much it takes, and what becomes of those who go away."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from api.encoding import answered
from api.problems import Problem
from retrieval.settings import Settings
from tests.contract_client import MedImageInsightsClient, Reply
from tests.contract_files import make_home, png, vectors
from tests.test_api_server import running


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("contract"))


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[MedImageInsightsClient]:
    with running(Settings(home=home, workers=2)) as server:
        yield MedImageInsightsClient(server.url)


@pytest.mark.parametrize(
    ("path", "body", "status", "word"),
    [
        ("/encode", b"", 400, "not JSON"),
        ("/encode", b"{", 400, "not JSON"),
        ("/encode", b"\xff\xfe{}", 400, "not JSON"),
        ("/encode", b"[]", 422, "object"),
        ("/encode", b'{"images": "abc"}', 422, "images"),
        ("/encode", b'{"images": [1]}', 422, "images.0"),
        ("/encode", b'{"images": [null]}', 422, "images.0"),
        ("/encode", b'{"images": [""]}', 422, "images.0"),
        ("/encode", b'{"images": ["!!!!"]}', 422, "base64"),
        ("/encode", b'{"images": ["data:image/png,AAAA"]}', 422, "base64"),
        ("/encode", b'{"images": ["QUJDREVGRw=="]}', 422, "images.0: Not an image"),
        ("/encode", b'{"texts": [7]}', 422, "texts.0"),
        ("/encode", json.dumps({"texts": ["x" * 20_001]}).encode(), 422, "texts.0"),
        ("/encode", json.dumps({"texts": ["x"] * 1001}).encode(), 413, "1000"),
        ("/encode", json.dumps({"images": ["AAAA"] * 257}).encode(), 413, "256"),
        ("/encode", b"[" * 100_000, 400, "not JSON"),
        ("/predict", b"{}", 422, "labels"),
        ("/predict", b'{"images": null, "labels": ["a"]}', 422, "images"),
        ("/predict", b'{"images": [], "labels": "a"}', 422, "labels"),
        ("/predict", b'{"images": [], "labels": [""]}', 422, "labels.0"),
        ("/predict", b'{"images": [], "labels": ["a"], "multilabel": "perhaps"}', 422, "multilabel"),
    ],
)
def test_what_is_wrong_is_told_as_a_problem(
    client: MedImageInsightsClient, path: str, body: bytes, status: int, word: str
) -> None:
    reply = client.request("POST", path, body)
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.status == status == reply.json()["status"]
    assert word in reply.json()["detail"]


def test_a_damaged_picture_is_named_by_its_place(client: MedImageInsightsClient) -> None:
    for cut in (100, 2000, len(png(0)) - 40):
        reply = client.encode([png(0), png(0)[:cut]])
        assert reply.status == 422 and "images.1: " in reply.json()["detail"]
        assert reply.json()["type"] == "urn:precedent:problem:rejected-input"


def test_other_media_and_methods_are_refused(client: MedImageInsightsClient) -> None:
    assert client.request("POST", "/encode", b"{}", "text/plain").status == 415
    assert client.request("POST", "/encode", b"{}", "application/json; charset=utf-8").status == 200
    assert client.request("GET", "/predict", None).status == 405


@given(body=st.binary(max_size=60) | st.from_regex(rb'\{"(images|texts|labels)": .{0,30}\}', fullmatch=True))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_that_is_sent_is_a_server_error(client: MedImageInsightsClient, body: bytes) -> None:
    for path in ("/encode", "/predict"):
        assert client.request("POST", path, body).status < 500


def test_a_body_past_the_limit_is_413(home: Path) -> None:
    with running(Settings(home=home, workers=1, max_upload_mb=1)) as server:
        client = MedImageInsightsClient(server.url)
        fits = json.dumps({"images": [], "pad": ""}).encode()
        fits = fits.replace(b'"pad": ""', b'"pad": "%s"' % (b"x" * ((1 << 20) - len(fits))))
        assert len(fits) == 1 << 20 and client.request("POST", "/encode", fits).status == 200
        over = client.request("POST", "/encode", fits + b" ")
        assert over.status == 413 and over.headers["content-type"] == "application/problem+json"


def test_a_client_that_sends_all_before_it_reads_is_told_too(client: MedImageInsightsClient) -> None:
    """One that is cut off while it sends sees a broken connection and no reason."""
    assert client.request("POST", "/encode", bytes((64 << 20) + 1)).status == 413


def test_what_never_fits_is_told_before_the_rest_is_decoded(home: Path) -> None:
    """The third of these is no image, and is not looked at: two pictures are over the limit already."""
    with running(Settings(home=home, workers=1, encode_queue=1)) as server:
        over = MedImageInsightsClient(server.url).encode([png(0), png(1), b"no image"])
        assert over.status == 413 and "in parts" in over.json()["detail"]


def test_past_the_queue_a_client_is_told_when_to_come_back(home: Path) -> None:
    """Room for one request of four: of many at once some are refused, and every one is answered when it comes again."""
    with running(Settings(home=home, workers=2, encode_queue=4)) as server:
        client = MedImageInsightsClient(server.url)
        never = client.encode([png(0)] * 5)
        assert never.status == 413 and "in parts" in never.json()["detail"]
        want = vectors(client, *[png(n) for n in range(4)])
        refused: list[Reply] = []

        def persistent(_: int) -> np.ndarray:
            while (reply := client.encode([png(n) for n in range(4)])).status != 200:
                assert reply.status == 503 and reply.headers["retry-after"].isdigit(), reply
                refused.append(reply)
            return np.array(reply.json()["image_embeddings"])

        with ThreadPoolExecutor(12) as threads:
            for _ in range(50):
                assert all(np.abs(got - want).max() < 1e-6 for got in threads.map(persistent, range(12)))
                if refused:
                    break
        assert refused
        assert client.health().status == 200


def test_who_goes_away_is_not_encoded_for() -> None:
    waiting: list[Future[int]] = [Future(), Future()]
    told = [{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]

    async def receive() -> dict:
        return told.pop(0)

    async def run() -> None:
        await answered(Request({"type": "http", "method": "POST", "headers": []}, receive), waiting)

    with pytest.raises(Problem) as gone:
        asyncio.run(run())
    assert gone.value.status_code == 499
    assert all(future.cancelled() for future in waiting)


def test_connections_broken_off_leave_the_service_well(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    body = json.dumps({"images": [base64.b64encode(png(0)).decode()] * 40}).encode()
    head = b"POST /encode HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    before = sorted((home / "uploads").iterdir())  # of other servers on this data directory
    with running(Settings(home=home, workers=2)) as server:
        for part in (len(body), len(body) // 2, 10) * 3:
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                connection.sendall(head % len(body) + body[:part])
        client = MedImageInsightsClient(server.url)
        assert vectors(client, png(0)).shape == (1, 32)
    assert sorted((home / "uploads").iterdir()) == before  # and it stops cleanly, with nothing left
    assert caplog.records == []


def test_no_pixels_of_a_request_are_left_on_disk(client: MedImageInsightsClient, home: Path) -> None:
    client.encode([png(0)])
    client.encode([b"no image"])
    (scratch,) = (home / "uploads").iterdir()
    for _ in range(200):  # the reply comes first
        if [path.name for path in scratch.iterdir()] == ["lock"]:
            break
        time.sleep(0.05)
    assert [path.name for path in scratch.iterdir()] == ["lock"]
