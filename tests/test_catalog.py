"""The catalog's contract, on SQLite and PostgreSQL alike."""

from __future__ import annotations

import dataclasses
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from retrieval.catalog import Binding, Catalog, Outcome
from retrieval.errors import (
    ConflictError,
    FingerprintMismatch,
    NotFoundError,
    StorageFull,
    StoreError,
    UsageError,
)
from retrieval.filters import Equals
from retrieval.heads import Heads
from retrieval.types import Attributes, CaseFile, CaseKind, EmbeddedCase, Embedding, GroupBy, Label
from tests.databases import BINDING, DIM, FINGERPRINT, embedded, unit_rows


def commit(catalog: Catalog, *cases: EmbeddedCase, replace: bool = False) -> list[Outcome]:
    return catalog.commit(cases, fingerprint=FINGERPRINT, replace=replace)


def replayed(catalog: Catalog, after: int = 0) -> list[int]:
    return [int(key) for keys, _ in catalog.vectors(after, batch=3) for key in keys]


# what goes in comes out


def test_a_case_comes_back_whole(catalog: Catalog) -> None:
    given = embedded(
        "chest",
        kind=CaseKind.VOLUME,
        attributes=Attributes("CT", "CHEST", "AP", "L", "F", 63.25, "Müller & Söhne", 2021, "site A"),
        labels=(Label("finding", "nodule"), Label("finding", "effusion"), Label("volume_ml", "3.5", 3.5)),
        report="Ein Rundherd rechts. 右肺结节。",
        patient_key="p1",
        study_uid="2.25.1",
        files=("one", "two"),
        slices=5,
    )
    (outcome,) = commit(catalog, given)
    assert outcome == Outcome("chest", "added", 1)
    case = catalog.case("chest")
    assert case.created_at
    assert dataclasses.replace(case, key=0, created_at="") == given.case
    assert catalog.files("chest") == given.files
    assert catalog.thumbnail("chest") == given.thumbnail
    key, embedding = catalog.embedding("chest")
    assert key == 1
    assert np.array_equal(embedding.vector, given.embedding.vector)
    assert np.allclose(embedding.slices, given.embedding.slices, atol=1e-3)
    assert np.allclose(np.linalg.norm(embedding.slices, axis=1), 1, atol=1e-6)
    assert embedding.slice_frames == given.embedding.slice_frames
    assert catalog.cases(np.array([7, 1])) == {1: case}
    rows, frames = catalog.slices(np.array([1, 7]))[1]
    assert np.array_equal(rows, embedding.slices)
    assert frames == (0, 1, 2, 3, 4)


def test_what_no_database_holds_is_cleaned_or_unknown(catalog: Catalog) -> None:
    commit(
        catalog,
        embedded(
            "odd",
            attributes=Attributes(manufacturer="A\x00B\udcff", age=float("nan"), study_year=10**12),
            labels=(Label("f", "x\x00", float("inf")), Label("f", "x")),
            report="\ud800",
        ),
    )
    case = catalog.case("odd")
    assert case.attributes == Attributes(manufacturer="AB?")
    assert case.labels == (Label("f", "x"),)
    assert case.report == "?"


def test_a_label_may_be_long(catalog: Catalog) -> None:
    caption = "".join(chr(0x4E00 + n % 5000) for n in range(20_000))
    commit(catalog, embedded("a", labels=(Label("caption", caption),)))
    assert catalog.case("a").labels == (Label("caption", caption),)
    assert catalog.select(Equals("label.caption", caption)).tolist() == [1]
    assert catalog.select(Equals("label.caption", caption[:-1])).tolist() == []


def test_what_is_not_there_is_told(catalog: Catalog) -> None:
    for read in (catalog.case, catalog.embedding, catalog.thumbnail, catalog.files):
        with pytest.raises(NotFoundError, match="No case nobody"):
            read("nobody")
    with pytest.raises(NotFoundError, match="No case nobody"):
        catalog.update("nobody", report="x")
    commit(catalog, dataclasses.replace(embedded("plain"), thumbnail=b""))
    with pytest.raises(NotFoundError, match="No thumbnail for case plain"):
        catalog.thumbnail("plain")


# identity


def test_the_same_again_changes_nothing(catalog: Catalog) -> None:
    commit(catalog, embedded("a"), embedded("b"))
    heads = catalog.heads()
    assert commit(catalog, embedded("b"), embedded("a")) == [Outcome("b", "unchanged", 2), Outcome("a", "unchanged", 1)]
    assert catalog.heads() == heads


