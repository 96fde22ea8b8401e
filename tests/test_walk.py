"""The walk: order, what is left out, and that no name leads out of the root."""

from __future__ import annotations

import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from indexer.limits import Limits
from indexer.sandbox import Sandbox
from indexer.sources import Rejection, Source
from indexer.walk import walk
from retrieval.errors import NotFoundError


def names(root: Path, *paths: Path) -> list[str]:
    return [
        f"{source.path.relative_to(root)}{'!' if source.member else ''}{source.member}"
        for source in walk(paths or (root,))
    ]


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_order_and_what_is_left_out(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("b/2.dcm", "b/10.dcm", "a/z", "c", "b.txt", ".hidden", ".git/x", "DICOMDIR")))
    touch(tmp_path / "__MACOSX" / "y", tmp_path / "b" / "dicomdir")
    assert names(tmp_path) == ["a/z", "b/10.dcm", "b/2.dcm", "b.txt", "c"]
    assert names(tmp_path, tmp_path / "c", tmp_path / "a", tmp_path / "c") == ["c", "a/z"]
    assert names(tmp_path, tmp_path / "b", tmp_path, tmp_path / "c") == names(tmp_path)
    assert names(tmp_path, tmp_path / ".hidden") == [".hidden"]  # what is named is meant


def test_a_missing_path_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="does not exist"):
        list(walk([tmp_path / "gone"]))


def test_links_stay_inside(tmp_path: Path) -> None:
    root = tmp_path / "root"
    touch(tmp_path / "outside" / "secret", root / "kept" / "file", root / ".annex" / "object")
    (root / "to_file").symlink_to(root / ".annex" / "object")
    (root / "out_file").symlink_to(tmp_path / "outside" / "secret")
    (root / "out_folder").symlink_to(tmp_path / "outside")
    (root / "loop").symlink_to(root)
    (root / "dangling").symlink_to(root / "nothing")
    (root / "self").symlink_to(root / "self")
    assert names(root) == ["kept/file", "to_file"]


def test_a_very_deep_folder(tmp_path: Path) -> None:
    here = Path.cwd()
    try:
        os.chdir(tmp_path)
        for _ in range(1200):
            Path("d").mkdir()
            os.chdir("d")
        Path("leaf").write_bytes(b"x")
        os.chdir(here)
        assert [source.path.name for source in walk([tmp_path])] == ["leaf"]
    finally:
        os.chdir(here)
        subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)  # too deep for shutil.rmtree


def test_members_of_a_zip_by_content_not_by_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "study.bin", "w") as archive:
        for member in ("b/2", "b/1", "a", "__MACOSX/a", ".DS_Store", "b/DICOMDIR", "empty/"):
            archive.writestr(member, b"x")
    (tmp_path / "fake.zip").write_bytes(b"not a zip")
    assert names(tmp_path) == ["fake.zip", "study.bin!a", "study.bin!b/1", "study.bin!b/2"]


def test_hostile_member_names_are_never_used(tmp_path: Path, sandbox: Sandbox) -> None:
    before = set(tmp_path.rglob("*"))
    path = tmp_path / "slip.zip"
    hostile = ["../up", "/etc/passwd", "a/../../b", "C:\\x", "\\\\host\\share\\x", "n" * 300, "ok/" + "n" * 256]
    with zipfile.ZipFile(path, "w") as archive:
        for member in [*hostile, "fine", "n" * 255]:
            archive.writestr(member, b"x")
    sources = list(walk([tmp_path]))
    assert [source.member for source in sources] == ["fine", "n" * 255]
    assert all(isinstance(answer, Rejection) for answer in sandbox.scan(sources))
    assert set(tmp_path.rglob("*")) - before == {path}


