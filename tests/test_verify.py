"""Every mismatch that can be planted is found by its name, and a repair leaves none."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import insert, update

from retrieval.catalog import Binding, Catalog
from retrieval.errors import ConflictError
from retrieval.generations import generations_folder, publishing, write
from retrieval.indexes import index_type
from retrieval.live import LiveIndex
from retrieval.manifest import MANIFEST_FILE, Facts
from retrieval.publish import publish
from retrieval.schema import embeddings, slices, tombstones
from retrieval.types import Keys, UnitRows
from retrieval.verify import verify
from tests.vector_cases import DIM, FINGERPRINT, commit_vectors, open_catalog, unit_rows

COUNT = 400
Change = Callable[[Keys, UnitRows, Facts], tuple[Keys, UnitRows, Facts]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def catalog(home: Path) -> Iterator[Catalog]:
    """400 cases, five of them deleted before the publication and five after it, twenty more since."""
    with open_catalog(home) as catalog:
        commit_vectors(catalog, unit_rows(COUNT))
        catalog.delete([f"{n:016d}" for n in range(1, 6)])
        publish(catalog, home, "exact")
        publish(catalog, home, "faiss")
        catalog.delete([f"{n:016d}" for n in range(11, 16)])
        commit_vectors(catalog, unit_rows(20, 1), first=COUNT + 1)
        yield catalog


def sql(home: Path, statement: str, *values: object) -> None:
    """Behind the catalog's back: foreign keys are off."""
    with closing(sqlite3.connect(home / "catalog.sqlite3")) as database, database:
        database.execute(statement, values)


def plant(catalog: Catalog, home: Path, change: Change) -> None:
    """Publish an index that is wrong but whose hashes are right."""
    heads, root = catalog.heads(), generations_folder(home)
    pieces = list(catalog.vectors(0))
    keys, vectors = np.concatenate([piece[0] for piece in pieces]), np.concatenate([piece[1] for piece in pieces])
    facts = Facts("exact", "", DIM, FINGERPRINT, len(keys), heads.last_key, heads.last_tombstone)
    keys, vectors, facts = change(keys, vectors.copy(), facts)

    def fill(directory: Path) -> Facts:
        index_type("exact").build(directory, [(keys, vectors)], vectors.shape[1])
        return replace(facts, count=len(keys))

    with publishing(root):
        manifest = write(root, fill)
        catalog.publish_generation(
            manifest.name, manifest.sha256, facts.last_key, facts.last_tombstone, "exact", len(keys)
        )


def live_directory(catalog: Catalog, home: Path) -> Path:
    return generations_folder(home) / catalog.heads().generation


def findings(catalog: Catalog, home: Path) -> dict[str, int]:
    return {check.name: check.count for check in verify(catalog, home).findings}


def assert_repaired(catalog: Catalog, home: Path, cases: int) -> None:
    report = verify(catalog, home, repair=True)
    assert report.repaired
    assert report.ok, report.findings
    assert report.vectors == cases == catalog.count()
    live = LiveIndex(catalog, home, DIM, FINGERPRINT)
    live.refresh()
    assert (live.damaged, len(live)) == ("", cases)


def test_a_sound_gallery_has_no_findings(catalog: Catalog, home: Path) -> None:
    report = verify(catalog, home)
    assert report.ok, report.findings
    assert report.vectors == COUNT + 10
    assert len({check.name for check in report.checks}) == len(report.checks) == 18
    before = sorted(path.name for path in generations_folder(home).iterdir())
    assert verify(catalog, home, repair=True) == report
    assert sorted(path.name for path in generations_folder(home).iterdir()) == before


def test_an_empty_gallery_has_no_findings(home: Path) -> None:
    with Catalog.open(f"sqlite:///{home / 'catalog.sqlite3'}", create=True) as catalog:
        assert verify(catalog, home).ok


def _wrong(keys: Keys, vectors: UnitRows, facts: Facts) -> tuple[Keys, UnitRows, Facts]:
    vectors[7] = unit_rows(1, 99)[0]
    return keys, vectors, facts


def _swapped(keys: Keys, vectors: UnitRows, facts: Facts) -> tuple[Keys, UnitRows, Facts]:
    vectors[[3, 4]] = vectors[[4, 3]]
    return keys, vectors, facts


def _last_bit(keys: Keys, vectors: UnitRows, facts: Facts) -> tuple[Keys, UnitRows, Facts]:
    vectors[5, 5] = np.nextafter(vectors[5, 5], np.float32(1))
    return keys, vectors, facts


def _missing(keys: Keys, vectors: UnitRows, facts: Facts) -> tuple[Keys, UnitRows, Facts]:
    return np.delete(keys, [2, 50]), np.delete(vectors, [2, 50], axis=0), facts