def test_new_facts_of_the_same_files_are_taken_over_under_the_same_key(catalog: Catalog) -> None:
    commit(catalog, embedded("a", labels=(Label("f", "x"),), patient_key="p1"))
    new = embedded("a", labels=(Label("f", "y"), Label("g", "1", 1.0)), report="New.", attributes=Attributes(age=5))
    assert commit(catalog, new) == [Outcome("a", "updated", 1)]
    case = catalog.case("a")
    assert (case.labels, case.report, case.attributes) == (new.case.labels, "New.", Attributes(age=5))
    assert case.patient_key == "p1", "a patient id that was not given again must not undo the link"
    assert commit(catalog, new) == [Outcome("a", "unchanged", 1)]
    assert catalog.heads() == Heads(last_key=1, encoder=FINGERPRINT, last_edit=1)


def test_a_series_that_grew_replaces_itself(catalog: Catalog) -> None:
    commit(catalog, embedded("a", files=("1", "2")))
    assert commit(catalog, embedded("a", files=("1", "2", "3"))) == [Outcome("a", "updated", 2)]
    assert catalog.heads() == Heads(last_key=2, last_tombstone=1, encoder=FINGERPRINT)
    assert catalog.known_files(["sha256:1", "sha256:3"]) == {"sha256:1": ["a"], "sha256:3": ["a"]}
    assert replayed(catalog) == [2]


def test_other_content_under_the_same_id_is_a_conflict_unless_replaced(catalog: Catalog) -> None:
    commit(catalog, embedded("a", files=("1", "2")))
    (outcome,) = commit(catalog, embedded("a", files=("1", "9")))
    assert (outcome.status, outcome.key) == ("conflict", 1)
    assert "content:1+2" in outcome.reason
    assert "content:1+9" in outcome.reason
    assert catalog.content_of(["a", "b"]) == {"a": "content:1+2"}
    assert commit(catalog, embedded("a", files=("1", "9")), replace=True) == [Outcome("a", "updated", 2)]
    assert catalog.content_of(["a"]) == {"a": "content:1+9"}


def test_a_case_given_twice_in_one_batch_meets_itself(catalog: Catalog) -> None:
    outcomes = commit(catalog, embedded("a"), embedded("a"), embedded("a", files=("other",)), embedded("b"))
    assert [outcome.status for outcome in outcomes] == ["added", "unchanged", "conflict", "added"]
    assert catalog.count() == 2


def test_the_same_pixels_under_another_id_point_to_the_oldest(catalog: Catalog) -> None:
    commit(catalog, embedded("a", pixels="same"))
    outcomes = commit(catalog, embedded("b", pixels="same"), embedded("c", pixels="same"), embedded("d", pixels=""))
    assert [outcome.duplicate_of for outcome in outcomes] == ["a", "a", ""]
    catalog.delete(["a"])
    assert [catalog.case(name).duplicate_of for name in "bcd"] == ["", "b", ""]
    assert commit(catalog, embedded("e", pixels="same"), embedded("f", pixels=""))[0].duplicate_of == "b"
    assert catalog.case("f").duplicate_of == ""


# what is refused


def test_vectors_of_another_encoder_are_refused(catalog: Catalog) -> None:
    with pytest.raises(FingerprintMismatch, match=f"{FINGERPRINT}.*other-1.*Use the encoder"):
        catalog.commit([embedded("a")], fingerprint="other-1")
    with pytest.raises(FingerprintMismatch, match="other-1"):
        catalog.bind(Binding("other-1", "other", DIM, "mean", "{}"))
    catalog.bind(BINDING)
    assert catalog.binding() == BINDING
    assert catalog.count() == 0


def test_an_unbound_catalog_takes_no_vectors(database_url: str) -> None:
    with Catalog.open(database_url, create=True) as catalog:
        assert catalog.binding() is None
        with pytest.raises(StoreError, match="not bound to an encoder"):
            commit(catalog, embedded("a"))


ROW = unit_rows(1)[0]