def test_a_damaged_or_oversized_zip_is_one_source_with_a_reason(tmp_path: Path, sandbox: Sandbox) -> None:
    path = tmp_path / "broken.zip"
    path.write_bytes(b"PK\x03\x04" + bytes(200))
    assert list(walk([path])) == [Source(path)]
    (answer,) = sandbox.scan([Source(path)])
    assert isinstance(answer, Rejection)
    assert (answer.stage, answer.reason[:32]) == ("open", "The zip is damaged or cut short:")
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(20):
            archive.writestr(str(number), b"x")
    whole = path.read_bytes()
    (tmp_path / "half.zip").write_bytes(whole[: len(whole) // 2])
    (answer,) = sandbox.scan(walk([tmp_path / "half.zip"]))
    assert isinstance(answer, Rejection) and answer.stage == "open"
    assert len(list(walk([path], Limits(zip_members=20)))) == 20
    assert list(walk([path], Limits(zip_members=19))) == [Source(path)]


def test_a_zip_in_a_zip_is_left_out(tmp_path: Path, sandbox: Sandbox) -> None:
    with zipfile.ZipFile(tmp_path / "inner.zip", "w") as archive:
        archive.writestr("a", b"x")
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(tmp_path / "inner.zip", "inner.zip")
    (answer,) = sandbox.scan(walk([tmp_path / "outer.zip"]))
    assert isinstance(answer, Rejection) and answer.stage == "sniff" and "inside a zip" in answer.reason


def test_what_should_be_an_image_and_is_empty_or_gone_has_failed(tmp_path: Path, sandbox: Sandbox) -> None:
    names = ("a.dcm", "b.nii.gz", "C.PNG", "notes.txt", "x")
    for name in names:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "y.dcm").symlink_to("y.dcm")
    sources = [Source(tmp_path / name) for name in (*names, "y.dcm", "gone.dcm")]
    answers = [answer for answer in sandbox.scan(sources) if isinstance(answer, Rejection)]
    assert [answer.stage for answer in answers] == ["open", "open", "open", "sniff", "sniff", "open", "open"]
    assert "can't be opened: No such file" in answers[-1].reason


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_what_may_not_be_read_comes_as_a_failure(tmp_path: Path, sandbox: Sandbox) -> None:
    touch(*(tmp_path / name for name in ("file", "not_entered/x", "not_listed/x")))
    (tmp_path / "file").chmod(0)
    (tmp_path / "not_listed").chmod(0o300)
    (tmp_path / "not_entered").chmod(0o600)
    try:
        answers = [answer for answer in sandbox.scan(walk([tmp_path])) if isinstance(answer, Rejection)]
    finally:
        (tmp_path / "not_listed").chmod(0o700)
        (tmp_path / "not_entered").chmod(0o700)
    assert [str(answer.source.path.relative_to(tmp_path)) for answer in answers] == [
        "file",
        "not_entered/x",
        "not_listed",
    ]
    assert [answer.stage for answer in answers] == ["open"] * 3
    assert "The folder can't be opened: Permission denied." in answers[-1].reason


def test_voxels_are_told_with_their_header_or_as_missing_one(tmp_path: Path, sandbox: Sandbox) -> None:
    for name in ("a.hdr", "a.img", "b.mhd", "b.raw", "c.img", "d.raw"):
        (tmp_path / name).write_bytes(b"\x01" * 64)
    with zipfile.ZipFile(tmp_path / "e.zip", "w") as archive:
        for name in ("f/a.img", "f/a.hdr", "f/b.raw"):
            archive.writestr(name, b"\x01" * 64)
    told = {
        answer.source.member or answer.source.path.name: answer.reason
        for answer in sandbox.scan(walk([tmp_path]))
        if isinstance(answer, Rejection) and answer.stage == "sniff"
    }
    assert {name for name, reason in told.items() if reason == "Read along with its header."} == {
        "a.img", "b.raw", "f/a.img",
    }  # fmt: skip
    assert {name for name, reason in told.items() if "is missing" in reason} == {"c.img", "d.raw", "f/b.raw"}


def test_sidecars_are_refused_as_not_an_image(tmp_path: Path, sandbox: Sandbox) -> None:
    for name, content in (
        ("labels.csv", "path,label\n"),
        ("a.json", "{}"),
        ("README.txt", "text" * 500),
        ("empty", ""),
    ):
        (tmp_path / name).write_text(content)
    answers = list(sandbox.scan(walk([tmp_path])))
    assert [answer.stage for answer in answers if isinstance(answer, Rejection)] == ["sniff"] * 4
