"""Full disks, damaged files, killed processes, hostile names: nothing acknowledged is lost, nothing half there."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pydicom
import pytest

from benchmarks.reliability import full_disk
from benchmarks.reliability.small_disk import NoSmallDisk, fill, mounted
from indexer.rebuild import rebuild
from indexer.sandbox import Sandbox
from retrieval.errors import StorageFull, StoreError
from retrieval.gallery import Gallery
from retrieval.settings import Settings
from retrieval.types import Case, CaseKind, EmbeddedCase, Image
from retrieval.verify import verify
from tests.processes import Served, answer, environment, run, serving, start
from tests.studies import contents, index_all, open_gallery, texture, write_pictures, write_series


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    try:
        with mounted(tmp_path / "disk", "24m") as disk:
            yield disk
    except NoSmallDisk as reason:
        pytest.skip(str(reason))


def upload(client: httpx.Client, paths: list[Path], **data: str) -> httpx.Response:
    return client.post("/v1/cases", files=[("files", (path.name, path.read_bytes())) for path in paths], data=data)


def kept(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "kept").iterdir())


# a full disk


@pytest.mark.parametrize("leave", [0, 60_000])
def test_indexing_onto_a_full_disk_stops_with_a_sentence_and_goes_on_later(
    small_disk: Path, tmp_path: Path, sandbox: Sandbox, leave: int
) -> None:
    home = small_disk / "home"
    first, rest = write_pictures(tmp_path / "first", 3), write_pictures(tmp_path / "rest", 60, seed=1)
    with open_gallery(home) as gallery:
        index_all(gallery, sandbox, first[0].parent)
    filler = fill(small_disk, leave=leave)
    refused = run("index", rest[0].parent, home=home, code=2)
    assert "space" in refused.stderr and refused.stderr.startswith("precedent: ")
    assert len(refused.stderr.splitlines()) == 1
    if leave:  # a process that starts needs 32 KB for SQLite's shared memory
        assert answer("search", first[0], home=home)["gallery_size"] >= 3
    else:
        assert "space" in run("search", first[0], home=home, code=2).stderr
    filler.unlink()
    with open_gallery(home) as gallery:
        assert index_all(gallery, sandbox, rest[0].parent).ok and len(gallery) == 63
        assert verify(gallery.catalog, home).ok


def test_a_rebuild_without_space_leaves_the_live_generation(small_disk: Path, tmp_path: Path, sandbox: Sandbox) -> None:
    home = small_disk / "home"
    write_pictures(tmp_path / "in", 40)
    with open_gallery(home) as gallery:
        index_all(gallery, sandbox, tmp_path / "in")
        live, case_id = rebuild(gallery).name, gallery.catalog.list_cases()[0].case_id
        filler = fill(small_disk, leave=20_000)
        with pytest.raises(StorageFull, match="space"):
            rebuild(gallery)
        assert gallery.similar_to(case_id).generation == live
        filler.unlink()
        assert verify(gallery.catalog, home).ok
        assert rebuild(gallery).name != live


def test_a_service_on_a_full_disk_answers_507_and_goes_on(small_disk: Path, tmp_path: Path) -> None:
    home = small_disk / "home"
    pictures = write_pictures(tmp_path / "in", 12)
    with serving(home, tmp_path / "log") as served:
        client = served.client
        first = upload(client, pictures[:2]).json()["files"][0]["case_id"]
        before = kept(home)
        for leave in (0, 30_000):
            filler = fill(small_disk, leave=leave)
            reply = upload(client, pictures[2:])
            assert reply.status_code == 507, reply.text
            assert reply.json()["type"] == "urn:precedent:problem:storage-full" and "space" in reply.json()["detail"]
            assert client.get(f"/v1/cases/{first}/similar").status_code == 200
            assert client.get(f"/v1/cases/{first}/image").status_code == 200
            ready = client.get("/readyz")
            assert ready.status_code == 200 and "space" in ready.json()["writes"]
            assert kept(home) == before
            filler.unlink()
        assert client.get("/readyz").json() == {"status": "ok", "writes": ""}
        assert upload(client, pictures[2:]).status_code == 201
        assert client.get("/v1/gallery").json()["size"] == 12
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert answer("verify", home=home)["ok"]
    assert len(kept(home)) == 12


def test_a_disk_that_fills_up_again_and_again_while_others_search(small_disk: Path) -> None:
    cycles = full_disk.measure(2, "32m")
    assert [cycle.wrong for cycle in cycles] == [[], []]
    assert all(cycle.refused >= full_disk.REFUSED and cycle.searches for cycle in cycles)


# a data directory that can't be used


def test_a_read_only_data_directory_is_told(small_disk: Path, tmp_path: Path, sandbox: Sandbox) -> None:
    home = small_disk / "home"
    pictures = write_pictures(tmp_path / "in", 4)
    run("index", tmp_path / "in", home=home)
    late = write_pictures(tmp_path / "late", 2, seed=1)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert run("search", pictures[0], home=home, code=2).stderr.startswith("precedent: ")
    assert run("index", late[0].parent, home=home, code=2).stderr.startswith("precedent: ")
    assert run("serve", "--port", "0", home=home, code=2).stderr.startswith("precedent: ")
    assert run("index", late[0].parent, home=small_disk / "new", code=2).stderr.startswith("precedent: ")
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    with open_gallery(home) as gallery:
        assert index_all(gallery, sandbox, late[0].parent).ok and len(gallery) == 6 and verify(gallery.catalog, home).ok


SPOOLING = """
from pathlib import Path
from indexer.sources import Scan, Source
from indexer.spool import Spool
from retrieval.errors import StorageFull
from retrieval.privacy import Secret
scan = Scan(Source(Path("a")), "dicom", "0" * 64, 1, 1, warnings=("w" * 1000,))
with Spool(Secret(bytes(32))) as spool:
    try:
        for n in range(20_000):
            spool.put(str(n), scan)
    except StorageFull as error:
        print(error)