def _extra(keys: Keys, vectors: UnitRows, facts: Facts) -> tuple[Keys, UnitRows, Facts]:
    """A deleted vector that no tombstone will take out again."""
    return np.append(3, keys), np.concatenate([unit_rows(1, 9), vectors]), facts


def _other_encoder(keys: Keys, vectors: UnitRows, facts: Facts) -> tuple[Keys, UnitRows, Facts]:
    return keys, vectors, replace(facts, fingerprint="classical-ffffffffffff")


def _other_dim(keys: Keys, vectors: UnitRows, facts: Facts) -> tuple[Keys, UnitRows, Facts]:
    return keys, unit_rows(len(keys), dim=DIM + 2), replace(facts, dim=DIM + 2)


def _from_the_future(keys: Keys, vectors: UnitRows, facts: Facts) -> tuple[Keys, UnitRows, Facts]:
    return keys, vectors, replace(facts, last_key=facts.last_key + 5)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (_wrong, {"index-wrong": 1}),
        (_swapped, {"index-wrong": 2}),
        (_last_bit, {"index-wrong": 1}),
        (_missing, {"index-missing": 2}),
        (_extra, {"index-extra": 1}),
        (_other_encoder, {"generation-foreign": 1}),
        (_other_dim, {"generation-foreign": 1}),
        (_from_the_future, {"generation-stale": 1}),
    ],
)
def test_an_index_that_disagrees_with_sql(catalog: Catalog, home: Path, change: Change, found: dict[str, int]) -> None:
    plant(catalog, home, change)
    assert findings(catalog, home) == found
    assert_repaired(catalog, home, COUNT + 10)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("file", ["vectors.npy", "keys.npy", "codes.faiss", "faiss.json", MANIFEST_FILE])
