"""Indexing end to end on real files: counts, resumption, damage, labels, memory of nothing but the gallery."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import RLELossless

from indexer.assemble import assemble
from indexer.drafts import Draft, draft_of
from indexer.embedder import Embedder
from indexer.events import CaseDone, Event, FileDone, Scanned
from indexer.intake import add_files
from indexer.labels import LabelTable
from indexer.originals import read_frames
from indexer.pipeline import Options, index
from indexer.report import CaseStatus, FileStatus
from indexer.sandbox import Sandbox
from indexer.sources import Source
from retrieval.encoders.base import Encoder
from retrieval.errors import FingerprintMismatch, SourceGone, StoreError
from retrieval.gallery import Gallery
from retrieval.settings import Settings
from retrieval.types import CaseKind, Image, UnitRows
from retrieval.verify import verify
from tests.dicom_files import dataset, enhanced_mr, save, uid
from tests.studies import LIMITS, contents, index_all, open_gallery, write_pictures, write_series


def test_pictures_series_and_strangers_are_counted(tmp_path: Path, sandbox: Sandbox) -> None:
    write_pictures(tmp_path / "in" / "pictures", 5)
    write_series(tmp_path / "in", 6, seed=1)
    (tmp_path / "in" / "notes.txt").write_text("not an image")
    (tmp_path / "in" / "cut.png").write_bytes((tmp_path / "in" / "pictures" / "000.png").read_bytes()[:300])
    with open_gallery(tmp_path / "home") as gallery:
        report = index_all(gallery, sandbox, tmp_path / "in")
        assert report.files == {FileStatus.INDEXED: 11, FileStatus.SKIPPED: 1, FileStatus.FAILED: 1}
        assert report.cases == {CaseStatus.ADDED: 6, CaseStatus.FAILED: 1}
        assert report.frames == 11
        (failure,) = report.failures
        assert failure.source.path.name == "cut.png" and failure.reason and len(failure.sha256) == 64
        assert not report.ok
        kinds = [case.kind for case in gallery.catalog.list_cases()]
        assert kinds.count(CaseKind.IMAGE) == 5 and kinds.count(CaseKind.VOLUME) == 1


def test_a_second_run_adds_nothing(tmp_path: Path, sandbox: Sandbox) -> None:
    write_pictures(tmp_path / "in", 4)
    write_series(tmp_path / "in", 5, seed=2)
    with open_gallery(tmp_path / "home") as gallery:
        index_all(gallery, sandbox, tmp_path / "in")
        before, heads = contents(gallery), gallery.catalog.heads()
        again = index_all(gallery, sandbox, tmp_path / "in")
        assert again.cases == {CaseStatus.UNCHANGED: 5} and again.files == {FileStatus.UNCHANGED: 9}
        assert again.frames == 0
        assert contents(gallery) == before and gallery.catalog.heads() == heads
        forced = index_all(gallery, sandbox, tmp_path / "in", resume=False)
        assert forced.cases == {CaseStatus.UNCHANGED: 5}
        assert contents(gallery) == before and gallery.catalog.heads() == heads


def test_a_scattered_series_is_one_case_in_order(tmp_path: Path, sandbox: Sandbox) -> None:
    write_series(tmp_path / "in", 9, seed=3, scattered=True)
    with open_gallery(tmp_path / "home") as gallery:
        index_all(gallery, sandbox, tmp_path / "in")
        (case,) = gallery.catalog.list_cases()
        positions = [frame.position_mm for frame in case.frames]
        assert positions == sorted(positions) and len(positions) == 9
        assert positions[-1] - positions[0] == pytest.approx(24.0)


def test_a_series_that_grows_is_updated(tmp_path: Path, sandbox: Sandbox) -> None:
    paths = write_series(tmp_path / "in", 6, seed=4)
    late = tmp_path / "late.dcm"
    paths[2].rename(late)
    with open_gallery(tmp_path / "home") as gallery:
        assert index_all(gallery, sandbox, tmp_path / "in").cases == {CaseStatus.ADDED: 1}
        late.rename(paths[2])
        assert index_all(gallery, sandbox, tmp_path / "in").cases == {CaseStatus.UPDATED: 1}
        (case,) = gallery.catalog.list_cases()
        assert len(case.frames) == 6 and len(gallery) == 1


def test_a_damaged_slice_is_left_out_and_told(tmp_path: Path, sandbox: Sandbox) -> None:
    paths = write_series(tmp_path / "in", 6, seed=5)
    paths[3].write_bytes(paths[3].read_bytes()[:-700])
    with open_gallery(tmp_path / "home") as gallery:
        for _ in range(2):  # the second run finds the same, and changes nothing
            report = index_all(gallery, sandbox, tmp_path / "in")
            assert report.files[FileStatus.FAILED] == 1 and report.failures[0].source.path == paths[3]
            (case,) = gallery.catalog.list_cases()
            assert len(case.frames) == 5
        _, embedding = gallery.catalog.embedding(case.case_id)
        assert embedding.slices.shape[0] == 5


def test_damage_in_one_stack_of_a_file_does_not_cost_the_other(tmp_path: Path, sandbox: Sandbox) -> None:
    stored = np.random.default_rng(9).integers(0, 1000, (10, 32, 32), dtype=np.uint16)
    groups = [{"position": (0.0, 0.0, 3.0 * (n % 5)), "echo": 10.0 if n < 5 else 20.0} for n in range(10)]
    made = enhanced_mr(stored, groups)
    made.compress(RLELossless, generate_instance_uid=False)
    frames = list(generate_frames(made.PixelData, number_of_frames=10))
    frames[5] = frames[5][:12] + b"\xff" * 20  # the first of the second stack
    made.PixelData = encapsulate(frames)
    save(made, tmp_path / "echoes.dcm")
    with open_gallery(tmp_path / "home") as gallery:
        report = index_all(gallery, sandbox, tmp_path / "echoes.dcm")
        assert report.cases == {CaseStatus.ADDED: 1, CaseStatus.FAILED: 1}
        (case,) = gallery.catalog.list_cases()
        assert len(case.frames) == 5 and {frame.frame for frame in case.frames} == set(range(5))


def test_refused_files_do_not_add_up(tmp_path: Path, sandbox: Sandbox) -> None:
    """Cases that give no frame are handed on as they fail, not kept until a batch is full."""
    paths = write_pictures(tmp_path / "in", 1)
    with open_gallery(tmp_path / "home") as gallery:
        scan = sandbox.scan_one(Source(paths[0]))
        paths[0].unlink()
        (plan,) = assemble([scan], LIMITS)
        draft = draft_of(plan, None, "", gallery.secret, gallery.pooling.max_slices)
        drawn: list[int] = []

        def drafts() -> Iterator[Draft]:
            for n in range(1000):
                drawn.append(n)
                yield draft

        finished = Embedder(sandbox, gallery.encoder, gallery.pooling).run(drafts())
        assert next(finished).embedded is None
        assert len(drawn) < 500
        assert sum(1 for _ in finished) == 999


def test_a_failed_run_leaves_nothing_running(tmp_path: Path, sandbox: Sandbox) -> None:
    """Not even while its error is still held, whose traceback would keep readers and decoders alive."""
    write_pictures(tmp_path / "in", 200)
    with open_gallery(tmp_path / "home") as gallery:
        with closing(sqlite3.connect(tmp_path / "home" / "catalog.sqlite3")) as database:
            database.execute("DROP TABLE thumbnails")  # whoever else may do such a thing to a database
        before = threading.active_count()
        with pytest.raises(StoreError):
            index_all(gallery, sandbox, tmp_path / "in")
        until = time.monotonic() + 5
        while threading.active_count() > before and time.monotonic() < until:
            time.sleep(0.02)
        assert threading.active_count() <= before


def test_other_pixels_under_a_known_uid_are_refused_unless_asked(tmp_path: Path, sandbox: Sandbox) -> None:
    write_series(tmp_path / "one", 4, seed=6)
    other = write_series(tmp_path / "other", 4, seed=6)
    for path in other:
        raw = bytearray(path.read_bytes())
        raw[-100] ^= 0xFF
        path.write_bytes(raw)
    with open_gallery(tmp_path / "home") as gallery:
        index_all(gallery, sandbox, tmp_path / "one")
        before = contents(gallery)
        report = index_all(gallery, sandbox, tmp_path / "other")
        assert report.cases == {CaseStatus.FAILED: 1} and report.files == {FileStatus.FAILED: 4}
        stored = next(iter(before.values()))[0]
        assert stored in report.failures[0].reason
        assert contents(gallery) == before
        assert index_all(gallery, sandbox, tmp_path / "other", replace=True).cases == {CaseStatus.UPDATED: 1}
        assert contents(gallery) != before


def test_radiographs_of_one_series_are_told_apart_by_their_instance(tmp_path: Path, sandbox: Sandbox) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number, (instance, shade) in enumerate([(1, 0), (1, 0), (2, 0), (2, 9)]):  # a copy, and a clash
        pixels = np.arange(64, dtype=np.uint16).reshape(8, 8) + instance + shade
        made = dataset(pixels, Modality="DX", SeriesInstanceUID=uid(7), SOPInstanceUID=uid(7, instance))
        save(made, folder / f"{number}.dcm")
    with open_gallery(tmp_path / "home") as gallery:
        report = index_all(gallery, sandbox, folder)
        assert report.cases == {CaseStatus.ADDED: 2, CaseStatus.UNCHANGED: 1, CaseStatus.FAILED: 1}
        (failure,) = report.failures
        assert failure.source.path.name == "3.dcm" and "is on file with other content" in failure.reason
        assert index_all(gallery, sandbox, folder).cases == {CaseStatus.UNCHANGED: 3, CaseStatus.FAILED: 1}
        assert len(contents(gallery)) == 2


def test_labels_come_from_the_table_and_are_renewed(tmp_path: Path, sandbox: Sandbox) -> None:
    write_pictures(tmp_path / "in", 3)
    table = tmp_path / "in" / "labels.csv"
    table.write_text(
        "path,finding,size,patient_id,report,age\n000.png,mass|cyst,12.5,A,A mass.,40\n001.png,none,,A,,\n"
    )
    with open_gallery(tmp_path / "home") as gallery:
        index_all(gallery, sandbox, tmp_path / "in", labels=LabelTable.read(table), source="site-1")
        cases = gallery.catalog.list_cases()
        first = next(case for case in cases if case.report)
        assert {(label.name, label.value, label.number) for label in first.labels} == {
            ("finding", "mass", None), ("finding", "cyst", None), ("size", "12.5", 12.5),
        }  # fmt: skip
        assert first.attributes.age == 40 and first.attributes.source == "site-1"
        assert sum(bool(case.patient_key) for case in cases) == 2
        assert len({case.patient_key for case in cases if case.patient_key}) == 1
        keys = sorted(case.key for case in cases)

        table.write_text("path,finding\n000.png,cyst\n")
        report = index_all(gallery, sandbox, tmp_path / "in", labels=LabelTable.read(table))
        assert report.cases == {CaseStatus.UPDATED: 1, CaseStatus.UNCHANGED: 2}
        renewed = gallery.case(first.case_id)
        assert [label.value for label in renewed.labels] == ["cyst"]
        assert sorted(case.key for case in gallery.catalog.list_cases()) == keys  # nothing was embedded again


def test_a_patient_named_later_is_linked(tmp_path: Path, sandbox: Sandbox) -> None:
    write_pictures(tmp_path / "in", 3)
    table = tmp_path / "labels.csv"
    table.write_text("path,patient_id\nin/000.png,A\nin/001.png,A\nin/002.png,B\n")
    with open_gallery(tmp_path / "home") as gallery:
        index_all(gallery, sandbox, tmp_path / "in")
        keys = sorted(case.key for case in gallery.catalog.list_cases())
        report = index_all(gallery, sandbox, tmp_path / "in", labels=LabelTable.read(table))
        assert report.cases == {CaseStatus.UPDATED: 3}
        cases = gallery.catalog.list_cases()
        assert sorted(case.key for case in cases) == keys  # nothing was embedded again
        one, other = (case for case in cases if case.patient_key == gallery.secret.patient_key("A"))
        assert other.case_id not in {hit.case.case_id for hit in gallery.similar_to(one.case_id).hits}


@pytest.mark.parametrize(
    "again",
    [{}, {"source": "site-1"}, {"resume": False}, {"replace": True, "resume": False}],
    ids=["plain", "source", "all", "replace"],
)
@pytest.mark.parametrize("grown", [False, True], ids=["same", "grown"])
def test_what_was_said_stays_when_nothing_is_said_again(
    tmp_path: Path, sandbox: Sandbox, again: dict[str, object], grown: bool
) -> None:
    paths = write_series(tmp_path / "in", 5, seed=7)
    late = tmp_path / "late.dcm"
    paths[2].rename(late)
    table = tmp_path / "labels.csv"
    table.write_text("path,finding,patient_id,report,age,body_part\nin,mass,Z,A mass.,40,CHEST\n")
    with open_gallery(tmp_path / "home") as gallery:
        index_all(gallery, sandbox, tmp_path / "in", labels=LabelTable.read(table), source="site-1")
        (before,) = gallery.catalog.list_cases()
        if grown:
            late.rename(paths[2])
        report = index_all(gallery, sandbox, tmp_path / "in", **again)
        assert report.cases == {CaseStatus.UPDATED if grown else CaseStatus.UNCHANGED: 1}
        (after,) = gallery.catalog.list_cases()
        assert len(after.frames) == 5 if grown else after == before
        assert after.patient_key == before.patient_key == gallery.secret.patient_key("Z")
        assert (after.labels, after.report, after.attributes) == (before.labels, before.report, before.attributes)

        table.write_text("path,finding\nin,cyst\n")  # what a later table does not speak of stays as well
        index_all(gallery, sandbox, tmp_path / "in", labels=LabelTable.read(table))
        (renewed,) = gallery.catalog.list_cases()
        assert [label.value for label in renewed.labels] == ["cyst"]
        assert (renewed.patient_key, renewed.report) == (before.patient_key, before.report)
        assert renewed.attributes == before.attributes


def test_other_pixels_inherit_nothing(tmp_path: Path, sandbox: Sandbox) -> None:
    write_series(tmp_path / "one", 4, seed=8)
    for path in write_series(tmp_path / "other", 4, seed=8):
        path.write_bytes(path.read_bytes()[:-1] + b"\x05")
    table = tmp_path / "labels.csv"
    table.write_text("path,finding,patient_id\none,mass,Z\n")
    with open_gallery(tmp_path / "home") as gallery:
        index_all(gallery, sandbox, tmp_path / "one", labels=LabelTable.read(table))
        index_all(gallery, sandbox, tmp_path / "other", replace=True)
        (case,) = gallery.catalog.list_cases()
        assert not case.labels and case.patient_key == gallery.secret.patient_key("P1")


def test_events_tell_every_file_once(tmp_path: Path, sandbox: Sandbox) -> None:
    write_pictures(tmp_path / "in", 3)
    write_series(tmp_path / "in", 4, seed=7)
    (tmp_path / "in" / "x.csv").write_text("a,b\n")
    told: list[Event] = []
    with open_gallery(tmp_path / "home") as gallery:
        index(gallery, sandbox, [tmp_path / "in"], Options(), told.append)
    files = [event.source for event in told if isinstance(event, FileDone)]
    assert len(files) == len(set(files)) == 8
    assert {event.source for event in told if isinstance(event, Scanned)} == set(files)
    assert sum(isinstance(event, CaseDone) for event in told) == 4


class Large:
    """An encoder that asks for 48 frames at a time once it has begun, and notes what it is given."""

    def __init__(self, inner: Encoder) -> None:
        self.card, self.encode_these, self.given = inner.card, inner.encode, list[int]()

    @property
    def batch_frames(self) -> int:
        return 48 if self.given else 1

    def encode(self, images: Sequence[Image]) -> UnitRows:
        self.given.append(len(images))
        return self.encode_these(images)


def test_an_encoder_is_given_as_many_frames_as_it_asks_for(tmp_path: Path, sandbox: Sandbox) -> None:
    write_pictures(tmp_path / "in", 170)
    with open_gallery(tmp_path / "one") as gallery, open_gallery(tmp_path / "other") as other:
        gallery.encoder = encoder = Large(gallery.encoder)
        index_all(gallery, sandbox, tmp_path / "in")
        assert sum(encoder.given) == 170 and set(encoder.given[:-1]) <= {32, 48} and 48 in encoder.given
        index_all(other, sandbox, tmp_path / "in")
        assert contents(gallery) == contents(other)


def test_a_dry_run_writes_nothing(tmp_path: Path, sandbox: Sandbox) -> None:
    write_pictures(tmp_path / "in", 3)
    with open_gallery(tmp_path / "home") as gallery:
        assert index_all(gallery, sandbox, tmp_path / "in", dry_run=True).cases == {CaseStatus.ADDED: 3}
        assert len(gallery) == 0


def test_vectors_do_not_depend_on_company(tmp_path: Path, sandbox: Sandbox) -> None:
    write_pictures(tmp_path / "in", 40)
    with open_gallery(tmp_path / "together") as together, open_gallery(tmp_path / "alone") as alone:
        index_all(together, sandbox, tmp_path / "in")
        for path in sorted((tmp_path / "in").iterdir(), reverse=True)[::8]:
            index_all(alone, sandbox, path)
        few, many = contents(alone), contents(together)
        assert len(few) == 5 and all(many[case_id] == stored for case_id, stored in few.items())


def test_pooling_is_part_of_the_gallery(tmp_path: Path, sandbox: Sandbox) -> None:
    write_series(tmp_path / "in", 5, seed=8)
    with open_gallery(tmp_path / "home", pooling="max") as gallery:
        index_all(gallery, sandbox, tmp_path / "in")
        (case,) = gallery.catalog.list_cases()
        _, embedding = gallery.catalog.embedding(case.case_id)
        largest = embedding.slices.max(axis=0)
        assert np.allclose(embedding.vector, largest / np.linalg.norm(largest), atol=2e-3)
    with Gallery.open(tmp_path / "home") as reopened:
        assert reopened.pooling.how == "max"  # a gallery keeps what it was made with
    with pytest.raises(FingerprintMismatch, match=r"max-256, the encoder at hand is .*mean-256"):
        Gallery.open(Settings(home=tmp_path / "home", pooling="mean"))
    encoder = Gallery.open(tmp_path / "home").encoder
    with pytest.raises(FingerprintMismatch, match="max"):
        _reopened_with_another_recipe(tmp_path / "home", encoder)


def _reopened_with_another_recipe(home: Path, encoder: object) -> None:
    import dataclasses

    class Changed:
        card = dataclasses.replace(encoder.card, version="another")  # type: ignore[attr-defined]
        encode = encoder.encode  # type: ignore[attr-defined]

    Gallery.open(home, encoder=Changed())  # type: ignore[arg-type]


KILLED_RUN = """
import sys
from pathlib import Path
from indexer.limits import Limits
from indexer.originals import read_frames
from indexer.pipeline import Options, index
from indexer.sandbox import Sandbox
from retrieval.gallery import Gallery
from retrieval.settings import Settings
if __name__ == "__main__":
    settings = Settings(home=Path(sys.argv[1]), encoder="classical")
    with Gallery.open(settings, create=True) as gallery, Sandbox(1, Limits()) as sandbox:
        index(gallery, sandbox, [Path(sys.argv[2])], Options())
