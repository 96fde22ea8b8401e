"""``verify --scrub`` finds what nothing else reads: a page of reports, a kept upload, one that is gone."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from indexer.intake import add_files
from indexer.sandbox import Sandbox
from indexer.scrub import scrub
from retrieval.catalog import Catalog
from retrieval.errors import UsageError
from retrieval.gallery import Gallery
from retrieval.verify.scrub import Pace, scrub_database
from tests.databases import FINGERPRINT, embedded
from tests.processes import answer
from tests.studies import open_gallery, write_pictures

FAST = Pace()


@pytest.fixture
def gallery(tmp_path: Path, sandbox: Sandbox) -> Iterator[Gallery]:
    """Three uploads, their pixels kept."""
    with open_gallery(tmp_path / "home") as opened:
        add_files(opened, sandbox, {path: path.name for path in write_pictures(tmp_path / "in", 3)})
        yield opened


def findings(gallery: Gallery) -> dict[str, int]:
    return {check.name: check.count for check in scrub(gallery, FAST) if check.count}


def test_a_sound_database_is_sound(catalog: Catalog) -> None:
    catalog.commit([embedded(f"case-{n}", report="r" * 5000, slices=40) for n in range(30)], fingerprint=FINGERPRINT)
    assert scrub_database(catalog.database, FAST).count == 0
    assert scrub_database(catalog.database, Pace(0.9)).count == 0


@pytest.mark.parametrize("table", ["reports", "thumbnails", "labels"])
def test_a_lost_page_of_a_table_is_found(tmp_path: Path, table: str) -> None:
    path = tmp_path / "catalog.sqlite3"
    with Catalog.open(f"sqlite:///{path}", create=True) as catalog:
        assert scrub_database(catalog.database, FAST).count == 0
    with closing(sqlite3.connect(path)) as raw:
        page, size = raw.execute(
            "SELECT rootpage, (SELECT page_size FROM pragma_page_size) FROM sqlite_master WHERE name = ?", (table,)
        ).fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(bytes(size))
    with Catalog.open(f"sqlite:///{path}") as catalog:
        check = scrub_database(catalog.database, FAST)
    assert (check.count, table in check.sentence) == (1, True)


def test_kept_uploads_are_read_frame_by_frame(gallery: Gallery) -> None:
    assert findings(gallery) == {}
    first, second, third = sorted((gallery.settings.home / "kept").iterdir())
    raw = bytearray(first.read_bytes())
    raw[100] ^= 1
    first.write_bytes(raw)
    second.write_bytes(second.read_bytes()[:-1])
    assert findings(gallery) == {"kept-damaged": 2}
    third.unlink()
    assert findings(gallery) == {"kept-damaged": 2, "kept-missing": 1}


def test_the_command_says_so(gallery: Gallery) -> None:
    home = gallery.settings.home
    whole = answer("verify", "--scrub", "--share", "1", home=home)
    assert whole["ok"] and {"database-damaged", "kept-damaged"} <= {check["name"] for check in whole["checks"]}
    next((home / "kept").iterdir()).write_bytes(b"")
    assert answer("verify", home=home)["ok"]
    assert not answer("verify", "--scrub", home=home, code=1)["ok"]


@pytest.mark.parametrize("share", [0.0, -1.0, 1.01])
def test_a_share_of_the_time(share: float) -> None:
    with pytest.raises(UsageError, match="share of the time"):
        Pace(share)