@pytest.mark.parametrize("damage", [_flip, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_file_of_the_live_generation(
    catalog: Catalog, home: Path, file: str, damage: Callable[[Path], object]
) -> None:
    damage(live_directory(catalog, home) / file)
    assert findings(catalog, home) == {"generation-damaged": 1}
    assert_repaired(catalog, home, COUNT + 10)


def test_codes_that_do_not_belong_to_the_rows(catalog: Catalog, home: Path) -> None:
    """The rows are right and so are all hashes; only a search can tell."""
    heads, root = catalog.heads(), generations_folder(home)

    def fill(directory: Path) -> Facts:
        other = index_type("faiss").create(DIM, "IVF8,SQ8,nprobe=1")
        keys = np.concatenate([piece[0] for piece in catalog.vectors(0)])
        other.add(keys, unit_rows(len(keys), 77))
        other.save(directory)
        index = index_type("exact").build(directory, catalog.vectors(0), DIM)
        return Facts("faiss", other.options, DIM, FINGERPRINT, len(index), heads.last_key, heads.last_tombstone)

    with publishing(root):
        manifest = write(root, fill)
        catalog.publish_generation(
            manifest.name, manifest.sha256, heads.last_key, heads.last_tombstone, "faiss", manifest.facts.count
        )
    assert list(findings(catalog, home)) == ["index-unfindable"]
    assert_repaired(catalog, home, COUNT + 10)


def test_a_damaged_earlier_generation_and_foreign_files(catalog: Catalog, home: Path) -> None:
    root = generations_folder(home)
    previous = next(row.name for row in catalog.generations() if row.state == "published")
    _flip(root / previous / "vectors.npy")
    (root / "notes.txt").write_text("keep me")
    (root / ".building-0123456789ab").mkdir()
    (root / "g000077-abcdef").mkdir()
    (root / "g000078-abcdef").symlink_to(root / previous)
    assert findings(catalog, home) == {"previous-damaged": 1, "foreign-files": 4}
    live = catalog.heads().generation
    assert_repaired(catalog, home, COUNT + 10)
    assert (home / "quarantine" / "notes.txt").read_text() == "keep me"
    assert sorted(path.name for path in root.iterdir()) == [".lock", live]


UNFIT = {
    "nan": np.full(DIM, np.nan, np.float32).tobytes(),
    "infinite": np.full(DIM, np.inf, np.float32).tobytes(),
    "not unit": (unit_rows(1)[0] * 1.1).tobytes(),
    "short": unit_rows(1)[0].tobytes()[:-4],
    "empty": b"",
}


@pytest.mark.parametrize("kind", UNFIT)
@pytest.mark.parametrize("indexed", [True, False])
def test_a_vector_damaged_in_sql_comes_back(catalog: Catalog, home: Path, kind: str, indexed: bool) -> None:
    key = 20 if indexed else COUNT + 3
    vector = unit_rows(COUNT)[19] if indexed else unit_rows(20, 1)[2]
    sql(home, "UPDATE embeddings SET vector = ? WHERE key = ?", UNFIT[kind], key)
    assert findings(catalog, home) == {"unfit-vectors": 1}
    assert_repaired(catalog, home, COUNT + 10)
    keys, stored = next(catalog.vectors(key - 1))
    assert keys[0] == key
    if indexed:
        assert stored[0].tolist() == vector.tolist()  # from the generation, bit for bit
    else:
        assert stored[0] == pytest.approx(vector, abs=1e-3)  # pooled from its slices


def test_a_missing_vector_comes_back(catalog: Catalog, home: Path) -> None:
    sql(home, "DELETE FROM embeddings WHERE key IN (20, 403)")
    assert findings(catalog, home) == {"no-vector": 2, "index-extra": 1}
    assert_repaired(catalog, home, COUNT + 10)


def test_what_can_not_be_rebuilt_is_set_aside(catalog: Catalog, home: Path) -> None:
    sql(home, "UPDATE slices SET vectors = ? WHERE key = 30", b"??")
    sql(home, "DELETE FROM slices WHERE key = 31")
    sql(home, "UPDATE embeddings SET vector = ? WHERE key = 405", UNFIT["nan"])
    sql(home, "UPDATE slices SET vectors = ? WHERE key = 405", np.full(DIM, np.nan, np.float16).tobytes())
    assert findings(catalog, home) == {"no-slices": 1, "unfit-slices": 1, "unfit-vectors": 1}
    assert_repaired(catalog, home, COUNT + 7)
    aside = sorted((home / "quarantine").iterdir())
    assert [path.name for path in aside] == [f"case-{n:016d}.json" for n in (30, 31, 405)]
    assert json.loads(aside[0].read_text())["case_id"] == f"{30:016d}"
    assert aside[0].stat().st_mode & 0o077 == 0


def test_rows_that_belong_to_nothing(catalog: Catalog, home: Path) -> None:
    sql(home, "INSERT INTO labels VALUES (9999, 0, 'finding', 'nodule', NULL)")
    sql(home, "INSERT INTO reports VALUES (9999, 'a report')")
    sql(home, "UPDATE embeddings SET encoder_id = 7 WHERE key = 33")
    assert findings(catalog, home) == {"dangling-rows": 2, "unknown-encoder": 1, "no-vector": 1, "index-extra": 1}
    assert_repaired(catalog, home, COUNT + 10)


def test_a_deleted_case_that_is_still_there_goes(catalog: Catalog, home: Path) -> None:
    sql(home, "INSERT INTO tombstones VALUES (11, 44, '2026-01-01')")
    sql(home, "UPDATE gallery SET last_tombstone = 11")
    assert findings(catalog, home) == {"undeleted": 1}
    assert_repaired(catalog, home, COUNT + 9)


def test_counters_that_lag_are_raised(catalog: Catalog, home: Path) -> None:
    sql(home, "UPDATE gallery SET last_key = 410, last_tombstone = 3")
    assert findings(catalog, home)["counters"] == 2
    assert_repaired(catalog, home, COUNT + 10)
    assert (catalog.heads().last_key, catalog.heads().last_tombstone) == (COUNT + 20, 10)


def test_an_edited_generation_row_is_told(catalog: Catalog, home: Path) -> None:
    sql(home, "UPDATE generations SET size = size + 1 WHERE name = ?", catalog.heads().generation)
    assert findings(catalog, home) == {"generation-stale": 1}
    assert_repaired(catalog, home, COUNT + 10)


def test_not_while_the_index_is_rebuilt(catalog: Catalog, home: Path) -> None:
    with publishing(generations_folder(home)), pytest.raises(ConflictError, match="another process"):
        verify(catalog, home)


def test_the_same_on_every_database(database_url: str, home: Path) -> None:
    with Catalog.open(database_url, create=True) as catalog:
        catalog.bind(Binding(FINGERPRINT, "classical", DIM, "mean", "{}"))
        commit_vectors(catalog, unit_rows(300))
        publish(catalog, home, "faiss")
        catalog.delete([f"{4:016d}"])
        commit_vectors(catalog, unit_rows(30, 1), first=301)
        assert verify(catalog, home).ok
        with catalog.database.write() as connection:
            spoilt = {"vector": UNFIT["nan"]}
            connection.execute(update(embeddings).where(embeddings.c.key.in_([9, 310])), spoilt)
            connection.execute(update(slices).where(slices.c.key == 10).values(vectors=b"??"))
            connection.execute(insert(tombstones), {"seq": 2, "key": 12, "at": ""})
        assert findings(catalog, home) == {"counters": 1, "undeleted": 1, "unfit-slices": 1, "unfit-vectors": 2}
        assert_repaired(catalog, home, 327)
