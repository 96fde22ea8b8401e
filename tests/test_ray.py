"""Indexing on Ray clusters of this machine: the gallery of one process, a machine lost, runs cut off, refusals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Picture

from indexer.cluster.engine import RayEngine
from indexer.cluster.session import connected
from indexer.events import CaseDone, Event
from indexer.labels import LabelTable
from indexer.pipeline import Options, index
from indexer.report import CaseStatus, Report
from indexer.sandbox import Sandbox
from retrieval.errors import FingerprintMismatch, UsageError
from retrieval.gallery import Gallery
from retrieval.settings import Settings
from retrieval.types import Case
from retrieval.verify import verify
from tests.processes import run, start
from tests.studies import contents, index_all, open_gallery, write_pictures, write_series

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="the extra 'ray' is not installed"),
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),  # Ray's own, on newer libraries
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # the files Ray's processes log to, closed by their end
]


def write_inputs(folder: Path, pictures: int) -> Path:
    """Pictures, a series, labels for some of both, and a damaged file."""
    write_pictures(folder / "pictures", pictures)
    write_series(folder, 12, seed=9)
    (folder / "cut.png").write_bytes((folder / "pictures" / "000.png").read_bytes()[:300])
    rows = "".join(f"pictures/{n:03d}.png,{'cyst' if n % 2 else 'mass'},P{n // 2}\n" for n in range(pictures))
    (folder / "labels.csv").write_text("path,finding,patient_id\n" + rows)
    return folder


def as_stored(gallery: Gallery) -> list[Case]:
    """Every case in the order of the keys, as it would be stored at any hour."""
    cases = gallery.catalog.list_cases(limit=10_000)
    return sorted((replace(case, created_at="") for case in cases), key=lambda case: case.key)


def counts(report: Report) -> tuple[object, ...]:
    return report.files, report.cases, report.frames, report.duplicates, report.skips, report.warnings


def options(folder: Path) -> Options:
    return Options(labels=LabelTable.read(folder / "labels.csv"), source="here")


@contextmanager
def two_galleries(root: Path) -> Iterator[tuple[Gallery, Gallery]]:
    """With the same key, so that patients have the same pseudonyms."""
    with open_gallery(root / "local") as local:
        (root / "ray").mkdir()
        shutil.copy(root / "local" / "secret.key", root / "ray" / "secret.key")
        with open_gallery(root / "ray") as on_ray:
            yield local, on_ray


@pytest.fixture
def short() -> Iterator[str]:
    """A folder for Ray's sockets, whose names may have about a hundred characters: pytest's own folders have more."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield folder


class _AnotherVersion:
    """An encoder that says it is not the one its spec opens."""

    def __init__(self, encoder: Any) -> None:
        self.card = replace(encoder.card, version="another")
        self.encode = encoder.encode


def test_a_cluster_makes_the_gallery_that_one_process_makes(tmp_path: Path, sandbox: Sandbox) -> None:
    folder = write_inputs(tmp_path / "in", 60)
    with Picture.open(folder / "pictures" / "007.png") as picture:
        picture.save(folder / "twin.png", compress_level=1)  # other bytes, the same pixels
    with two_galleries(tmp_path) as (local, on_ray), connected():
        here = index(local, sandbox, [folder], options(folder))
        there = index(on_ray, sandbox, [folder], options(folder), engine=RayEngine(on_ray))
        assert counts(there) == counts(here) and there.cases[CaseStatus.ADDED] == 62 and there.duplicates == 1
        assert [(f.source, f.reason) for f in there.failures] == [(f.source, f.reason) for f in here.failures]
        assert as_stored(on_ray) == as_stored(local)
        assert contents(on_ray) == contents(local)  # to the bit
        assert verify(on_ray.catalog, tmp_path / "ray").ok

        before = as_stored(on_ray)
        again = index(on_ray, sandbox, [folder], options(folder), engine=RayEngine(on_ray))
        assert again.cases == {CaseStatus.UNCHANGED: 62, CaseStatus.FAILED: 1} and as_stored(on_ray) == before

        settings = Settings(home=tmp_path / "other", encoder="classical")
        with Gallery.open(settings, create=True, encoder=_AnotherVersion(local.encoder)) as other:
            with pytest.raises(FingerprintMismatch, match="Ray node") as refused:
                index(other, sandbox, [folder], Options(), engine=RayEngine(other))
            assert (refused.value.stored, refused.value.offered) == (other.fingerprint, local.fingerprint)
            assert len(other) == 0
        with pytest.raises(UsageError, match="already"), connected():
            pass