"""


def test_a_temporary_folder_that_is_full_is_told(small_disk: Path, tmp_path: Path) -> None:
    fill(small_disk, leave=100_000)
    variables = environment(tmp_path, {"TMPDIR": str(small_disk), "SQLITE_TMPDIR": str(small_disk)})
    done = subprocess.run([sys.executable, "-c", SPOOLING], env=variables, capture_output=True, text=True, check=True)
    assert "TMPDIR" in done.stdout and not done.stderr
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


def test_a_database_that_is_locked_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    home = tmp_path / "home"
    write_pictures(tmp_path / "in", 3)
    run("index", tmp_path / "in", home=home)
    write_pictures(tmp_path / "in", 6)
    holder = sqlite3.connect(home / "catalog.sqlite3", isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")
    indexing = start("index", tmp_path / "in", "--json", home=home)
    time.sleep(2.5)
    assert indexing.poll() is None
    holder.execute("COMMIT")
    holder.close()
    _, errors = indexing.communicate(timeout=60)
    assert indexing.returncode == 0, errors
    assert answer("stats", home=home)["state"]["size"] == 6


@pytest.mark.parametrize("content", [None, b"", b"short", bytes(33)])
def test_without_its_key_a_gallery_is_not_opened(tmp_path: Path, content: bytes | None) -> None:
    home = tmp_path / "home"
    with open_gallery(home) as gallery:
        gallery.add([made_case(gallery)])
    key = home / "secret.key"
    key.unlink()
    if content is not None:
        key.write_bytes(content)
    for create in (False, True):
        with pytest.raises(StoreError, match=r"key file secret\.key"):
            Gallery.open(Settings(home=home), create=create)
    assert (key.read_bytes() if key.exists() else None) == content


def made_case(gallery: Gallery) -> EmbeddedCase:
    """Any case of the gallery's own encoder."""
    embedding = gallery.embed([Image(texture(1))])
    case = Case("aaaaaaaaaaaaaaaa", CaseKind.IMAGE, content_sha256="c" * 64, pixel_sha256="p" * 64, rows=64, columns=64)
    return EmbeddedCase(case, embedding)


