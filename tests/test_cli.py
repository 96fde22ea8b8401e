"""The command line as a user has it: a process, its exit code, stdout for answers, stderr for problems."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pydicom
import pytest

from tests.processes import COMMAND, run
from tests.studies import write_pictures, write_series


def precedent(
    *arguments: object, home: Path | None = None, code: int = 0, **settings: str
) -> subprocess.CompletedProcess[str]:
    return run(*arguments, home=home, code=code, extra=settings)


def answer(*arguments: object, home: Path, code: int = 0) -> Any:
    return json.loads(precedent(*arguments, "--json", home=home, code=code).stdout)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of eight pictures and two series, with labels."""
    root = tmp_path_factory.mktemp("cli")
    write_pictures(root / "in" / "pictures", 8)
    write_series(root / "in", 5, seed=1, patient="A")
    write_series(root / "in", 5, seed=2, patient="B")
    rows = "".join(f"pictures/{n:03d}.png,{'cyst' if n % 2 else 'mass'},P{n // 2},DX\n" for n in range(8))
    (root / "in" / "labels.csv").write_text("path,finding,patient_id,modality\n" + rows)
    report = answer(
        "index", root / "in", "--labels", root / "in" / "labels.csv", "--source", "here", home=root / "home"
    )
    assert report["cases"]["added"] == 10 and report["files"] == {
        "indexed": 18, "unchanged": 0, "skipped": 1, "no_pixels": 0, "failed": 0,
    }  # fmt: skip
    return root / "home"


def test_search_with_a_file_a_case_and_a_folder(home: Path) -> None:
    pictures = home.parent / "in" / "pictures"
    found = answer("search", pictures / "000.png", "-k", 3, "--filter", "modality=DX", home=home)
    assert [hit["rank"] for hit in found["hits"]] == [1, 2, 3]
    assert all(hit["modality"] == "DX" and hit["source"] == "here" for hit in found["hits"])
    by_id = answer("search", found["hits"][0]["case_id"], home=home)
    assert found["hits"][0]["case_id"] not in [hit["case_id"] for hit in by_id["hits"]]
    series = answer("search", home.parent / "in" / "even", "--group", "none", home=home)
    assert series["warnings"] and series["hits"][0]["matches"]
    text = precedent("search", pictures / "000.png", home=home).stdout
    assert found["hits"][0]["case_id"] in text and "finding: " in text


def test_every_refusal_is_a_sentence_on_stderr(home: Path, tmp_path: Path) -> None:
    broken = tmp_path / "x.png"
    broken.write_bytes((home.parent / "in" / "pictures" / "000.png").read_bytes()[:200])
    for arguments, code, words in (
        (("search", "no-such-thing"), 2, "neither a file"),
        (("search",), 2, "Expected either"),
        (("search", broken), 1, ""),
        (("search", broken, "--filter", "colour=red"), 2, "Unknown filter field"),
        (("search", "--text", "a nodule"), 2, "text tower"),
        (("index", tmp_path / "absent"), 2, "no file or folder"),
        (("index", broken, "--encoder", "timm:no_such"), 2, "the encoder at hand is timm:no_such"),
        (("index", broken, "--pooling", "max"), 2, "the encoder at hand is"),
        (("rebuild", "--index", "abacus"), 2, "abacus"),
        (("rebuild", "--rollback"), 2, "no earlier generation"),
        (("keys", "revoke", "nobody"), 2, "No working key"),
        (("serve", "--host", "0.0.0.0"), 2, "access keys"),
    ):
        done = precedent(*arguments, home=home, code=code)
        assert words in done.stderr and done.stderr.startswith("precedent: ") and not done.stdout


def test_one_case_id_is_asked_at_a_time(home: Path) -> None:
    case_id = answer("search", home.parent / "in" / "pictures" / "000.png", home=home)["hits"][0]["case_id"]
    assert "one case id alone" in precedent("search", case_id, "other", home=home, code=2).stderr


