"""Backups of a gallery that is written and rebuilt meanwhile, and backups and restores that are killed."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import delete

from benchmarks.reliability import backups as trials
from retrieval.backups import restore
from retrieval.backups.catalog_copy import is_vacant
from retrieval.backups.manifest import KEY
from retrieval.backups.staging import PREFIX, entries
from retrieval.catalog import Catalog
from retrieval.database import Database
from retrieval.errors import StoreError, UsageError
from retrieval.gallery import Gallery
from retrieval.schema import cases, embeddings
from tests.databases import postgres_database
from tests.processes import run


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_backups_in_use_restore_to_one_state_of_their_time(kind: str, postgres_url: str) -> None:
    rooms: list[trials.Room] = [partial(nullcontext, ""), partial(postgres_database, postgres_url)]
    assert [each.fault for each in trials.measure(kind, postgres_url, 3, 100, rooms)] == [""] * 3


def test_what_is_no_state_would_be_told(tmp_path: Path) -> None:
    """The comparison above sees a case that is missing, a vector of another case, a state too old or too new."""
    home = tmp_path / "home"
    url = f"sqlite:///{home / 'catalog.sqlite3'}"
    trials.fill(home, url, 3)
    with Catalog.open(url) as catalog:
        for batch in range(3, 9):
            made = [trials.case_of(case_id) for case_id in trials.batch_ids(0, batch)]
            catalog.commit(made, fingerprint=trials.FINGERPRINT)
        fault = trials.disagreement
        assert fault(catalog, [(8, 2)], [(8, 2)]) == fault(catalog, [(7, 1)], [(9, 3)]) == ""
        for first, last in (((9, 2), (9, 2)), ((6, 2), (6, 2)), ((8, 3), (8, 3)), ((8, 0), (8, 0))):
            assert "a moment between" in fault(catalog, [first], [last])
        with catalog.database.write() as connection:
            connection.execute(delete(cases).where(cases.c.case_id == trials.batch_ids(0, 5)[2]))
        assert "not whole" in fault(catalog, [(8, 2)], [(8, 2)])
        with catalog.database.write() as connection:
            connection.execute(embeddings.update().values(vector=trials.vector_of("another").tobytes()))
        assert "of another" in fault(catalog, [(8, 2)], [(8, 2)])


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A gallery of some megabytes, so that copying it takes a while."""
    place = tmp_path / "home"
    trials.fill(place, f"sqlite:///{place / 'catalog.sqlite3'}", 3000)
    return place


SECONDS = (0.0, 0.03, 0.1)
BACKUP = """
import sys
from pathlib import Path
from indexer.kept_names import kept_files
from retrieval.backups import backup, restore
from retrieval.catalog import Catalog
from retrieval.privacy import Secret
home, place, what = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
secret = Secret.open(home / "secret.key")
print("ready", flush=True)
if what == "backup":
    with Catalog.open(f"sqlite:///{home / 'catalog.sqlite3'}") as catalog:
        backup(catalog, home, place / "backup", secret, kept_files(secret), with_key=True)
else:
    restore(place / "backup", place / "new", sys.argv[4])
"""


def cut_off(what: str, home: Path, place: Path, seconds: float, url: str = "") -> None:
    """A backup or a restore, killed so long after it began to write, unless it was through before."""
    root = Path(__file__).parent.parent
    at_work = place if what == "backup" else place / "new"
    known = set(at_work.glob(f"{PREFIX}*"))
    with subprocess.Popen(
        [sys.executable, "-c", BACKUP, str(home), str(place), what, url], stdout=subprocess.PIPE, text=True, cwd=root
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        while process.poll() is None and set(at_work.glob(f"{PREFIX}*")) <= known:
            time.sleep(0.001)
        time.sleep(seconds)
        process.kill()


def test_a_killed_backup_is_not_there_and_the_next_one_cleans_up(home: Path, tmp_path: Path) -> None:
    cut = 0
    for seconds in SECONDS:
        cut_off("backup", home, tmp_path, seconds)
        if (tmp_path / "backup").exists():  # then it is whole
            assert restore(tmp_path / "backup", tmp_path / "new").report.ok
            (tmp_path / "backup").rename(tmp_path / "done")
            break
        cut += bool(list(tmp_path.glob(f"{PREFIX}*")))
    assert cut, "no kill met a backup at work"
    run("backup", tmp_path / "last", "--with-key", home=home)
    assert not list(tmp_path.glob(f"{PREFIX}*")) and not list(home.glob(f"{PREFIX}*"))
    assert restore(tmp_path / "last", tmp_path / "again").report.ok


def test_a_killed_restore_is_no_gallery_and_can_be_repeated(home: Path, tmp_path: Path) -> None:
    run("backup", tmp_path / "backup", "--with-key", home=home)
    cut = 0
    for seconds in SECONDS:
        cut_off("restore", home, tmp_path, seconds)
        new = tmp_path / "new"
        if (new / KEY).exists():  # then it is whole: the key comes last
            with Catalog.open(f"sqlite:///{new / 'catalog.sqlite3'}") as catalog:
                assert catalog.count() == 3000
            break
        if new.exists():
            cut += 1
            assert entries(new) == []
            with pytest.raises(StoreError, match="No gallery at"):
                Gallery.open(new)
    assert cut, "no kill met a restore at work"
    assert restore(tmp_path / "backup", tmp_path / "other").report.ok
    if not (tmp_path / "new" / KEY).exists():
        assert restore(tmp_path / "backup", tmp_path / "new").report.ok
        assert entries(tmp_path / "new") == sorted(
            tmp_path / "new" / name for name in ("catalog.sqlite3", "generations", KEY)
        )


@pytest.mark.slow
def test_a_killed_restore_into_a_server(home: Path, tmp_path: Path, postgres_url: str) -> None:
    """Nothing is in the server, and it can be repeated; or all of it, and then the next one says what to do."""
    run("backup", tmp_path / "backup", "--with-key", home=home)
    for seconds in SECONDS:
        with postgres_database(postgres_url) as url:
            cut_off("restore", home, tmp_path, seconds, url)
            if (tmp_path / "new" / KEY).exists():
                break
            with closing(Database(url)) as server:
                vacant = is_vacant(server)
            if vacant:
                assert restore(tmp_path / "backup", tmp_path / "again", url).report.ok
                shutil.rmtree(tmp_path / "again")
            else:
                with pytest.raises(UsageError, match="If a restore was cut off there, drop and create it first"):
                    restore(tmp_path / "backup", tmp_path / "again", url)
            with Catalog.open(url) as catalog:
                assert catalog.count() == 3000


def test_ctrl_c_leaves_nothing(home: Path, tmp_path: Path) -> None:
    root = Path(__file__).parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", BACKUP, str(home), str(tmp_path), "backup"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=root,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.wait()
    if process.returncode:
        assert not (tmp_path / "backup").exists()
    assert not list(tmp_path.glob(f"{PREFIX}*")) and not list(home.glob(f"{PREFIX}*"))
