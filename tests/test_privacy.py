"""Nothing that names a patient outlives indexing: planted strings are looked for in every byte that remains.

What may show a canary is told in docs/privacy.md: the command line names the files that failed.
"""

from __future__ import annotations

import io
import json
import sqlite3
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from indexer.sandbox import Sandbox
from tests.canaries import Canaries, full_dicom, write_broken, write_images
from tests.dicom_files import save
from tests.processes import Served, run, serving, start
from tests.studies import index_all, open_gallery, write_pictures, write_series

Leaks = dict[str, set[str]]


@dataclass
class Planted:
    """``whole`` and ``broken``: files with canaries inside and for names, in a folder whose name is one too."""

    root: Path
    canaries: Canaries
    whole: list[Path]
    broken: list[Path]
    leaks: Leaks = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def temporary(self) -> Path:
        return self.root / "tmp"

    def look(self, where: str, raw: bytes) -> None:
        if found := self.canaries.found_in(raw):
            self.leaks.setdefault(where, set()).update(found)

    def look_at(self, reply: httpx.Response) -> httpx.Response:
        """Note what a reply leaks, body and headers, and hand it on."""
        headers = b"\n".join(name + b": " + value for name, value in reply.headers.raw)
        self.look(f"{reply.request.method} {reply.request.url.path}", headers + reply.content)
        return reply

    def look_in(self, *folders: Path) -> None:
        """Names and bytes of all that lies there."""
        for folder in folders:
            for path in sorted(folder.rglob("*")):
                self.look(f"name of {path}", str(path.relative_to(folder)).encode())
                if path.is_file():
                    self.look(str(path), path.read_bytes())

    def look_into_columns(self) -> None:
        """The database's values as SQL gives them, and what is deflated in them."""
        database = sqlite3.connect(self.home / "catalog.sqlite3")
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        assert {"cases", "frames", "thumbnails", "files"} <= set(tables)
        for table in tables:
            for row in database.execute(f"SELECT * FROM {table}"):
                for value in row:
                    raw = value if isinstance(value, bytes) else str(value).encode()
                    self.look(f"table {table}", raw)
                    if table == "frames" and isinstance(value, bytes):
                        self.look("packed frames", zlib.decompress(value))
        database.close()

    @contextmanager
    def watched(self, process: int) -> Iterator[None]:
        """Look into the temporary folder and into unnamed open files of a process while it works."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.03):
                self.look_in_open_files(process)
                for path in self.temporary.rglob("*"):
                    try:
                        self.look(f"{path} meanwhile", path.read_bytes() + str(path).encode())
                    except OSError:
                        continue  # it is gone again

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def look_in_open_files(self, process: int) -> None:
        for handle in Path(f"/proc/{process}/fd").glob("*"):
            try:
                if str(handle.readlink()).endswith("(deleted)"):
                    self.look("an unnamed temporary file", handle.read_bytes())
            except OSError:
                continue


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    root = tmp_path_factory.mktemp("privacy")
    canaries = Canaries()
    folder = root / "in" / canaries.text() / canaries.text()
    folder.mkdir(parents=True)
    (root / "tmp").mkdir()
    whole = [save(full_dicom(canaries, n), folder / f"{canaries.text()}.dcm") for n in range(2)]
    whole += write_images(folder, canaries)
    packed = folder / f"{canaries.text()}.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.comment = canaries.text().encode()
        archive.writestr(f"{canaries.text()}/{canaries.text()}.dcm", _bytes_of(canaries, 2))
    bad = folder / canaries.text()
    bad.mkdir()
    broken = write_broken(bad, canaries, whole)
    assert len(canaries) > 4000
    return Planted(root, canaries, [*whole, packed], broken)


def _bytes_of(canaries: Canaries, number: int) -> bytes:
    buffer = io.BytesIO()
    full_dicom(canaries, number).save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _labels(planted: Planted) -> Path:
    """A table whose patients and studies are canaries as well."""
    table = planted.root / "labels.csv"
    folder = planted.root
    rows = [
        f"{path.relative_to(folder)},cyst,{planted.canaries.text()},{planted.canaries.text()}" for path in planted.whole
    ]
    table.write_text("path,finding,patient_id,study_id\n" + "\n".join(rows) + "\n")
    return table


def _names_of(paths: list[Path], canaries: Canaries) -> set[str]:
    return {token for path in paths for token in canaries.found_in(str(path).encode())}


def test_what_is_planted_can_be_found(planted: Planted) -> None:
    """The probe itself: without it, no hits would mean nothing."""
    inside = [
        planted.canaries.found_in(path.read_bytes()) for path in planted.whole if path.suffix not in {".zip", ".gz"}
    ]
    assert all(len(found) >= 4 for found in inside) and len(inside[0]) > 2500
    token = next(iter(planted.canaries.tokens))
    for encoded in (
        token.encode("utf-16-le"),
        token.encode("utf-16-be"),
        token.upper().encode(),
        token.encode("utf-32"),
    ):
        assert planted.canaries.found_in(b"\x01\x02" + encoded + b"\x03")
    assert planted.canaries.found_in(b"on 1901-01-01.")


def test_indexing_leaves_no_trace_of_a_patient(planted: Planted) -> None:
    extra = {"TMPDIR": str(planted.temporary)}
    planted.leaks.clear()
    arguments = ("index", planted.whole[0].parents[1], "--labels", _labels(planted), "--source", "here")
    for command in (arguments, ("rebuild", "--index", "faiss")):
        running = start(*command, home=planted.home, extra=extra)
        with planted.watched(running.pid):
            out, errors = running.communicate(timeout=120)
        assert running.returncode == (1 if command is arguments else 0), errors
        planted.look(f"stdout of {command[0]}", out.encode())
        told = planted.canaries.found_in(errors.encode())
        assert told <= _names_of(planted.broken, planted.canaries), "stderr shows more than the paths of failed files"
    planted.look_in(planted.home, planted.temporary)
    planted.look_into_columns()
    assert not planted.leaks
    with open_gallery(planted.home) as gallery:
        assert len(gallery) >= len(planted.whole)
        assert len({case.patient_key for case in gallery.catalog.list_cases()}) >= len(planted.whole)


def test_failures_are_told_without_quoting_the_file(planted: Planted) -> None:
    """A reason never holds a value of the header; the path is its own column."""
    home = planted.root / "failing"
    done = run("index", planted.broken[0].parent, "--json", home=home, code=1)
    failures = json.loads(done.stdout)["failures"]
    assert len(failures) >= len(planted.broken) // 2
    for failure in failures:
        assert not planted.canaries.found_in(failure["reason"].encode()), failure
    for failure in failures[::7]:
        searched = run("search", failure["path"].split("!")[0], home=home, code=None)
        told = planted.canaries.found_in((searched.stdout + searched.stderr).encode())
        assert told <= planted.canaries.found_in(failure["path"].encode())


def test_the_service_neither_keeps_nor_tells_what_was_in_an_upload(planted: Planted) -> None:
    planted.leaks.clear()
    home, log = planted.root / "served", planted.root / "log"
    extra = {"TMPDIR": str(planted.temporary)}
    with serving(home, log, extra) as served:
        for path in [*planted.whole, *planted.broken]:
            body = [("files", (f"{planted.whole[0].parent.name}/{path.name}", path.read_bytes()))]
            with planted.watched(served.process.pid):
                added = planted.look_at(served.client.post("/v1/cases", files=body))
                found = planted.look_at(served.client.post("/v1/search", files=body, data={"preview": "true"}))
            assert added.status_code == (201 if path in planted.whole else added.status_code) < 500, added.text
            assert found.status_code < 500
        _look_at_everything(planted, served)
        (scratch,) = (home / "uploads").iterdir()
        assert [path.name for path in scratch.iterdir()] == ["lock"]
    planted.look_in(home, planted.temporary)
    planted.look("log of the service", log.read_bytes())
    assert not planted.leaks
    assert not list((home / "uploads").iterdir())


def _look_at_everything(planted: Planted, served: Served) -> None:
    page = planted.look_at(served.client.get("/v1/cases", params={"limit": 200})).json()
    assert len(page["cases"]) >= len(planted.whole)
    for case in page["cases"]:
        for tail in ("", "/similar", "/image", "/thumbnail"):
            assert planted.look_at(served.client.get(f"/v1/cases/{case['case_id']}{tail}")).status_code == 200
    for address in ("/v1/gallery", "/metrics", "/readyz", "/livez", "/"):
        assert planted.look_at(served.client.get(address)).status_code == 200


def test_a_value_that_is_refused_is_not_repeated(planted: Planted) -> None:
    """Errors name the field, not what stood in it: a caller may have put a patient there by mistake."""
    planted.leaks.clear()
    token, log = planted.canaries.text(), planted.root / "log2"
    with serving(planted.root / "served2", log) as served:
        client = served.client
        replies = [
            client.post("/v1/search", data={"case_id": token, "k": token}),
            client.post("/v1/search", data={"case_id": "aaaaaaaaaaaaaaaa", "filters": f'{{"modality": {token}}}'}),
            client.post("/v1/search", data={"case_id": "aaaaaaaaaaaaaaaa", "group": token}),
            client.get("/v1/cases", params={"limit": token}),
            client.post("/v1/cases", files={"files": (token, b"")}, data={"labels": token}),
            client.post("/v1/cases", files={token: (token, b"x")}),
            client.delete(f"/v1/patients/{token}"),
            client.get(f"/v1/queries/{token}/image"),
            client.get(f"/{token}"),
            client.post("/v1/rebuilds", json={"backend": 3, "x": token}),
        ]
        for reply in replies:
            assert 400 <= reply.status_code < 500, reply.text
            planted.look_at(reply)
        planted.look_at(client.get("/metrics"))
    planted.look("log", log.read_bytes())
    assert not planted.leaks


def test_one_patient_is_one_key_however_the_id_is_written(tmp_path: Path, sandbox: Sandbox) -> None:
    ids = ["Pat-7 é", " PAT-7 É ", "pat-7 e\u0301", "Pat-8 é"]
    for n, patient in enumerate(ids):
        for path in write_series(tmp_path / "in" / str(n), 3, seed=n):
            _readdress(path, patient, issuer="")
    for n, issuer in enumerate(["Nord", " NORD ", "Süd"], start=4):
        for path in write_series(tmp_path / "in" / str(n), 3, seed=n):
            _readdress(path, "Pat-7 é", issuer)
    with open_gallery(tmp_path / "home") as gallery:
        assert index_all(gallery, sandbox, tmp_path / "in").ok
        cases = sorted(gallery.catalog.list_cases(), key=lambda case: int(case.series_uid.rpartition(".")[2]))
        one, two, three, other, north, north_too, south = (case.patient_key for case in cases)
        assert one == two == three
        assert north == north_too
        assert len({one, other, north, south}) == 4
        hits = gallery.similar_to(cases[0].case_id, k=10).hits
        assert {hit.case.patient_key for hit in hits} == {other, north, south}


def _readdress(path: Path, patient: str, issuer: str) -> None:
    import pydicom

    made = pydicom.dcmread(path)
    made.SpecificCharacterSet = "ISO_IR 192"
    made.PatientID = patient
    if issuer:
        made.IssuerOfPatientID = issuer
    made.save_as(path)


def kept(home: Path) -> list[str]:
    return [path.name for path in (home / "kept").iterdir()]


def test_deleted_is_gone_from_every_file(tmp_path: Path) -> None:
    """Uploaded, grown, deleted: of the pixels that were kept nothing remains."""
    home, log = tmp_path / "home", tmp_path / "log"
    first, second = write_series(tmp_path / "in", 4, seed=1), write_pictures(tmp_path / "p", 1)
    with serving(home, log) as served:
        client = served.client

        def send(paths: list[Path]) -> str:
            reply = client.post("/v1/cases", files=[("files", (path.name, path.read_bytes())) for path in paths])
            assert reply.status_code == 201, reply.text
            return str(reply.json()["files"][0]["case_id"])

        case_id = send(first[:3])
        assert len(kept(home)) == 1
        assert send(first) == case_id
        assert len(kept(home)) == 1, "the pixels kept before the series grew are still there"
        send(second)
        assert client.delete(f"/v1/cases/{case_id}").status_code == 200
        assert len(kept(home)) == 1
        assert client.get(f"/v1/cases/{case_id}").status_code == 404