def test_a_service_without_its_key_says_so_and_is_ready_once_it_is_back(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with open_gallery(home) as gallery:
        gallery.add([made_case(gallery)])
    right = (home / "secret.key").read_bytes()
    (home / "secret.key").write_bytes(b"short")
    assert "key file secret.key" in run("stats", home=home, code=2).stderr
    with serving(home, tmp_path / "log") as served:
        reply = served.client.get("/readyz")
        assert reply.status_code == 503 and "secret.key" in reply.json()["detail"]
        assert served.client.get("/v1/cases").status_code == 503
        (home / "secret.key").write_bytes(right)
        assert served.client.get("/readyz").status_code == 200
        assert served.client.get("/v1/cases").status_code == 200


def _random(path: Path) -> None:
    path.write_bytes(np.random.default_rng(1).bytes(path.stat().st_size))


def _random_pages(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[16384:] = np.random.default_rng(2).bytes(len(raw) - 16384)
    path.write_bytes(raw)


def _half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _text(path: Path) -> None:
    path.write_text("this is no database\n" * 100)


@pytest.mark.parametrize("damage", [_random, _random_pages, _half, _text])
def test_a_damaged_database_is_told(tmp_path: Path, sandbox: Sandbox, damage: Callable[[Path], None]) -> None:
    home = tmp_path / "home"
    pictures = write_pictures(tmp_path / "in", 4)
    with open_gallery(home) as gallery:
        index_all(gallery, sandbox, tmp_path / "in")
    damage(home / "catalog.sqlite3")
    with pytest.raises(StoreError, match=r"[Dd]atabase"), open_gallery(home) as gallery:
        verify(gallery.catalog, home, repair=True)
    if damage is _random_pages:
        for arguments in (("search", pictures[0]), ("index", tmp_path / "in"), ("verify", "--repair")):
            told = run(*arguments, home=home, code=2).stderr
            assert told.startswith("precedent: ") and "database" in told and len(told.splitlines()) == 1


# a damaged index


def _flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 4
    path.chmod(0o644)
    path.write_bytes(raw)


def _delete(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("backend", ["exact", "faiss"])
@pytest.mark.parametrize("damage", [_flip, _half, _delete])
def test_a_damaged_generation_is_never_served(
    tmp_path: Path, sandbox: Sandbox, backend: str, damage: Callable[[Path], None]
) -> None:
    home = tmp_path / "home"
    write_pictures(tmp_path / "in", 12)
    with open_gallery(home, index=backend) as running:
        index_all(running, sandbox, tmp_path / "in")
        live = rebuild(running).name
        case_id = running.catalog.list_cases()[0].case_id
        right = {hit.case.case_id: hit.similarity for hit in running.similar_to(case_id).hits}
        names = sorted(path.name for path in (home / "generations" / live).iterdir())
        assert len(names) >= 2
        for name in names:
            damage(home / "generations" / live / name)
            with open_gallery(home) as opened:
                for gallery in (running, opened):  # the one that had it open, and one that comes after
                    found = gallery.similar_to(case_id)
                    assert {hit.case.case_id: hit.similarity for hit in found.hits} == pytest.approx(right)
                    assert found.generation == "" and live in gallery.state().damaged
            report = verify(running.catalog, home, repair=True)
            assert report.ok and report.repaired
            live = running.state().generation
            assert live and not running.state().damaged


@pytest.mark.parametrize("damage", [_flip, _half])
def test_damage_under_a_running_service(tmp_path: Path, sandbox: Sandbox, damage: Callable[[Path], None]) -> None:
    home = tmp_path / "home"
    write_pictures(tmp_path / "in", 30)
    with open_gallery(home) as gallery:
        index_all(gallery, sandbox, tmp_path / "in")
        generation = rebuild(gallery).name
    with serving(home, tmp_path / "log") as served:
        client = served.client
        case_id = client.get("/v1/cases").json()["cases"][0]["case_id"]

        def hits() -> list[tuple[str, float]]:
            reply = client.get(f"/v1/cases/{case_id}/similar")
            assert reply.status_code == 200, reply.text
            return [(hit["case_id"], hit["similarity"]) for hit in reply.json()["hits"]]

        right = hits()
        for file in (home / "generations" / generation).iterdir():
            damage(file)
        assert hits() == right
        told = client.get("/readyz")
        assert told.status_code == 503 and generation in told.json()["detail"]
        assert hits() == right
        await_ready(client)  # it builds the index anew by itself
        assert hits() == right
        assert client.get("/v1/gallery").json()["generation"] not in {"", generation}


def await_ready(client: httpx.Client) -> None:
    for _ in range(600):
        if client.get("/readyz").status_code == 200:
            return
        time.sleep(0.05)
    raise AssertionError(client.get("/readyz").text)


def test_a_service_that_starts_on_a_damaged_index_says_so_until_it_has_mended_it(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    home = tmp_path / "home"
    write_pictures(tmp_path / "in", 10)
    with open_gallery(home) as gallery:
        index_all(gallery, sandbox, tmp_path / "in")
        generation = rebuild(gallery).name
    _flip(max((home / "generations" / generation).iterdir(), key=lambda path: path.stat().st_size))
    with serving(home, tmp_path / "log") as served:
        client = served.client
        assert client.get("/v1/gallery").json()["damaged"]
        assert client.get("/readyz").status_code == 503
        case_id = client.get("/v1/cases").json()["cases"][0]["case_id"]
        assert len(client.get(f"/v1/cases/{case_id}/similar").json()["hits"]) == 9
        await_ready(client)
        assert not client.get("/v1/gallery").json()["damaged"]
        assert answer("verify", home=home)["ok"]


# several at once, and killed


def test_two_indexers_of_one_folder_make_the_gallery_of_one(tmp_path: Path, sandbox: Sandbox) -> None:
    write_pictures(tmp_path / "in", 60)
    write_series(tmp_path / "in", 6, seed=1)
    both = [start("index", tmp_path / "in", "--json", home=tmp_path / "two") for _ in range(2)]
    for each in both:
        out, errors = each.communicate(timeout=120)
        assert each.returncode == 0, errors + out
    with open_gallery(tmp_path / "one") as one, open_gallery(tmp_path / "two") as two:
        index_all(one, sandbox, tmp_path / "in")
        assert contents(one) == contents(two) and len(two) == 61
        assert verify(two.catalog, tmp_path / "two").ok


def _send_all(served: Served, todo: Iterator[Path], acknowledged: set[str], lock: threading.Lock) -> None:
    while True:
        with lock:
            path = next(todo, None)
        if path is None:
            return
        try:
            reply = upload(served.client, [path])
        except httpx.TransportError:
            return
        assert reply.status_code == 201, reply.text
        with lock:
            acknowledged.add(reply.json()["files"][0]["case_id"])


def test_a_service_killed_while_it_takes_uploads_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    home, rng = tmp_path / "home", np.random.default_rng(3)
    pictures = write_pictures(tmp_path / "in", 60)
    acknowledged: set[str] = set()
    for n in range(3):
        with serving(home, tmp_path / "log") as served, ThreadPoolExecutor(3) as pool:
            before = len(acknowledged)
            todo, lock = iter(pictures[n * 20 : n * 20 + 20]), threading.Lock()
            senders = [pool.submit(_send_all, served, todo, acknowledged, lock) for _ in range(3)]
            while len(acknowledged) <= before and not all(sender.done() for sender in senders):
                time.sleep(0.02)
            time.sleep(float(rng.uniform(0.0, 0.5)))
            served.kill()
            for sender in senders:
                sender.result()
    assert acknowledged
    (home / "kept" / ".half.precedent.123").write_bytes(b"half of somebody's pixels")
    (home / "kept" / "aaaaaaaaaaaaaaaa-0123456789abcdef.precedent").write_bytes(b"pixels of no case")
    repaired = answer("verify", "--repair", home=home)
    assert repaired["ok"] and repaired["kept_swept"] >= 2
    with open_gallery(home) as gallery:
        stored = {case.case_id for case in gallery.catalog.list_cases(limit=1000)}
    assert acknowledged <= stored
    assert len(kept(home)) == len(stored)
    with serving(home, tmp_path / "log") as served:
        for case_id in sorted(stored)[::7]:
            assert served.client.get(f"/v1/cases/{case_id}/image").status_code == 200
        assert len(list((home / "uploads").iterdir())) == 1, "bodies of killed requests are still there"


def _arrived(home: Path) -> int:
    """Requests whose body is coming in or being worked on."""
    return len(list((home / "uploads").glob("process-*/request-*")))


def test_what_is_in_flight_at_sigterm_is_answered(tmp_path: Path) -> None:
    home = tmp_path / "home"
    pictures = write_pictures(tmp_path / "in", 24)
    with serving(home, tmp_path / "log") as served, ThreadPoolExecutor(4) as pool:
        assert upload(served.client, pictures[:4]).status_code == 201
        sent = threading.Barrier(5)

        def send(paths: list[Path]) -> int:
            with httpx.Client(base_url=served.client.base_url, timeout=60) as client:
                client.get("/livez")  # the connection is there
                sent.wait()
                return upload(client, paths).status_code

        replies = [pool.submit(send, pictures[4 + 5 * n : 9 + 5 * n]) for n in range(4)]
        sent.wait()
        while _arrived(home) + sum(reply.done() for reply in replies) < 4:
            time.sleep(0.005)
        served.process.send_signal(signal.SIGTERM)
        assert [reply.result() for reply in replies] == [201] * 4
        assert served.process.wait(60) in {0, -signal.SIGTERM}
    with open_gallery(home) as gallery:
        assert len(gallery) == 24 and verify(gallery.catalog, home).ok
    assert not list((home / "uploads").iterdir())


# names and identities


NAMES = (
    "../../escaped.png", "/etc/escaped.png", "..\\..\\escaped.png", "C:\\escaped.png", "\\\\host\\share\\escaped.png",
    "a/../../escaped.png", "x" * 300 + ".png", "DICOMDIR", ".hidden.png", "con.png", "", ".", "..", "-rf.png",
    "%2e%2e%2fa.png",
)  # fmt: skip


def everything_under(*folders: Path) -> set[str]:
    return {str(path) for folder in folders for path in folder.rglob("*")}


def test_no_name_leads_out_of_the_store(tmp_path: Path) -> None:
    home = tmp_path / "inner" / "home"
    pictures = write_pictures(tmp_path / "in", len(NAMES))
    (tmp_path / "inner").mkdir()
    with serving(home, tmp_path / "inner" / "log") as served:
        before = everything_under(tmp_path) | {str(path) for path in Path("/etc").iterdir()}
        for name, path in zip(NAMES, pictures, strict=True):
            reply = served.client.post("/v1/cases", files=[("files", (name or None, path.read_bytes()))])
            assert reply.status_code in {200, 201, 422}, (name, reply.text)
        packed = tmp_path / "slip.zip"
        with zipfile.ZipFile(packed, "w") as archive:
            for n, name in enumerate(
                ("../escaped.png", "/tmp/escaped-absolute.png", "a\\..\\escaped.png", "fine/good.png")
            ):
                archive.writestr(name, _png(texture(500 + n), tmp_path))
            link = zipfile.ZipInfo("link.png")
            link.external_attr = 0o120777 << 16
            archive.writestr(link, "/etc/passwd")
        before |= {str(packed), str(tmp_path / "made.png")}
        reply = upload(served.client, [packed])
        assert reply.status_code == 201 and reply.json()["indexed"] == 1, reply.text
        after = everything_under(tmp_path) | {str(path) for path in Path("/etc").iterdir()}
    new = {Path(path) for path in after - before}
    assert all(path.is_relative_to(home) for path in new)
    assert not any("escaped" in path.name for path in new)
    assert not Path("/tmp/escaped-absolute.png").exists()


def _png(pixels: np.ndarray, folder: Path) -> bytes:
    from PIL import Image as Picture

    path = folder / "made.png"
    Picture.fromarray(pixels).save(path)
    return path.read_bytes()


def test_links_are_followed_only_within_the_folder_that_was_named(tmp_path: Path) -> None:
    inside, outside = write_pictures(tmp_path / "in", 2), write_pictures(tmp_path / "out", 2, seed=1)
    (tmp_path / "in" / "out.png").symlink_to(outside[0])
    (tmp_path / "in" / "folder").symlink_to(outside[0].parent)
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "nowhere.png").symlink_to(tmp_path / "nothing")
    with zipfile.ZipFile(tmp_path / "in" / "slip.zip", "w") as archive:
        archive.write(outside[1], "../../escaped.png")
    report = answer("index", tmp_path / "in", home=tmp_path / "home")
    assert report["cases"]["added"] == len(inside)
    assert not list(tmp_path.rglob("escaped*"))


def test_other_pixels_under_a_known_uid_are_a_conflict_with_both_hashes(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = write_series(tmp_path / "one", 4, seed=6)
    other = write_series(tmp_path / "other", 4, seed=6)
    for path in other:
        made = pydicom.dcmread(path)
        made.PixelData = bytes(255 - byte if n % 2 == 0 else byte for n, byte in enumerate(made.PixelData))
        made.save_as(path)
    with serving(home, tmp_path / "log") as served:
        client = served.client
        case_id = upload(client, first).json()["files"][0]["case_id"]
        before, etag = kept(home), client.get(f"/v1/cases/{case_id}/image").headers["etag"]
        reply = upload(client, other)
        assert reply.status_code == 409, reply.text
        problem = reply.json()
        assert problem["type"] == "urn:precedent:problem:conflict" and len(problem["errors"]) == 4
        with open_gallery(home) as gallery:
            (stored,) = gallery.catalog.list_cases()
        for error in problem["errors"]:
            assert stored.content_sha256 in error["message"]
            assert (
                len({word for word in error["message"].replace(";", " ").split() if len(word.strip(".:")) == 64}) == 2
            )
        assert kept(home) == before
        assert client.get(f"/v1/cases/{case_id}/image").headers["etag"] == etag
        mixed = upload(client, [*other, *write_pictures(tmp_path / "p", 1)])
        assert mixed.status_code == 201 and mixed.json()["failed"] == 4 and mixed.json()["indexed"] == 1
