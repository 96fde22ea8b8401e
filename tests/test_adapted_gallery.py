"""A gallery searched through a metric head, against NumPy: writes, rollback, verify, damage, other processes."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from indexer.rebuild import rebuild, rollback
from retrieval import Gallery, revisions
from retrieval.adaptation import use
from retrieval.adapters.head import MetricHead
from retrieval.database import Database
from retrieval.errors import ConflictError, FingerprintMismatch, StoreError, UsageError
from retrieval.generations import generations_folder, publishing
from retrieval.late import max_similarity
from retrieval.types import Image, Query, UnitRows
from retrieval.verify import verify
from tests.adapter_cases import DIM, cases_of, hidden_label, open_small, random_head

COUNT = 60
HEADS = {"a": 1, "b": 2}


def filled(gallery: Gallery, count: int = COUNT, slices: int = 1) -> UnitRows:
    """Cases on file and two heads that nobody uses yet; the stored vectors in key order."""
    rows, values = hidden_label(count)
    gallery.add(cases_of(rows, values, slices=slices))
    for name, seed in HEADS.items():
        gallery.catalog.save_adapter(name, random_head(gallery.fingerprint, seed), "finding", "{}")
    return rows


def head_of(gallery: Gallery, name: str) -> MetricHead:
    return random_head(gallery.fingerprint, HEADS[name])


def assert_answers(gallery: Gallery, rows: UnitRows, head: MetricHead | None, n: int = 7, k: int = 20) -> None:
    """The neighbours of case n, its patient's aside, are those of brute force in the head's space."""
    placed = rows if head is None else head.apply(rows)
    result = gallery.similar_to(f"case-{n:05d}", k=k)
    assert result.fingerprint == (gallery.fingerprint if head is None else head.fingerprint)
    ranked = [m for m in np.argsort(-(placed @ placed[n]), kind="stable").tolist() if m // 2 != n // 2]
    best: list[int] = []
    for m in ranked:
        if m // 2 not in {other // 2 for other in best}:
            best.append(m)
    assert [int(hit.case.case_id[5:]) for hit in result.hits] == best[:k]
    assert np.allclose([hit.similarity for hit in result.hits], (placed @ placed[n])[best[:k]], atol=1e-5)


@pytest.fixture
def gallery(database_url: str, tmp_path: Path) -> Iterator[Gallery]:
    with open_small(tmp_path, database_url) as opened:
        yield opened


def test_searches_follow_the_head_through_writes_and_deletes(gallery: Gallery, tmp_path: Path) -> None:
    rows = filled(gallery)
    assert_answers(gallery, rows, None)
    use(gallery, "a")
    assert_answers(gallery, rows, head_of(gallery, "a"))
    more, values = hidden_label(20, seed=9)
    gallery.add(cases_of(more, values, first=COUNT))
    rows = np.concatenate([rows, more])
    assert_answers(gallery, rows, head_of(gallery, "a"), n=COUNT + 3)  # in the delta
    assert gallery.state().delta == 20
    gallery.catalog.update("case-00007", report="seen again")
    assert_answers(gallery, rows, head_of(gallery, "a"))
    gone = [f"case-{n:05d}" for n in (10, 11, COUNT + 4, COUNT + 5)]
    gallery.delete(gone)
    assert not {hit.case.case_id for hit in gallery.similar_to("case-00007", k=80).hits} & set(gone)
    rebuild(gallery)  # keeps the head
    assert (gallery.state().adapter, gallery.state().delta) == ("a", 0)
    assert verify(gallery.catalog, tmp_path).ok
    with Gallery.open(gallery.settings, encoder=gallery.encoder) as other:
        assert other.state() == gallery.state()


def test_rollback_brings_the_head_of_its_generation_back(gallery: Gallery, tmp_path: Path) -> None:
    rows = filled(gallery)
    rebuild(gallery)
    use(gallery, "a")
    use(gallery, "b")
    assert_answers(gallery, rows, head_of(gallery, "b"))
    more, values = hidden_label(6, seed=3)
    gallery.add(cases_of(more, values, first=COUNT))
    rollback(gallery)
    rows = np.concatenate([rows, more])
    assert_answers(gallery, rows, head_of(gallery, "a"), n=COUNT + 1)
    use(gallery, "none")
    assert_answers(gallery, rows, None, n=COUNT + 1)
    rollback(gallery)
    assert gallery.state().adapter == "a"
    assert verify(gallery.catalog, tmp_path).ok


def test_rollback_to_the_vectors_as_they_are(gallery: Gallery) -> None:
    rows = filled(gallery)
    rebuild(gallery)
    use(gallery, "a")
    rollback(gallery)
    assert gallery.state().adapter == "" and gallery.state().fingerprint == gallery.fingerprint
    assert_answers(gallery, rows, None)


def test_another_process_follows_at_its_next_search(gallery: Gallery) -> None:
    rows = filled(gallery)
    with Gallery.open(gallery.settings, encoder=gallery.encoder) as other:
        assert_answers(other, rows, None)
        for name in ("a", "b", "none", "b"):
            use(gallery, name)
            assert_answers(other, rows, None if name == "none" else head_of(gallery, name))


def test_slices_meet_in_the_same_space(tmp_path: Path) -> None:
    with open_small(tmp_path) as gallery:
        filled(gallery, slices=4)
        use(gallery, "a")
        head = head_of(gallery, "a")
        key, asked = gallery.catalog.embedding("case-00007")
        own = head.apply(asked.slices)
        result = gallery.similar_to("case-00007", k=5, rerank=True)
        for hit in result.hits:
            theirs = head.apply(gallery.catalog.slices(np.array([hit.case.key]))[hit.case.key][0])
            assert hit.similarity == pytest.approx(max_similarity(own, theirs), abs=1e-6)
            best = hit.matches[0]
            assert best.similarity == pytest.approx(float((own @ theirs.T).max()), abs=1e-6)
        assert key == 8


def test_a_head_may_change_the_number_of_dimensions(tmp_path: Path) -> None:
    with open_small(tmp_path, index="faiss:SQfp16") as gallery:
        rows = filled(gallery)
        head = random_head(gallery.fingerprint, 5, dim_out=9)
        gallery.catalog.save_adapter("narrow", head, "finding", "{}")
        use(gallery, "narrow")
        assert gallery.state().dim == 9
        assert [row.backend for row in gallery.catalog.generations() if row.state == "live"] == ["faiss:SQfp16"]
        assert_answers(gallery, rows, head, k=5)
        assert verify(gallery.catalog, tmp_path).ok


def test_a_query_by_image_goes_through_the_head(tmp_path: Path) -> None:
    with open_small(tmp_path) as gallery:
        rows = filled(gallery)
        use(gallery, "a")
        image = Image(np.random.default_rng(0).uniform(0, 1, (8, 8)).astype(np.float32))
        placed, head = gallery.embed([image]).vector, head_of(gallery, "a")
        hit = gallery.search(Query(gallery.embed([image])), k=1).hits[0]
        similarities = head.apply(rows) @ head.apply(placed[None, :])[0]
        assert int(hit.case.case_id[5:]) == int(similarities.argmax())
        assert hit.similarity == pytest.approx(float(similarities.max()), abs=1e-5)


def test_a_sentence_has_no_place_in_an_adapted_gallery(tmp_path: Path) -> None:
    with open_small(tmp_path) as gallery:
        rows = filled(gallery)
        sentence = Query(gallery.embed([Image(np.ones((8, 8), np.float32))]), text_weight=1.0)
        beside = Query(gallery.query_of("case-00000").embedding, text=rows[0], text_weight=0.5)
        use(gallery, "a")
        for query in (sentence, beside):
            with pytest.raises(UsageError, match=r"learned on images.*adapt --use none"):
                gallery.search(query)


def test_percentiles_are_of_pairs_in_the_same_space(tmp_path: Path) -> None:
    with open_small(tmp_path) as gallery:
        rows = filled(gallery)
        before = gallery.similar_to("case-00007").hits[0].percentile
        use(gallery, "a")
        placed = head_of(gallery, "a").apply(rows)
        pairs = (placed @ placed.T)[np.triu_indices(COUNT, 1)]
        hit = gallery.similar_to("case-00007").hits[0]
        assert hit.percentile == pytest.approx(100 * np.mean(pairs < hit.similarity), abs=0.2)
        use(gallery, "none")
        assert gallery.similar_to("case-00007").hits[0].percentile == before


def test_heads_and_generations_of_others_are_refused(gallery: Gallery, tmp_path: Path) -> None:
    rows = filled(gallery)
    with pytest.raises(FingerprintMismatch, match="other-000000000001"):
        gallery.catalog.save_adapter("foreign", random_head("other-000000000001", 1), "finding", "{}")
    use(gallery, "a")
    with (
        gallery.catalog.database.write() as connection
    ):  # the row of a generation names another head than it was built with
        connection.exec_driver_sql(
            "UPDATE generations SET adapter_id = (SELECT id FROM adapters WHERE name = 'b') "
            "WHERE id = (SELECT generation_id FROM gallery)"
        )
    state = gallery.state()
    assert state.adapter == "b" and state.damaged
    for name in ("a", "b"):
        assert head_of(gallery, name).fingerprint in state.damaged
    assert_answers(gallery, rows, head_of(gallery, "b"))  # from SQL, through the head that the row names
    assert [check.name for check in verify(gallery.catalog, tmp_path).findings] == ["generation-foreign"]
    report = verify(gallery.catalog, tmp_path, repair=True)
    assert report.ok and report.repaired
    assert gallery.state().adapter == "b" and not gallery.state().damaged


def test_a_vector_that_did_not_go_through_the_head_is_found(tmp_path: Path) -> None:
    with open_small(tmp_path) as gallery:
        rows = filled(gallery)
        use(gallery, "a")
        assert verify(gallery.catalog, tmp_path).ok
        other = np.roll(rows[3], 1)
        with closing(sqlite3.connect(tmp_path / "catalog.sqlite3")) as raw, raw:
            raw.execute("UPDATE embeddings SET vector = ? WHERE key = 4", (other.astype("<f4").tobytes(),))
        assert {check.name: check.count for check in verify(gallery.catalog, tmp_path).findings} == {"index-wrong": 1}
        assert verify(gallery.catalog, tmp_path, repair=True).ok


def test_a_lost_vector_is_not_taken_from_an_adapted_index(tmp_path: Path) -> None:
    with open_small(tmp_path) as gallery:
        rows = filled(gallery, slices=3)
        use(gallery, "a")
        with closing(sqlite3.connect(tmp_path / "catalog.sqlite3")) as raw, raw:
            raw.execute("DELETE FROM embeddings WHERE key = 4")
        assert verify(gallery.catalog, tmp_path, repair=True).ok
        _, back = gallery.catalog.embedding("case-00003")
        assert float(back.vector @ rows[3]) > 0.97  # pooled anew from its slices: the encoder's space, not the head's
        assert gallery.state().adapter == "a"


def test_a_damaged_head_is_told_and_left_by_repair(tmp_path: Path) -> None:
    with open_small(tmp_path) as gallery:
        rows = filled(gallery)
        use(gallery, "a")
    with closing(sqlite3.connect(tmp_path / "catalog.sqlite3")) as raw, raw:
        data = raw.execute("SELECT head FROM adapters WHERE name = 'a'").fetchone()[0]
        raw.execute("UPDATE adapters SET head = ? WHERE name = 'a'", (data[:-1] + bytes([data[-1] ^ 1]),))
    with open_small(tmp_path) as gallery:
        with pytest.raises(StoreError, match=r"adapter 'a' can't be used.*--use none"):
            gallery.similar_to("case-00007")
        found = {check.name: check for check in verify(gallery.catalog, tmp_path).findings}
        assert set(found) == {"adapter-damaged"} and "(a)" in found["adapter-damaged"].sentence
        assert verify(gallery.catalog, tmp_path, repair=True).ok
        assert_answers(gallery, rows, None)
        assert [row.name for row in gallery.catalog.adapters()] == ["b"]


def test_while_another_process_publishes_it_says_what_to_do_later(tmp_path: Path) -> None:
    with open_small(tmp_path) as gallery:
        rows = filled(gallery)
        with (
            publishing(generations_folder(tmp_path)),
            pytest.raises(ConflictError, match=r"Then run precedent adapt --use a"),
        ):
            use(gallery, "a")
        assert_answers(gallery, rows, None)


FLIPPER = """
import sys
from pathlib import Path
from retrieval.adaptation import use
from tests.adapter_cases import open_small, random_head
gallery = open_small(Path(sys.argv[1]))
print("ready", flush=True)
n = 0
while True:
    head = random_head(gallery.fingerprint, 100 + n)
    name = gallery.catalog.save_adapter(f"r{n}", head, "finding", "{}")
    use(gallery, name)
    use(gallery, "none" if n % 3 == 0 else "a")
    n = (n + 1) % 50
    print(name, flush=True)