def test_a_machine_lost_midway_costs_nothing(tmp_path: Path, sandbox: Sandbox, short: str) -> None:
    from ray.cluster_utils import Cluster

    folder = write_inputs(tmp_path / "in", 500)
    told: list[str] = []
    # A second instead of three, twice instead of five times, until a machine that is silent counts as lost.
    quick = {"health_check_period_ms": 1000, "health_check_failure_threshold": 2, "health_check_timeout_ms": 1000}
    Path("/tmp/ray").mkdir(exist_ok=True)  # where a cluster notes its address, whatever its own folder
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "temp_dir": short, "object_store_memory": 100 << 20,
                        "_system_config": {**quick, "health_check_initial_delay_ms": 0}},
    )  # fmt: skip
    try:
        lost = cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
        with two_galleries(tmp_path) as (local, on_ray), connected(cluster.address):

            def kill_at_the_first_case(event: Event) -> None:
                nonlocal lost
                if isinstance(event, CaseDone) and lost is not None:
                    cluster.remove_node(lost, allow_graceful=False)
                    lost = None

            engine = RayEngine(on_ray, told=told.append)
            assert engine.pool.actors == 2
            report = index(on_ray, sandbox, [folder], options(folder), kill_at_the_first_case, engine=engine)
            assert lost is None and engine.pool.actors == 1 and any("1 gone" in sentence for sentence in told)
            assert counts(report) == counts(index(local, sandbox, [folder], options(folder)))
            assert as_stored(on_ray) == as_stored(local) and contents(on_ray) == contents(local)
            assert verify(on_ray.catalog, tmp_path / "ray").ok
    finally:
        cluster.shutdown()


def _wait_for_cases(home: Path, process: subprocess.Popen[str], more_than: int = 0) -> None:
    until = time.monotonic() + 90
    while time.monotonic() < until:
        assert process.poll() is None, process.communicate()
        try:
            with closing(sqlite3.connect(home / "catalog.sqlite3", timeout=10)) as database:
                if database.execute("SELECT count(*) FROM cases").fetchone()[0] > more_than:
                    return
        except sqlite3.OperationalError:  # no table yet
            pass
        time.sleep(0.02)
    raise AssertionError("nothing was committed in 90 s")


def test_a_run_cut_off_is_taken_up_by_the_same_command(tmp_path: Path, sandbox: Sandbox, short: str) -> None:
    folder, home = write_inputs(tmp_path / "in", 400), tmp_path / "home"
    command = ("index", folder, "--engine", "ray", "--json")
    killed = start(*command, home=home, extra={"TMPDIR": short})
    _wait_for_cases(home, killed)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=60)
    with open_gallery(home) as gallery:
        kept = contents(gallery)

    stopped = start(*command, home=home, extra={"TMPDIR": short})
    _wait_for_cases(home, stopped, len(kept))
    os.killpg(stopped.pid, signal.SIGINT)  # as a terminal does: all that it has started hears it too
    printed, problems = stopped.communicate(timeout=60)
    assert stopped.returncode == 130 and "Traceback" not in problems, problems
    report = json.loads(printed)
    assert report["interrupted"] and report["cases"]["unchanged"] == len(kept)

    with open_gallery(home) as gallery, open_gallery(tmp_path / "local") as local:
        assert len(kept) + report["cases"]["added"] == len(gallery) < 401
        assert kept.items() <= contents(gallery).items()
        index_all(gallery, sandbox, folder)
        index_all(local, sandbox, folder)
        assert contents(gallery) == contents(local) and len(local) == 401
        assert verify(gallery.catalog, home).ok


def test_what_can_not_be_reached_is_told(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", 1)
    refused = run("index", tmp_path / "in", "--address", "auto", home=tmp_path / "home", code=2)
    assert "along with --engine ray" in refused.stderr
    for address, sentence in (
        ("ray://127.0.0.1:1", "HOST:6379"),
        ("127.0.0.1:1", "no Ray cluster at '127.0.0.1:1'"),
        ("somewhere", "HOST:6379"),
    ):
        with pytest.raises(UsageError, match=sentence), connected(address):
            pass
