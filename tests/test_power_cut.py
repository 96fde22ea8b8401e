"""The order of system calls before an acknowledgement: the small version of ``benchmarks.reliability.power_cut``."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.reliability.disk_order import Order
from benchmarks.reliability.power_cut import LINES, REPLIES, in_process, over_http
from benchmarks.reliability.system_calls import calls_of, why_not


@pytest.fixture
def strace() -> None:
    if reason := why_not():
        pytest.skip(f"system calls can't be followed: {reason}")


def test_commits_swaps_and_backups_are_out_of_reach_of_a_power_cut(strace: None) -> None:
    order = in_process(commits=5, swaps=3)
    assert order.violations == []
    assert [order.acked.count(word) for word in LINES] == [5, 1, 3, 0, 1, 1]
    assert order.renamed >= 5 + 3


def test_a_new_gallery_and_uploads_are_out_of_reach_of_a_power_cut(strace: None) -> None:
    order = over_http(4)
    assert order.violations == []
    assert [order.acked.count(word) for word in REPLIES] == [3, 2]  # the first 200 is that it lives
    assert order.renamed == 2


WAL, NAME = "/top/home/catalog.sqlite3-wal", "/top/home/generations/g000001-aaaaaa"
BUILDING = "/top/home/generations/.building-0123456789ab"
COMMIT = [f'pwrite64(4<{WAL}>, "x"..., 100, 32) = 100', f"fdatasync(4<{WAL}>) = 0"]
MADE = [
    f'mkdir("{BUILDING}", 0777) = 0',
    f'openat(AT_FDCWD</>, "{BUILDING}/keys.npy", O_WRONLY|O_CREAT, 0666) = 5<{BUILDING}/keys.npy>',
    f'write(5<{BUILDING}/keys.npy>, "x"..., 100) = 100',
    f"fsync(5<{BUILDING}/keys.npy>) = 0",
    f"fsync(6<{BUILDING}>) = 0",
]
NAMED = [f'rename("{BUILDING}", "{NAME}") = 0', "fsync(6</top/home/generations>) = 0"]
SAID = ['write(1<pipe:[9]>, "published\\n", 10) = 10']
GONE = [f'rename("{NAME}", "{BUILDING}") = 0']


def followed(tmp_path: Path, *steps: str) -> Order:
    trace = tmp_path / "trace"
    trace.write_text("".join(f"77 {step}\n" for step in steps))
    order = Order("/top", LINES)
    for call in calls_of(trace):
        order.follow(call)
    return order


def test_the_right_order_is_found_right(tmp_path: Path) -> None:
    order = followed(tmp_path, *MADE, *NAMED, *COMMIT, *SAID, *COMMIT, *GONE)
    assert (order.violations, order.acked, order.renamed) == ([], ["published"], 1)


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ([*MADE, *NAMED, COMMIT[0], *SAID, COMMIT[1]], "is said before home/catalog.sqlite3-wal is synced"),
        ([*MADE[:3], *MADE[4:], *NAMED, *COMMIT, *SAID], "gets its name before what is in it is synced"),
        (
            [*MADE[:2], MADE[3], MADE[2], MADE[4], *NAMED, *COMMIT, *SAID],
            "gets its name before what is in it is synced",
        ),
        ([*MADE[:4], *NAMED, *COMMIT, *SAID], "gets its name before what is in it is synced"),
        ([*MADE, NAMED[0], *COMMIT, NAMED[1], *SAID], "written before the name of home/generations/g000001-aaaaaa"),
        ([*MADE, NAMED[1], NAMED[0], *COMMIT, *SAID], "written before the name of home/generations/g000001-aaaaaa"),
        (['mkdir("/top/home", 0777) = 0', *SAID], "is said before the name of home is synced"),
        ([*MADE, *NAMED, COMMIT[0], *GONE, COMMIT[1]], "goes before the database says so for good"),
        ([COMMIT[0], f"fdatasync(4<{WAL}>) = -1 EIO (Input/output error)", *SAID], "wal is synced"),
        (['pwrite64(3</top/home/catalog.sqlite3>, "x", 1, 0) = 1', COMMIT[0].replace(", 32)", ", 0)")], "begins anew"),
    ],
)
def test_a_wrong_order_is_found(tmp_path: Path, steps: list[str], told: str) -> None:
    assert any(told in sentence for sentence in followed(tmp_path, *steps).violations)


def test_a_sync_that_begins_before_a_write_ends_does_not_count(tmp_path: Path) -> None:
    lines = [
        f'1 pwrite64(4<{WAL}>, "x"..., 100, 32 <unfinished ...>',
        f"2 fdatasync(4<{WAL}> <unfinished ...>",
        "1 <... pwrite64 resumed>) = 100",
        "2 <... fdatasync resumed>) = 0",
        f"3 {SAID[0]}",
    ]
    (tmp_path / "trace").write_text("\n".join(lines))
    order = Order("/top", LINES)
    for call in calls_of(tmp_path / "trace"):
        order.follow(call)
    assert any("wal is synced" in sentence for sentence in order.violations)