"""


def flipping(home: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", FLIPPER, str(home)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def known_heads(gallery: Gallery) -> dict[str, MetricHead | None]:
    heads = {row.sha256: gallery.catalog.head(row.sha256) for row in gallery.catalog.adapters()}
    return {gallery.fingerprint: None} | {head.fingerprint: head for head in heads.values()}


def test_no_answer_mixes_two_spaces_while_another_process_flips(tmp_path: Path) -> None:
    with open_small(tmp_path) as gallery:
        rows = filled(gallery)
        process = flipping(tmp_path)
        try:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            seen: set[str] = set()
            for turn in range(400):
                fingerprint = gallery.similar_to("case-00007", k=1).fingerprint
                seen.add(fingerprint)
                result = gallery.similar_to(f"case-{turn % COUNT:05d}", k=5)
                head = known_heads(gallery)[result.fingerprint]
                placed = rows if head is None else head.apply(rows)
                for hit in result.hits:
                    exact = float(placed[turn % COUNT] @ placed[int(hit.case.case_id[5:])])
                    assert hit.similarity == pytest.approx(exact, abs=1e-5)
                if turn > 30 and len(seen) > 4:
                    break
            assert len(seen) > 4
        finally:
            process.kill()
            process.wait()
            process.stdout.close() if process.stdout else None


def test_killed_at_any_moment_it_is_before_or_after(tmp_path: Path) -> None:
    chance = random.Random(4)
    with open_small(tmp_path) as gallery:
        rows = filled(gallery)
    for _ in range(8):
        process = flipping(tmp_path)
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.0, 0.25))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        with open_small(tmp_path) as gallery:
            report = verify(gallery.catalog, tmp_path)
            assert {check.name for check in report.findings} <= {"foreign-files"}, report.findings  # a dead builder's
            fingerprint = gallery.state().fingerprint
            assert not gallery.state().damaged
            assert_answers(gallery, rows, known_heads(gallery)[fingerprint])
    with open_small(tmp_path) as gallery:
        use(gallery, "b")
        assert verify(gallery.catalog, tmp_path, repair=True).ok
        assert_answers(gallery, rows, head_of(gallery, "b"))
        assert gallery.state().dim == DIM


def test_a_downgrade_leaves_the_stored_vectors_searchable(database_url: str, tmp_path: Path) -> None:
    with open_small(tmp_path, database_url) as gallery:
        rows = filled(gallery)
        rebuild(gallery)
        use(gallery, "a")
        stored = [row.tobytes() for _, batch in gallery.catalog.vectors(0) for row in batch]
    database = Database(database_url)
    revisions.downgrade(database, "0001")
    with database.read() as connection:
        assert revisions.revision(connection) == "0001"
        assert connection.exec_driver_sql("SELECT count(*) FROM generations").scalar() == 1  # that of the encoder
        assert connection.exec_driver_sql("SELECT generation_id FROM gallery").scalar() is None
    database.close()
    with open_small(tmp_path, database_url) as gallery:  # upgraded again
        assert [row.tobytes() for _, batch in gallery.catalog.vectors(0) for row in batch] == stored
        assert gallery.catalog.adapters() == [] and gallery.state().adapter == ""
        assert_answers(gallery, rows, None)