def test_a_busy_port_is_refused_before_an_address_is_promised(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = precedent("serve", "--port", taken.getsockname()[1], home=home, code=2)
    assert "Can't listen on 127.0.0.1, port" in done.stderr and "http://" not in done.stderr


def test_what_became_of_every_file_is_written(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "in", 2)
    (tmp_path / "in" / "notes.txt").write_text("words")
    (tmp_path / "in" / "empty.dcm").touch()
    precedent("index", tmp_path / "in", "--outcomes", tmp_path / "o.jsonl", home=tmp_path / "h", code=1)
    lines = {Path(line["path"]).name: line for line in map(json.loads, (tmp_path / "o.jsonl").read_text().splitlines())}
    assert {name: line["status"] for name, line in lines.items()} == {
        "000.png": "indexed", "001.png": "indexed", "notes.txt": "skipped", "empty.dcm": "failed",
    }  # fmt: skip
    assert all(lines[path.name]["case_id"] for path in pictures) and lines["notes.txt"]["reason"]


def test_a_zip_cut_short_fails(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "whole.zip", "w") as archive:
        archive.write(write_pictures(tmp_path / "in", 1)[0], "a.png")
    cut = tmp_path / "cut.zip"
    cut.write_bytes((tmp_path / "whole.zip").read_bytes()[:-40])
    done = precedent("index", tmp_path / "whole.zip", cut, home=tmp_path / "h", code=1)
    assert f"failed {cut} [open] The zip is damaged or cut short" in done.stderr
    assert answer("stats", home=tmp_path / "h")["state"]["size"] == 1


def test_files_left_out_are_counted_under_a_reason_without_hashes(tmp_path: Path) -> None:
    for seed, name in ((1, "a"), (1, "b"), (9, "c")):
        write_series(tmp_path / name, 3, seed=seed)
    for n, path in enumerate(sorted((tmp_path / "c").rglob("*.dcm"))):
        data = pydicom.dcmread(path)
        other = pydicom.dcmread(sorted((tmp_path / "a").rglob("*.dcm"))[n])
        data.SOPInstanceUID, data.SeriesInstanceUID = other.SOPInstanceUID, other.SeriesInstanceUID
        data.save_as(path)
    arguments = ("index", tmp_path / "a", tmp_path / "b", tmp_path / "c", "--outcomes", tmp_path / "o.jsonl")
    told = answer(*arguments, home=tmp_path / "h")["skipped_because"]
    other_bytes = "The same SOPInstanceUID as another file but other bytes."
    assert set(told) == {"The same bytes as another file of the series.", other_bytes} and sum(told.values()) == 6
    assert (tmp_path / "o.jsonl").read_text().count(": sha256 ") == told[other_bytes]


def test_the_rest_of_a_series_that_comes_later_is_told_once_with_what_to_do(tmp_path: Path) -> None:
    slices = sorted(write_series(tmp_path / "all", 8, seed=3))
    for number, path in enumerate(slices):
        half = tmp_path / ("first" if number < 4 else "second")
        half.mkdir(exist_ok=True)
        path.rename(half / path.name)
    precedent("index", tmp_path / "first", home=tmp_path / "h")
    done = precedent("index", tmp_path / "second", home=tmp_path / "h", code=1)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("failed ")]
    assert "and 3 more of its case [commit]" in line and "all its parts together" in line and "sha256" not in line
    both = answer("index", tmp_path / "first", tmp_path / "second", home=tmp_path / "h")
    assert both["cases"]["updated"] == 1 and both["files"]["indexed"] == 8