@pytest.mark.parametrize(
    ("embedding", "sentence"),
    [
        (Embedding(unit_rows(1, dim=9)[0], unit_rows(1)), "The vector of case bad has 9 numbers, expected 8"),
        (Embedding(ROW * np.nan, unit_rows(1)), "holds NaN or infinity"),
        (Embedding(ROW * np.float32(1.01), unit_rows(1)), "a norm 0.01 away from 1"),
        (Embedding(np.zeros(DIM, np.float32), unit_rows(1)), "a norm 1 away from 1"),
        (Embedding(unit_rows(1), unit_rows(1)), r"shape \(1, 8\), expected \(8,\)"),
        (Embedding(ROW, ROW), r"slices of case bad have shape \(8,\)"),
        (Embedding(ROW, unit_rows(1)[:0]), r"shape \(0, 8\), expected \(n, 8\) with n >= 1"),
        (Embedding(ROW, unit_rows(2) * np.float32(2)), "A slice of case bad has a norm 1 away"),
        (Embedding(ROW, unit_rows(2), (0,)), "2 slices and 1 slice frames"),
    ],
)
def test_a_bad_vector_is_refused_and_nothing_of_its_batch_is_kept(
    catalog: Catalog, embedding: Embedding, sentence: str
) -> None:
    bad = dataclasses.replace(embedded("bad"), embedding=embedding)
    with pytest.raises(UsageError, match=sentence):
        commit(catalog, embedded("good"), bad)
    assert catalog.count() == 0


def test_a_batch_that_fails_in_the_database_leaves_nothing(catalog: Catalog) -> None:
    broken = dataclasses.replace(embedded("broken"), files=(CaseFile("x", None, b""),))  # type: ignore[arg-type]
    with pytest.raises(StoreError, match=r"The database refused the operation \(\w+"):
        commit(catalog, embedded("good"), broken)
    assert catalog.count() == 0
    assert catalog.heads() == Heads(encoder=FINGERPRINT)


# deleting


def test_deleted_means_gone_but_for_the_key(catalog: Catalog) -> None:
    commit(catalog, *(embedded(name, labels=(Label("f", "x"),), report="r") for name in "abc"))
    assert catalog.delete(["c", "nobody", "a", "c"]) == ["c", "a"]
    assert catalog.delete(["a"]) == []
    assert replayed(catalog) == [2]
    seqs, keys = catalog.tombstones(0)
    assert (seqs.tolist(), keys.tolist()) == ([1, 2], [1, 3])
    assert catalog.tombstones(1)[1].tolist() == [3]
    assert catalog.known_files(["sha256:file-of-a", "sha256:file-of-b"]) == {"sha256:file-of-b": ["b"]}
    assert commit(catalog, embedded("a")) == [Outcome("a", "added", 4)]


def test_no_table_keeps_a_row_of_a_deleted_case(catalog: Catalog) -> None:
    commit(catalog, embedded("a", labels=(Label("f", "x"),), report="r", slices=3))
    catalog.delete(["a"])
    with catalog.database.read() as connection:
        sizes = {
            name: connection.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar()
            for name in ("cases", "frames", "embeddings", "slices", "labels", "reports", "files", "thumbnails")
        }
        assert set(sizes.values()) == {0}
        row = connection.exec_driver_sql("SELECT * FROM tombstones").one()
    assert set(row._fields) == {"seq", "key", "at"}


def test_after_compaction_the_bytes_are_in_no_file(tmp_path: Path) -> None:
    secrets = {b"canary-report-4711", b"canary-label-4712", b"canary-sealed-4713"}
    with Catalog.open(f"sqlite:///{tmp_path / 'catalog.sqlite3'}", create=True) as catalog:
        catalog.bind(BINDING)
        case = embedded("a", report="canary-report-4711", labels=(Label("f", "canary-label-4712"),))
        commit(catalog, dataclasses.replace(case, files=(CaseFile("s", 1, b"canary-sealed-4713"),)), embedded("b"))

        def found() -> set[bytes]:
            stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
            return {secret for secret in secrets if secret in stored}

        assert found() == secrets
        catalog.delete(["a"])
        catalog.compact()
        assert found() == set()
        assert catalog.case("b").case_id == "b"


def test_a_patient_is_removed_whole(catalog: Catalog) -> None:
    commit(catalog, *(embedded(name, patient_key=key) for name, key in zip("abcd", ("p", "", "p", "q"), strict=True)))
    assert catalog.keys_of_patient("p").tolist() == [1, 3]
    assert catalog.keys_of_patient("").tolist() == []
    assert catalog.delete_patient("p") == 2
    assert catalog.delete_patient("p") == 0
    assert catalog.delete_patient("") == 0
    assert [case.case_id for case in catalog.list_cases()] == ["b", "d"]


