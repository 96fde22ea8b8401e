"""What goes to a Ray cluster and comes back, without a cluster: shards, their order, losses, the plan of a pool."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.assemble import assemble, group_key
from indexer.cluster.resources import Node, Pool, pool_of
from indexer.cluster.shards import FIRST_FRAMES, MOST_FRAMES, Board, restored, shards, stripped, withdrawn
from indexer.cluster.tray import MOST_BEGUN, Tray
from indexer.cluster.work import ShardEmbedder, Work, encoder_for, unlike
from indexer.drafts import Draft, draft_of
from indexer.embedder import Embedder, Finished
from indexer.labels import LabelTable
from indexer.sandbox import Sandbox
from indexer.sources import Rejection, Scan, Source
from indexer.walk import walk
from retrieval.errors import FingerprintMismatch, UsageError
from retrieval.gallery import Gallery
from retrieval.types import Attributes, Case, CaseKind
from tests.studies import LIMITS, open_gallery, write_pictures, write_series


def draft(number: int, frames: int = 1) -> Draft:
    case = Case(f"{number:016d}", CaseKind.IMAGE)
    return Draft(case, (), tuple(range(frames)), (), (), "", None, ())


def drafts_of(gallery: Gallery, sandbox: Sandbox, folder: Path, labels: LabelTable | None = None) -> list[Draft]:
    """The cases of a folder; the files of each of its folders are one series, or pictures."""
    groups: dict[str, list[Scan]] = {}
    for scan in sandbox.scan(walk([folder])):
        assert isinstance(scan, Scan)
        key = str(scan.source.path) if scan.format == "raster" else group_key(scan)
        groups.setdefault(key, []).append(scan)
    plans = [plan for scans in groups.values() for plan in assemble(scans, LIMITS)]
    reported = (Source(Path("told once")),)
    return [draft_of(plan, labels, "here", gallery.secret, gallery.most_frames, reported) for plan in plans]


@given(st.lists(st.integers(1, 300), max_size=80), st.integers(1, 16))
def test_shards_are_the_drafts_in_order_and_bounded(frames: list[int], actors: int) -> None:
    drafts = [draft(n, count) for n, count in enumerate(frames)]
    cut = list(shards(drafts, actors))
    assert [each for shard in cut for each in shard] == drafts
    for shard in cut:
        assert shard
        assert sum(len(each.chosen) for each in shard[:-1]) < MOST_FRAMES  # the last case may pass it


def test_shards_begin_small_and_grow_and_are_not_drawn_ahead() -> None:
    drawn: list[int] = []

    def coming() -> Iterator[Draft]:
        for n in range(100_000):
            drawn.append(n)
            yield draft(n, 4)

    cut = shards(coming(), 2)
    sizes = [sum(len(each.chosen) for each in next(cut)) for _ in range(100)]
    assert sizes[0] == FIRST_FRAMES and sizes[-1] == MOST_FRAMES and sizes == sorted(sizes)
    assert len(drawn) == sum(sizes) // 4


def test_what_goes_out_tells_nothing_of_the_patient_and_what_comes_back_is_whole(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    folder = tmp_path / "in"
    write_pictures(folder / "pictures", 3)
    series = write_series(folder, 6, seed=4, patient="CANARY^PATIENT")
    table = tmp_path / "labels.csv"
    table.write_text("path,patient_id,finding,report\n000.png,CANARY-1,CANARY-2,CANARY-3\n")
    with open_gallery(tmp_path / "home") as gallery:
        drafts = drafts_of(gallery, sandbox, folder, LabelTable.read(table))
        assert len(drafts) == 4
        series[2].write_bytes(series[2].read_bytes()[:-100])  # damaged since it was scanned
        sent = [stripped(each) for each in drafts]
        assert b"CANARY" in pickle.dumps(drafts) and b"CANARY" not in pickle.dumps(sent)
        here = list(Embedder(sandbox, gallery.encoder, gallery.pooling).run(drafts))
        there = [
            restored(whole, pickle.loads(pickle.dumps(case)))
            for whole, case in zip(drafts, Embedder(sandbox, gallery.encoder, gallery.pooling).run(sent), strict=True)
        ]
    assert sum(bool(case.failed) for case in here) == 1
    for ours, theirs in zip(here, there, strict=True):
        assert ours.embedded is not None and theirs.embedded is not None
        assert theirs.embedded.case == ours.embedded.case and theirs.draft.case == ours.draft.case
        assert theirs.embedded.files == ours.embedded.files and theirs.embedded.thumbnail == ours.embedded.thumbnail
        assert np.array_equal(theirs.embedded.embedding.vector, ours.embedded.embedding.vector)
        assert np.array_equal(theirs.embedded.embedding.slices, ours.embedded.embedding.slices)
        assert theirs.failed == ours.failed
        assert (theirs.draft.facts, theirs.draft.reported) == (ours.draft.facts, ours.draft.reported)


@given(st.data())
def test_the_board_gives_cases_in_order_whatever_is_answered_first(data: st.DataObject) -> None:
    board, counter, given_out = Board(), iter(range(1000)), []
    under_way = []
    for size in data.draw(st.lists(st.integers(1, 4), max_size=8)):
        slot = board.add(tuple(draft(next(counter)) for _ in range(size)))
        assert slot is not None
        under_way.append(slot)
    while under_way:
        slot = under_way.pop(data.draw(st.integers(0, len(under_way) - 1)))
        if len(slot.drafts) > 1 and data.draw(st.booleans()):
            under_way += board.split(slot)
        else:
            board.settle(slot, tuple(Finished(each, None) for each in slot.drafts))
        assert all(slot in under_way for slot in board.unsettled())
        given_out += [case.draft.case.case_id for case in board.ready()]
    assert given_out == [f"{n:016d}" for n in range(next(counter))] and len(board) == 0


def test_a_tray_numbers_shards_and_lets_each_be_begun_only_so_often() -> None:
    async def scenario() -> None:
        tray = Tray()
        later = asyncio.ensure_future(tray.comes(1))
        assert await tray.put(b"a") == 0
        await asyncio.sleep(0)
        assert await tray.comes(0) and not later.done()
        assert await tray.put(b"b") == 1
        assert await later
        assert [await tray.begin(0) for _ in range(MOST_BEGUN + 1)] == [b"a"] * MOST_BEGUN + [None]
        await tray.done(1)
        assert await tray.begin(1) is None and await tray.comes(1)  # drawn anew after a loss, the numbers are the same
        end = asyncio.ensure_future(tray.comes(2))
        await tray.close()
        assert not await end

    asyncio.run(scenario())


def test_a_shard_no_actor_survives_is_refused_with_a_reason(tmp_path: Path, sandbox: Sandbox) -> None:
    write_series(tmp_path / "in", 3, seed=1)
    with open_gallery(tmp_path / "home") as gallery:
        drafts = tuple(drafts_of(gallery, sandbox, tmp_path / "in"))
    (refused,) = withdrawn(drafts)
    assert refused.embedded is None and len(refused.failed) == 3
    assert all(each.stage == "embed" and "memory" in each.reason and len(each.sha256) == 64 for each in refused.failed)


def test_files_that_a_node_lacks_or_has_otherwise_fail_with_its_name(tmp_path: Path, sandbox: Sandbox) -> None:
    pictures = write_pictures(tmp_path / "in", 3)
    series = write_series(tmp_path / "in", 4, seed=2)
    with open_gallery(tmp_path / "home") as gallery:
        drafts = drafts_of(gallery, sandbox, tmp_path / "in")
        work = Work.of(gallery, cpus=1)
    assert not any(unlike(each) for each in drafts)
    pictures[0].unlink()
    pictures[1].write_bytes(pictures[1].read_bytes() + b"\0")
    series[0].unlink()
    embed = ShardEmbedder(work)
    try:
        found = list(embed(tuple(stripped(each) for each in drafts)))
    finally:
        embed.close()
    assert [case.draft.case.case_id for case in found] == [each.case.case_id for each in drafts]
    failed = {rejection.source.path: rejection for case in found for rejection in case.failed}
    assert set(failed) == {*pictures[:2], *series}  # not a part of a series
    assert "under the same path" in failed[pictures[0]].reason and "bytes" in failed[pictures[1]].reason
    assert "Another file of its case" in failed[series[1]].reason
    assert all(isinstance(each, Rejection) and "Ray node" in each.reason for each in failed.values())
    assert sum(case.embedded is not None for case in found) == 1


def test_another_encoder_is_refused_and_both_are_named(tmp_path: Path) -> None:
    with open_gallery(tmp_path / "home") as gallery:
        work = Work.of(gallery, cpus=1)
    assert encoder_for(work).card == gallery.encoder.card
    with pytest.raises(FingerprintMismatch, match=rf"another-mean-256.*{gallery.fingerprint}.*Ray node"):
        encoder_for(replace(work, fingerprint="another-mean-256"))


def test_the_work_of_an_actor_knows_neither_key_nor_database(tmp_path: Path) -> None:
    with open_gallery(tmp_path / "home") as gallery:
        known = pickle.dumps(Work.of(gallery, cpus=1))
        assert gallery.secret.key not in known and b"catalog.sqlite3" not in known


@pytest.mark.parametrize(
    ("nodes", "asked", "pool"),
    [
        ([Node("a", 16, 2), Node("b", 16, 2)], None, Pool(4, 8, 1.0)),  # one per GPU
        ([Node("a", 64), Node("b", 8, 1)], None, Pool(1, 8, 1.0)),  # a head without GPU takes no part
        ([Node("a", 16, 2)], 4, Pool(4, 4, 0.5)),  # GPUs shared
        ([Node("a", 16, 2)], 3, Pool(3, 4, 0.5)),
        ([Node("a", 16, 2)], 1, Pool(1, 8, 1.0)),
        ([Node("a", 16), Node("b", 8)], None, Pool(6, 4)),
        ([Node("a", 2)], None, Pool(1, 2)),
        ([Node("a", 1), Node("b", 1)], None, Pool(2, 1)),
        ([Node("a", 0), Node("b", 4)], None, Pool(1, 4)),  # a head that offers no CPU
        ([Node("a", 8)], 6, Pool(6, 1)),
    ],
)
def test_a_pool_fits_its_cluster(nodes: list[Node], asked: int | None, pool: Pool) -> None:
    assert pool_of(nodes, asked) == pool


@pytest.mark.parametrize(("nodes", "asked"), [([Node("a", 0)], None), ([], None), ([Node("a", 2)], 3)])
def test_no_room_is_told(nodes: list[Node], asked: int | None) -> None:
    with pytest.raises(UsageError, match="one CPU at least"):
        pool_of(nodes, asked)


def test_attributes_that_a_shard_keeps() -> None:
    case = replace(draft(1).case, attributes=Attributes("CT", "CHEST", age=50.0), report="x", patient_key="k")
    assert stripped(replace(draft(1), case=case)).case.attributes == Attributes("CT")