def test_a_place_with_no_files_is_told(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    done = precedent("index", tmp_path / "in", home=tmp_path / "h")
    assert "No files there." in done.stdout and "No files there" in done.stderr
    assert not any(answer("index", tmp_path / "in", home=tmp_path / "h")["files"].values())


def test_a_setting_that_cannot_be_is_named(home: Path, tmp_path: Path) -> None:
    for arguments, settings, words in (
        (("serve", "--port", 99999), {}, "--port can't be used: input should be less than or equal to 65535."),
        (("index", tmp_path, "--workers", -1), {}, "--workers can't be used: input should be greater"),
        (("stats",), {"PRECEDENT_PORT": "abc"}, "PRECEDENT_PORT of the environment can't be used: input should be"),
    ):
        done = precedent(*arguments, home=home, code=2, **settings)
        assert words in done.stderr and done.stderr.startswith("precedent: ") and not done.stdout


def test_a_labels_file_that_is_no_text_is_refused(home: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(bytes(range(128, 256)) * 40)
    for command in (("index", tmp_path, "--labels"), ("evaluate", "--labels")):
        done = precedent(*command, tmp_path / "labels.csv", home=home, code=2)
        assert "neither UTF-8, UTF-16 nor Windows-1252" in done.stderr


@pytest.mark.parametrize("command", [["search", "--text", "chest"], ["verify"], ["stats"], ["adapt", "--list"]])
def test_an_encoder_can_be_stated_to_every_command_and_another_is_refused(home: Path, command: list[str]) -> None:
    refused = precedent(*command, "--encoder", "classical?recipe=ct-lung-v1", home=home, code=2)
    fingerprints = {word.split("-")[1] for word in refused.stderr.replace(".", " ").split() if "-mean-256" in word}
    assert "was embedded with" in refused.stderr and len(fingerprints) == 2
    own = precedent(*command, "--encoder", "classical", home=home, code=2 if "--text" in command else 0)
    assert "was embedded with" not in own.stderr  # its own is opened; that it takes no text is another matter


def test_wrong_options_are_usage_errors(home: Path) -> None:
    assert "Usage" in precedent("search", "x", "--group", "family", home=home, code=2).stderr
    assert "No such command" in precedent("serch", home=home, code=2).stderr


def test_no_gallery_names_the_command_that_makes_one(tmp_path: Path) -> None:
    for command in ("stats", "verify", "rebuild"):
        assert "precedent index" in precedent(command, home=tmp_path / "none", code=2).stderr
    assert not (tmp_path / "none").exists()


def test_failed_inputs_are_listed_and_the_rest_is_kept(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", 3)
    bad = tmp_path / "in" / "bad.png"
    bad.write_bytes((tmp_path / "in" / "000.png").read_bytes()[:250])
    done = precedent("index", tmp_path / "in", "--failures", tmp_path / "failures.jsonl", home=tmp_path / "h", code=1)
    assert f"failed {bad}" in done.stderr
    (line,) = (tmp_path / "failures.jsonl").read_text().splitlines()
    assert set(json.loads(line)) == {"path", "sha256", "stage", "reason"}
    assert answer("stats", home=tmp_path / "h")["state"]["size"] == 3


def test_rebuild_verify_stats_and_rollback(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", 6)
    home = tmp_path / "h"
    precedent("index", tmp_path / "in", home=home)
    tried = answer("rebuild", "--dry-run", home=home)
    assert (tried["count"], tried["live"], tried["generation"], tried["report"]["queries"]) == (6, False, "", 6)
    first = answer("rebuild", home=home)["generation"]
    second = answer("rebuild", "--index", "faiss", home=home)["generation"]
    assert answer("stats", home=home)["state"]["generation"] == second
    assert answer("rebuild", "--rollback", home=home)["generation"] == first
    assert answer("verify", home=home)["ok"]
    vectors = next(path for path in (home / "generations" / first).iterdir() if path.stat().st_size > 4000)
    raw = bytearray(vectors.read_bytes())
    raw[1000] ^= 1
    vectors.chmod(0o644)
    vectors.write_bytes(raw)
    assert not answer("verify", home=home, code=1)["ok"]
    assert answer("search", tmp_path / "in" / "000.png", home=home)["gallery_size"] == 6  # served from SQL meanwhile
    assert answer("verify", "--repair", home=home)["ok"]
    assert answer("verify", home=home)["ok"]


def test_keys_are_made_listed_and_revoked(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", 1)
    home = tmp_path / "h"
    precedent("index", tmp_path / "in", home=home)
    made = answer("keys", "create", "reader", home=home)
    assert made["scope"] == "read" and made["token"]
    listed = precedent("keys", "list", "--json", home=home).stdout
    assert made["token"] not in listed and json.loads(listed)[0]["name"] == "reader"
    precedent("keys", "revoke", "reader", home=home)
    assert json.loads(precedent("keys", "list", "--json", home=home).stdout)[0]["revoked_at"]


def test_encoders_are_listed(tmp_path: Path) -> None:
    specs = [entry["spec"] for entry in json.loads(precedent("encoders", "--json").stdout)]
    assert specs[:2] == ["compact", "classical"] and any(spec.startswith("open_clip:") for spec in specs)
    assert "classical" in precedent("encoders").stdout


def _wait_for_a_case(database: Path) -> None:
    for _ in range(1200):
        time.sleep(0.05)
        try:
            with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as raw:
                if raw.execute("SELECT count(*) FROM cases").fetchone()[0]:
                    return
        except sqlite3.OperationalError:  # it is not there yet, or has no tables
            continue
    raise AssertionError("Nothing was indexed within a minute.")


def test_ctrl_c_keeps_what_is_finished(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", 400)
    environment = {**os.environ, "PRECEDENT_HOME": str(tmp_path / "h")}
    indexing = subprocess.Popen(
        [*COMMAND, "index", tmp_path / "in", "--json", "--encoder", "classical"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    _wait_for_a_case(tmp_path / "h" / "catalog.sqlite3")
    indexing.send_signal(signal.SIGINT)
    out, errors = indexing.communicate(timeout=60)
    assert "Traceback" not in errors
    kept = answer("stats", home=tmp_path / "h")["state"]["size"]
    assert kept > 0
    if indexing.returncode == 130 and kept < 400:  # else it was done, and only cut short in saying so
        assert json.loads(out)["interrupted"] is True
    assert answer("index", tmp_path / "in", home=tmp_path / "h")["cases"]["added"] == 400 - kept


@pytest.mark.slow
def test_a_command_ends_without_a_word() -> None:
    """Libraries whose objects are still there at the very end complain of leaks, on the user's terminal."""
    pytest.importorskip("triton", reason="a library that does so, which comes with torch")
    program = "import triton; from indexer.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "--help"], capture_output=True, text=True, check=True, timeout=120
    )
    assert "Usage" in done.stdout and done.stderr == ""