def test_compaction_keeps_everything_else(catalog: Catalog) -> None:
    commit(catalog, *(embedded(name) for name in "abc"))
    catalog.delete(["b"])
    before = catalog.list_cases(), catalog.heads()
    catalog.compact()
    assert (catalog.list_cases(), catalog.heads()) == before
    assert commit(catalog, embedded("d")) == [Outcome("d", "added", 4)]


# reading many


def test_vectors_replay_in_order_between_bounds(catalog: Catalog) -> None:
    cases = [embedded(f"case-{n:02}") for n in range(10)]
    commit(catalog, *cases)
    batches = list(catalog.vectors(2, upto=9, batch=3))
    assert [keys.tolist() for keys, _ in batches] == [[3, 4, 5], [6, 7, 8], [9]]
    rows = np.concatenate([rows for _, rows in batches])
    assert rows.dtype == np.float32
    assert rows.flags.c_contiguous
    assert np.array_equal(rows, np.stack([case.embedding.vector for case in cases[2:9]]))
    assert list(catalog.vectors(10)) == []


def test_a_damaged_vector_is_told(catalog: Catalog) -> None:
    commit(catalog, embedded("a"), embedded("b"))
    with catalog.database.write() as connection:
        connection.exec_driver_sql("UPDATE embeddings SET vector = substr(vector, 1, 31) WHERE key = 2")
    with pytest.raises(StoreError, match="The stored vector of key 2 does not have 8 float32 numbers"):
        list(catalog.vectors(0))


def test_a_sample_is_the_same_for_the_same_content(catalog: Catalog) -> None:
    cases = [embedded(f"case-{n}") for n in range(20)]
    commit(catalog, *cases)
    first = catalog.sample(5)
    assert first.shape == (5, DIM)
    catalog.delete([case.case.case_id for case in cases])
    commit(catalog, *reversed(cases))
    assert np.array_equal(catalog.sample(5), first)
    assert catalog.sample(100).shape == (20, DIM)


def test_pages_groups_and_counts(catalog: Catalog) -> None:
    commit(
        catalog,
        embedded("a", attributes=Attributes(modality="CT"), patient_key="p", study_uid="s", labels=(Label("f", "x"),)),
        embedded("b", attributes=Attributes(modality="CT"), labels=(Label("f", "x"), Label("f", "y"))),
        embedded("c", kind=CaseKind.VOLUME, patient_key="p", labels=(Label("g", "2.5", 2.5),)),
    )
    assert [case.case_id for case in catalog.list_cases(after_key=1, limit=1)] == ["b"]
    keys = np.array([3, 9, 1, 2, 3])
    assert catalog.groups(keys, GroupBy.PATIENT) == ["p", "", "p", "", "p"]
    assert catalog.groups(keys, GroupBy.STUDY) == ["", "", "s", "", ""]
    assert catalog.groups(keys, GroupBy.NONE) == [""] * 5
    counts = catalog.counts()
    assert (counts.total, counts.kinds) == (3, (("image", 2), ("volume", 1)))
    assert counts.modalities == (("CT", 2), ("", 1))
    assert [(label.name, label.cases, label.distinct, label.values) for label in counts.labels] == [
        ("f", 2, 2, (("x", 2), ("y", 1))),
        ("g", 1, 1, (("2.5", 1),)),
    ]
    found = catalog.labelled("f")
    assert found.keys.tolist() == [1, 2]
    assert found[1:] == (["p", ""], [("x",), ("x", "y")], [None, None])
    assert catalog.labelled("g").numbers == [2.5]
    assert catalog.labelled("h").keys.tolist() == []


def test_thousands_of_keys_are_no_trouble(catalog: Catalog) -> None:
    cases = [embedded(f"case-{n}", patient_key=f"p{n % 7}") for n in range(2500)]
    assert [outcome.key for outcome in commit(catalog, *cases)] == list(range(1, 2501))
    keys = catalog.select()
    assert catalog.groups(keys, GroupBy.PATIENT) == [f"p{n % 7}" for n in range(2500)]
    assert list(catalog.cases(keys)) == keys.tolist()
    assert len(catalog.slices(keys)) == 2500
    assert len(catalog.known_files([f"sha256:file-of-case-{n}" for n in range(2500)])) == 2500
    assert len(catalog.delete([f"case-{n}" for n in range(2500)])) == 2500
    assert catalog.tombstones(0)[1].tolist() == keys.tolist()