"""


def test_killed_at_any_moment_then_finished(tmp_path: Path, sandbox: Sandbox) -> None:
    write_pictures(tmp_path / "in", 60)
    write_series(tmp_path / "in", 12, seed=9)
    with open_gallery(tmp_path / "whole") as whole:
        index_all(whole, sandbox, tmp_path / "in")
        expected = contents(whole)
    script = tmp_path / "run.py"
    script.write_text(KILLED_RUN)
    rng, home = np.random.default_rng(5), tmp_path / "home"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    kept = []
    for _ in range(6):
        run = subprocess.Popen([sys.executable, script, home, tmp_path / "in"], env=environment, start_new_session=True)
        time.sleep(float(rng.uniform(0.3, 2.5)))
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        with open_gallery(home) as gallery:
            found = contents(gallery)
            assert found.items() <= expected.items()  # whatever is there is whole and right
            kept.append(len(found))
    assert kept == sorted(kept)  # nothing that was committed is lost by the next run
    with open_gallery(home) as gallery:
        index_all(gallery, sandbox, tmp_path / "in")
        assert contents(gallery) == expected
        assert verify(gallery.catalog, home).ok


def test_files_that_moved_are_followed(tmp_path: Path, sandbox: Sandbox) -> None:
    write_pictures(tmp_path / "old", 2)
    write_series(tmp_path / "old", 4, seed=21)
    with open_gallery(tmp_path / "home") as gallery:
        index_all(gallery, sandbox, tmp_path / "old")
        (tmp_path / "old").rename(tmp_path / "new")
        volume = next(case for case in gallery.catalog.list_cases() if case.kind is CaseKind.VOLUME)
        with pytest.raises(SourceGone, match="new place"):
            list(read_frames(gallery, sandbox, volume, [0]))
        before = contents(gallery)
        assert index_all(gallery, sandbox, tmp_path / "new").cases == {CaseStatus.UNCHANGED: 3}
        for case in gallery.catalog.list_cases():
            assert len(list(read_frames(gallery, sandbox, case, range(len(case.frames))))) > 0
        assert contents(gallery) == before


def test_a_slice_and_pieces_are_absorbed_by_the_series_they_belong_to(tmp_path: Path, sandbox: Sandbox) -> None:
    paths = sorted(write_series(tmp_path / "in", 40, seed=61), key=lambda path: path.stat().st_mtime_ns)
    late = tmp_path / "late"
    late.mkdir()
    by_position = sorted(paths, key=lambda path: float(pydicom.dcmread(path).ImagePositionPatient[2]))
    first, middle = by_position[0], by_position[10:30]
    with open_gallery(tmp_path / "home") as gallery:
        assert index_all(gallery, sandbox, first).cases == {CaseStatus.ADDED: 1}  # one slice: a picture
        for path in middle:
            path.rename(late / path.name)
        report = index_all(gallery, sandbox, tmp_path / "in")  # a gap of twenty slices: two stacks
        assert report.ok and len(gallery) == 2
        for path in middle:
            (late / path.name).rename(path)
        report = index_all(gallery, sandbox, tmp_path / "in")
        assert report.ok
        (case,) = gallery.catalog.list_cases()
        assert len(case.frames) == 40 and len(gallery) == 1
        assert verify(gallery.catalog, tmp_path / "home").ok
        assert index_all(gallery, sandbox, tmp_path / "in").cases == {CaseStatus.UNCHANGED: 1}


def test_pixels_kept_of_an_upload_move_with_the_data_directory(tmp_path: Path, sandbox: Sandbox) -> None:
    (picture,) = write_pictures(tmp_path / "in", 1)
    with open_gallery(tmp_path / "home") as gallery:
        (told,) = add_files(gallery, sandbox, {picture: "x.png"})
        before = list(read_frames(gallery, sandbox, gallery.case(told.case_id), [0]))
    (tmp_path / "home").rename(tmp_path / "moved")
    picture.unlink()
    with Gallery.open(tmp_path / "moved") as gallery:
        (after,) = read_frames(gallery, sandbox, gallery.case(told.case_id), [0])
        assert np.array_equal(after.pixels, before[0].pixels)
