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
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(20):
            archive.writestr(str(number), b"x")
    assert len(list(walk([path], Limits(zip_members=20)))) == 20
    assert list(walk([path], Limits(zip_members=19))) == [Source(path)]


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