def test_an_edit_keeps_the_key_and_what_was_not_named(catalog: Catalog) -> None:
    commit(catalog, embedded("a", labels=(Label("f", "x"),), report="old", attributes=Attributes(age=1)))
    assert catalog.update("a", report="new").report == "new"
    edited = catalog.update("a", labels=[Label("g", "y")], attributes=Attributes(modality="MR"))
    assert (edited.key, edited.report, edited.labels) == (1, "new", (Label("g", "y"),))
    assert edited.attributes == Attributes(modality="MR")
    assert catalog.update("a", labels=[], report="") == catalog.case("a")
    assert (catalog.case("a").labels, catalog.case("a").report) == ((), "")


def test_vectors_of_a_second_encoder_may_lie_beside_the_first(catalog: Catalog) -> None:
    commit(catalog, embedded("a"))
    with catalog.database.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO encoders (id, fingerprint, encoder, dim, pooling, card_json, created_at) "
            "VALUES (2, 'second', 's', 8, 'mean', '{}', '')"
        )
        connection.exec_driver_sql("INSERT INTO embeddings SELECT key, 2, vector FROM embeddings")
    assert replayed(catalog) == [1]
    catalog.delete(["a"])
    with catalog.database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM embeddings").scalar() == 0


# generations


def test_generations_are_published_rolled_back_and_dropped(catalog: Catalog) -> None:
    def states() -> list[tuple[str, str]]:
        return [(row.name, row.state) for row in catalog.generations()]

    with pytest.raises(NotFoundError, match="no earlier generation"):
        catalog.rollback_generation()
    for n in (1, 2):
        catalog.publish_generation(f"g{n}", f"sha{n}", last_key=n, last_tombstone=0, backend="exact", count=n)
    assert catalog.heads() == Heads(0, 0, "g2", "sha2", encoder=FINGERPRINT)
    back = catalog.rollback_generation()
    assert (back.name, back.state, back.fingerprint, back.count) == ("g1", "live", FINGERPRINT, 1)
    assert states() == [("g1", "live"), ("g2", "rolled_back")]
    catalog.publish_generation("g3", "sha3", last_key=3, last_tombstone=0, backend="exact", count=3)
    assert catalog.rollback_generation().name == "g1", "not the one that was rolled back from"
    with pytest.raises(ConflictError, match="Generation g1 is live"):
        catalog.drop_generations(["g2", "g1"])
    catalog.drop_generations(["g2", "g3", "unknown"])
    assert states() == [("g1", "live")]
    with pytest.raises(ConflictError, match="There is a generation g1 already"):
        catalog.publish_generation("g1", "sha9", last_key=3, last_tombstone=0, backend="exact", count=3)


# the disk and the lock


def test_sqlite_is_set_to_survive_a_power_cut(tmp_path: Path) -> None:
    names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "secure_delete", "page_size")
    url = f"sqlite:///{tmp_path / 'catalog.sqlite3'}"
    with Catalog.open(url, create=True) as catalog, catalog.database.read() as connection:
        pragmas = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names}
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 30000,
        "secure_delete": 1,
        "page_size": 16384,
    }


def test_a_full_database_is_told_and_what_was_there_stays(tmp_path: Path) -> None:
    with Catalog.open(f"sqlite:///{tmp_path / 'catalog.sqlite3'}", create=True) as catalog:
        catalog.bind(BINDING)
        commit(catalog, embedded("a"))
        with catalog.database.engine.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")  # this connection is the one the pool gives
        with pytest.raises(StorageFull, match="No space is left"):
            commit(catalog, *(embedded(f"case-{n}", slices=50) for n in range(200)))
        assert [case.case_id for case in catalog.list_cases()] == ["a"]


def test_a_reader_is_not_held_up_by_a_writer(catalog: Catalog) -> None:
    commit(catalog, embedded("a"))
    with catalog.database.write() as connection:
        connection.exec_driver_sql("UPDATE cases SET modality = 'XX'")
        assert catalog.case("a").attributes.modality == ""
    assert catalog.case("a").attributes.modality == "XX"


def test_a_store_that_is_busy_is_told(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite3"
    with Catalog.open(f"sqlite:///{path}", create=True) as catalog:
        with catalog.database.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout = 1")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="another process is writing"):
                catalog.bind(BINDING)
            other.execute("ROLLBACK")
        catalog.bind(BINDING)


def test_a_name_too_long_for_an_index_is_refused(catalog: Catalog) -> None:
    one = embedded("long")
    long = dataclasses.replace(one, case=dataclasses.replace(one.case, labels=(Label("n" * 201, "v"),)))
    with pytest.raises(UsageError, match="201 characters"):
        commit(catalog, embedded("good"), long)
    assert catalog.count() == 0
