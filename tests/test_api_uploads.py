"""Bodies: parsed the same however they are cut, bounded, at a pace, and never left behind."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request

from api.app import create_app
from api.guards import BodyLimit
from api.problems import Problem
from api.uploads import MAX_FIELD_BYTES, Upload, receive
from retrieval.settings import Settings
from tests.api_client import SECRET_NAME, client_of, parts, served
from tests.studies import write_pictures

BOUNDARY = b"----boundary"
NAMES = [
    "a.dcm", "../../etc/passwd", "/etc/passwd", "C:\\x\\y.nii.gz", "a\x00b.png", "n" * 300 + ".dcm", "", "ä ö.dcm",
    "folder/sub/IM1", "x.exe", "..", ".", "a.hdr", "b.img",
]  # fmt: skip


def body(files: list[tuple[str, bytes]], fields: dict[str, str] | None = None) -> bytes:
    made = b""
    for name, value in (fields or {}).items():
        made += b'--%s\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (
            BOUNDARY,
            name.encode(),
            value.encode(),
        )
    for name, content in files:
        quoted = name.replace("\\", "\\\\").replace('"', '\\"').encode()
        made += b'--%s\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\n' % (BOUNDARY, quoted)
        made += content + b"\r\n"
    return made + b"--%s--\r\n" % BOUNDARY


def request_of(chunks: list[bytes], content_type: bytes = b"multipart/form-data; boundary=" + BOUNDARY) -> Request:
    waiting = list(chunks)

    async def pull() -> dict:
        return {"type": "http.request", "body": waiting.pop(0) if waiting else b"", "more_body": bool(waiting)}

    return Request({"type": "http", "method": "POST", "headers": [(b"content-type", content_type)]}, pull)


def parse(chunks: list[bytes], scratch: Path) -> tuple[Upload, list[bytes]]:
    async def run() -> tuple[Upload, list[bytes]]:
        async with receive(request_of(chunks), scratch) as upload:
            return upload, [file.path.read_bytes() for file in upload.files]

    return anyio.run(run)


def cut(whole: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(whole) + 1) for place in at), len(whole)]
    return [whole[a:b] for a, b in pairwise(edges)]


@settings(max_examples=60, deadline=None)
@given(
    files=st.lists(st.tuples(st.sampled_from(NAMES[:4] + NAMES[7:9]), st.binary(max_size=400)), max_size=5),
    at=st.lists(st.integers(0, 5000), max_size=8),
)
def test_a_body_is_the_same_however_it_is_cut(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[str, bytes]], at: list[int]
) -> None:
    scratch = tmp_path_factory.mktemp("scratch")
    upload, contents = parse(cut(body(files, {"k": "7"}), at), scratch)
    assert contents == [content for _, content in files]
    assert [file.bytes for file in upload.files] == [len(content) for _, content in files]
    assert upload.fields == {"k": "7"}
    assert list(scratch.iterdir()) == []


def test_no_name_leads_anywhere(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    async def run() -> list[Path]:
        files = [(name, b"x") for name in NAMES]
        async with receive(request_of([body(files)]), scratch) as upload:
            (folder,) = scratch.iterdir()
            assert sorted(file.path for file in upload.files) == sorted(folder.iterdir())
            return [file.path for file in upload.files]

    paths = anyio.run(run)
    assert len(set(paths)) == len(NAMES)
    assert all(path.parent.parent == scratch and path.name[:6].isdigit() for path in paths)
    assert [entry.name for entry in tmp_path.iterdir()] == ["scratch"]


def test_files_of_one_stem_stay_together(tmp_path: Path) -> None:
    upload, _ = parse(
        [body([("brain.hdr", b"1"), ("other.hdr", b"2"), ("brain.img", b"3"), ("brain.img", b"4")])], tmp_path
    )
    names = [file.path.name for file in upload.files]
    assert names[0].removesuffix(".hdr") == names[2].removesuffix(".img")
    assert len({name.partition(".")[0] for name in names}) == 3


@pytest.mark.parametrize("end", [0, 1, 40, 120, -6, -9])
def test_a_body_that_is_cut_short_is_refused_and_leaves_nothing(tmp_path: Path, end: int) -> None:
    whole = body([("a.dcm", b"0123456789" * 20)])
    with pytest.raises(Problem) as refused:
        parse([whole[:end]], tmp_path)
    assert refused.value.status_code == 422
    assert list(tmp_path.iterdir()) == []


def test_fields_are_bounded(tmp_path: Path) -> None:
    for long in (body([], {"k": "x" * (MAX_FIELD_BYTES + 1)}), body([], {"k": "x" * MAX_FIELD_BYTES})):
        over = len(long) > len(body([], {"k": "x" * MAX_FIELD_BYTES}))
        if over:
            with pytest.raises(Problem) as refused:
                parse([long], tmp_path)
            assert refused.value.status_code == 413
        else:
            assert len(parse([long], tmp_path)[0].fields["k"]) == MAX_FIELD_BYTES


def test_a_field_that_comes_twice_is_refused(tmp_path: Path) -> None:
    twice = body([], {"k": "1"}).removesuffix(b"--%s--\r\n" % BOUNDARY) + body([], {"k": "2"})
    urlencoded = request_of([b"k=1&text=x&k=2"], b"application/x-www-form-urlencoded")

    async def read(request: Request) -> None:
        async with receive(request, tmp_path):
            pass

    for request in (request_of([twice]), urlencoded):
        with pytest.raises(Problem) as refused:
            anyio.run(read, request)
        assert refused.value.status_code == 422
        assert "'k' is given twice" in refused.value.sentence
    assert list(tmp_path.iterdir()) == []


def test_the_number_of_parts_is_bounded(tmp_path: Path) -> None:
    part = b'--%s\r\nContent-Disposition: form-data; name="k"\r\n\r\n\r\n' % BOUNDARY
    with pytest.raises(Problem) as refused:
        parse([part * 20_001], tmp_path)
    assert refused.value.status_code == 413


@pytest.mark.parametrize("length", ["declared", "streamed"])
def test_a_body_may_be_as_large_as_the_limit_and_no_larger(tmp_path: Path, length: str) -> None:
    with served(tmp_path / "home", max_upload_mb=1) as client:
        for size, fits in ((1 << 20, True), ((1 << 20) + 1, False)):
            whole = body([("a.dcm", b"x" * (size - len(body([("a.dcm", b"")]))))])
            assert len(whole) == size
            content = whole if length == "declared" else iter(cut(whole, [100_000, 700_000]))
            headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY.decode()}"}
            reply = client.post("/v1/search", content=content, headers=headers)
            assert reply.status_code == (422 if fits else 413)
            assert ("over the limit of 1 MiB" in reply.json()["detail"]) is not fits
        long = b'{"report": "%s"}' % (b"x" * (1 << 20))
        json = client.patch("/v1/cases/abc", content=long, headers={"content-type": "application/json"})
        assert json.status_code == 413


def test_nothing_of_a_body_is_left_behind(tmp_path: Path) -> None:
    app = create_app(Settings(home=tmp_path / "home", workers=1))
    good = parts(write_pictures(tmp_path / "p", 2))
    with client_of(app) as client:
        scratch = app.state.opening.service().scratch.path
        client.post("/v1/search", files=good)
        client.post("/v1/search", files=[("files", (SECRET_NAME, b"junk"))])
        client.post("/v1/search", files=good, data={"k": "0"})
        client.post("/v1/search", files=[("other", ("x", b"y"))])
        client.post("/v1/cases", files=good)
        assert [path.name for path in scratch.iterdir()] == ["lock"]
    assert list((tmp_path / "home" / "uploads").iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_a_living_one_is_left_alone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with served(home) as client:
        (living,) = (home / "uploads").iterdir()
        left = home / "uploads" / "process-dead"
        (left / "request-1").mkdir(parents=True)
        (left / "request-1" / "000001.dcm").write_bytes(b"pixels")
        (left / "lock").touch()
        with served(home) as second:
            assert not left.exists()
            assert living.exists()
            assert second.get("/readyz").status_code == 200
        assert client.get("/readyz").status_code == 200


def slow_body(pieces: list[tuple[float, bytes]]) -> Problem | int:
    """What a reader of a body gets when its pieces come after these pauses: the problem, or the bytes read."""
    got: list[Problem | int] = []

    async def read(scope, receive, send) -> None:
        try:
            got.append(len(await Request(scope, receive).body()))
        except Problem as problem:
            got.append(problem)

    async def run() -> None:
        waiting = list(pieces)

        async def pull() -> dict:
            pause, piece = waiting.pop(0)
            await asyncio.sleep(pause)
            return {"type": "http.request", "body": piece, "more_body": bool(waiting)}

        async def send(message: dict) -> None:
            raise AssertionError(message)

        scope = {"type": "http", "method": "POST", "headers": [], "app": Starlette()}
        await BodyLimit(read, limit=1 << 20, grace_seconds=0.3)(scope, pull, send)

    asyncio.run(run())
    return got[0]


def test_a_body_must_come_at_a_pace() -> None:
    assert slow_body([(0, b"a"), (0.01, b"b")]) == 2
    stalled = slow_body([(0, b"a"), (30, b"b")])
    assert isinstance(stalled, Problem)
    assert stalled.status_code == 408
    dripping = slow_body([(0.05, b"a")] * 100)
    assert isinstance(dripping, Problem)
    assert dripping.status_code == 408
