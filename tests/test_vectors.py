"""Vectors out and in: what comes back is what went out, between databases; what is damaged is refused by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.limits import Limits
from indexer.originals import read_frames
from indexer.sandbox import Sandbox
from retrieval.catalog import Catalog
from retrieval.encoders import open_encoder
from retrieval.encoders.bound import binding_of
from retrieval.encoders.pooling import Pooling
from retrieval.errors import FingerprintMismatch, SourceGone, StoreError, UsageError
from retrieval.gallery import Gallery
from retrieval.settings import Settings
from retrieval.types import Attributes, Image, Label, SearchResult
from retrieval.vectors import ExportedVectors, export_vectors, import_vectors, taking
from tests.databases import embedded, postgres_database, unit_rows
from tests.processes import REPOSITORY, answer, run
from tests.test_docs_run import blocks, shell

DIM = 8
COUNT = 60


def named_gallery(home: Path) -> Gallery:
    """An empty gallery of 8 numbers a vector, whose encoder is only a name."""
    return Gallery.open(Settings(home=home, encoder=f"vectors:tests?dim={DIM}"), create=True)


def fill(gallery: Gallery) -> None:
    gallery.add(
        [
            embedded(
                f"case{n:012}",
                labels=(Label("finding", "a" if n % 2 else "b"), Label("size", str(n), float(n))),
                attributes=Attributes(modality="CT", age=float(n), sex="F"),
                report=f"Report {n}.",
                patient_key=f"real-key-{n // 3}",
                study_uid=f"1.2.{n // 2}",
                slices=1 + n % 3,
            )
            for n in range(COUNT)
        ]
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``home``: a gallery; ``out``: its export, in shards of 25 cases."""
    place = tmp_path_factory.mktemp("vectors")
    with named_gallery(place / "home") as gallery:
        fill(gallery)
        gallery.delete(["case000000000007"])
        export_vectors(gallery.catalog, place / "out", shard=25)
    return place


@pytest.fixture(params=["sqlite", "postgresql"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """The settings of a gallery that is not there yet."""
    if request.param == "sqlite":
        yield Settings(home=tmp_path / "target")
        return
    with postgres_database(request.getfixturevalue("postgres_url")) as url:
        yield Settings(home=tmp_path / "target", database_url=url)


def take_in(folder: Path, settings: Settings) -> Gallery:
    with taking(settings) as (catalog, _):
        taken = import_vectors(ExportedVectors.open(folder), catalog)
    assert taken.added == ExportedVectors.open(folder).manifest.cases
    return Gallery.open(settings)


def told(result: SearchResult) -> list[tuple[object, ...]]:
    return [
        (hit.case.case_id, hit.similarity, hit.percentile, hit.case.labels, hit.case.report, hit.matches)
        for hit in result.hits
    ]


def test_a_gallery_answers_the_same_after_the_journey(exported: Path, target: Settings) -> None:
    with Gallery.open(exported / "home") as before, take_in(exported / "out", target) as after:
        assert len(before) == len(after) == COUNT - 1
        for n in (0, 1, 5, 59):
            for rerank in (False, True):
                asked = [g.similar_to(f"case{n:012}", k=9, rerank=rerank) for g in (before, after)]
                assert told(asked[0]) == told(asked[1])
        keys = before.catalog.select(), after.catalog.select()
        stored = [g.catalog.vectors_of(k)[1] for g, k in zip((before, after), keys, strict=True)]
        assert stored[0].tobytes() == stored[1].tobytes()
        slices = [
            [rows.tobytes() for rows, _ in g.catalog.stored_slices(k).values()]
            for g, k in zip((before, after), keys, strict=True)
        ]
        assert slices[0] == slices[1]
        plain = [
            [replace(case, key=0, patient_key="", study_uid="", frames=()) for case in g.catalog.cases(k).values()]
            for g, k in zip((before, after), keys, strict=True)
        ]
        assert plain[0] == plain[1]


def test_rows_of_arrays_and_tables_agree_in_the_order_of_names(exported: Path) -> None:
    out = exported / "out"
    arrays, tables = sorted((out / "img_emb").iterdir()), sorted((out / "metadata").iterdir())
    assert [path.name for path in arrays] == [f"img_emb_{n}.npy" for n in range(3)]
    assert [path.name for path in tables] == [f"metadata_{n}.parquet" for n in range(3)]
    vectors = np.concatenate([np.load(path) for path in arrays])
    ids = [row for path in tables for row in pq.read_table(path)["case_id"].to_pylist()]
    assert vectors.dtype == np.float32 and vectors.shape == (COUNT - 1, DIM)
    with Gallery.open(exported / "home") as gallery:
        for case_id, vector in zip(ids, vectors, strict=True):
            assert gallery.catalog.embedding(case_id)[1].vector.tobytes() == vector.tobytes()
    manifest = json.loads((out / "precedent-vectors.json").read_text())
    for fact in manifest["files"]:
        assert hashlib.sha256((out / fact["name"]).read_bytes()).hexdigest() == fact["sha256"]


def test_many_shards_have_names_of_one_width(exported: Path, tmp_path: Path) -> None:
    with Gallery.open(exported / "home") as gallery:
        done = export_vectors(gallery.catalog, tmp_path / "out", shard=5, slices=False)
    assert done.manifest.shards == tuple(f"{n:02}" for n in range(12))
    ExportedVectors.open(tmp_path / "out").check()


def test_patients_are_linked_within_an_export_and_not_beyond(exported: Path, tmp_path: Path) -> None:
    with Gallery.open(exported / "home") as gallery:
        export_vectors(gallery.catalog, tmp_path / "other", reports=False)
    tables = [
        pa.concat_tables([pq.read_table(path) for path in sorted((folder / "metadata").iterdir())])
        for folder in (exported / "out", tmp_path / "other")
    ]
    first, second = (table["patient_key"].to_pylist() for table in tables)
    assert len(set(first)) == len(set(second)) == COUNT // 3
    assert not set(first) & set(second)
    assert first[0] == first[1] == first[2] != first[3]
    for folder in (exported / "out", tmp_path / "other"):
        held = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
        assert b"real-key" not in held and b"1.2.0" not in held and b"2.25.0" not in held
    assert set(tables[1]["report"].to_pylist()) == {""}


def test_half_precision_is_close_and_unit(exported: Path, tmp_path: Path) -> None:
    with Gallery.open(exported / "home") as before:
        export_vectors(before.catalog, tmp_path / "out", dtype="float16")
        with take_in(tmp_path / "out", Settings(home=tmp_path / "target")) as after:
            one = before.catalog.vectors_of(before.catalog.select())[1]
            two = after.catalog.vectors_of(after.catalog.select())[1]
    assert np.abs(one - two).max() < 1e-3
    np.testing.assert_allclose(np.linalg.norm(two, axis=1), 1, atol=1e-6)


def copied(exported: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(exported / "out", tmp_path / "copy"))


@pytest.mark.parametrize(
    "name",
    [
        "img_emb/img_emb_1.npy",
        "metadata/metadata_2.parquet",
        "slice_emb/slice_emb_0.npy",
        "slice_metadata/slice_metadata_0.parquet",
        "precedent-vectors.json",
    ],
)
def test_a_damaged_file_is_named(exported: Path, tmp_path: Path, name: str) -> None:
    folder = copied(exported, tmp_path)
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(StoreError, match=name.replace(".", r"\.")):
        ExportedVectors.open(folder).check()


def test_a_missing_file_is_named(exported: Path, tmp_path: Path) -> None:
    folder = copied(exported, tmp_path)
    (folder / "img_emb/img_emb_2.npy").unlink()
    with pytest.raises(StoreError, match=r"img_emb_2\.npy is missing"):
        ExportedVectors.open(folder).check()


@pytest.mark.parametrize("number", [np.nan, 3.0])
def test_rows_are_looked_at_even_where_the_hashes_are_right(exported: Path, tmp_path: Path, number: float) -> None:
    folder = copied(exported, tmp_path)
    path, listed = folder / "img_emb/img_emb_1.npy", folder / "precedent-vectors.json"
    rows = np.load(path)
    rows[3, 2] = number
    np.save(path, rows)
    manifest = json.loads(listed.read_text())
    for fact in manifest["files"]:
        if fact["name"] == "img_emb/img_emb_1.npy":
            fact |= {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    listed.write_text(json.dumps(manifest))
    digest = hashlib.sha256(listed.read_bytes()).hexdigest()
    (folder / "precedent-vectors.json.sha256").write_text(f"{digest}  precedent-vectors.json\n")
    with pytest.raises(StoreError, match=r"Row 3 of img_emb/img_emb_1\.npy"):
        ExportedVectors.open(folder).check()


def test_another_encoders_gallery_takes_nothing(exported: Path, tmp_path: Path) -> None:
    other = binding_of(open_encoder(f"vectors:other?dim={DIM}").card, Pooling())
    with Catalog.open(f"sqlite:///{tmp_path / 'c.sqlite3'}", create=True) as catalog:
        catalog.bind(other)
        with pytest.raises(FingerprintMismatch):
            import_vectors(ExportedVectors.open(exported / "out"), catalog)
        assert catalog.count() == 0


def test_an_import_is_run_again_without_harm(exported: Path, tmp_path: Path) -> None:
    with take_in(exported / "out", Settings(home=tmp_path / "home")) as gallery:
        again = import_vectors(ExportedVectors.open(exported / "out"), gallery.catalog)
        assert (again.added, again.unchanged) == (0, COUNT - 1)


def test_a_failed_export_leaves_nothing(exported: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise OSError(28, "No space left on device")

    with Gallery.open(exported / "home") as gallery:
        with pytest.raises(StoreError, match="no space is left"):
            export_vectors(gallery.catalog, tmp_path / "out", progress=stop)
        assert not list(tmp_path.iterdir())
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine").touch()
        with pytest.raises(UsageError, match="there already"):
            export_vectors(gallery.catalog, tmp_path / "out")


def publish(folder: Path, count: int = 40) -> np.ndarray:
    """Vectors as others publish them: two groups, not of unit length, in two shards."""
    rng = np.random.default_rng(1)
    centres = unit_rows(2, seed=3, dim=16)
    rows = (3 * centres[np.arange(count) % 2] + 0.2 * rng.standard_normal((count, 16))).astype(np.float16)
    (folder / "img_emb").mkdir(parents=True)
    (folder / "metadata").mkdir()
    for n, part in enumerate(np.split(np.arange(count), 2)):
        np.save(folder / f"img_emb/img_emb_{n}.npy", rows[part])
        columns = {
            "image_path": [f"p{i}/scan.png" for i in part],
            "caption": [f"Caption {i}." for i in part],
            "patient_id": [f"P{i // 4}" for i in part],
            "modality": ["DX"] * len(part),
            "finding": ["effusion" if i % 2 else "none of it" for i in part],
            "score": [float(i) for i in part],
        }
        pq.write_table(pa.table(columns), folder / f"metadata/metadata_{n}.parquet")
    return rows


def test_published_vectors_are_evaluated_without_an_encoder(tmp_path: Path) -> None:
    rows = publish(tmp_path / "release")
    home = tmp_path / "home"
    assert answer("import", tmp_path / "release", "--encoder-name", "some/release-1", home=home)["added"] == 40
    with Gallery.open(home) as gallery:
        case = gallery.catalog.list_cases()[0]
        assert case.labels == (Label("finding", "none of it"), Label("score", "0", 0.0))
        assert (case.report, case.attributes.modality) == ("Caption 0.", "DX")
        units = rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
        cosines = units @ units[0]
        cosines[:4] = -1  # the same patient
        best = gallery.similar_to(case.case_id, k=1).hits[0]
        assert best.similarity == pytest.approx(cosines.max(), abs=1e-6)
        assert best.case.report == f"Caption {int(cosines.argmax())}."
        gallery.warm_up()
        with pytest.raises(UsageError, match="no encoder"):
            gallery.embed([Image(np.zeros((8, 8), np.uint8))])
        with Sandbox(1, Limits()) as sandbox, pytest.raises(SourceGone, match="imported"):
            list(read_frames(gallery, sandbox, case, []))
    assert "finding" in run("evaluate", "--label", "finding", home=home).stdout


def test_published_vectors_that_can_not_be_used_are_refused(tmp_path: Path) -> None:
    rows = publish(tmp_path / "release")
    home = tmp_path / "home"
    told = run("import", tmp_path / "release", home=home, code=2).stderr
    assert "--encoder-name" in told
    broken = rows[:20].copy()
    broken[4] = 0
    np.save(tmp_path / "release/img_emb/img_emb_0.npy", broken)
    told = run("import", tmp_path / "release", "--encoder-name", "r", home=home, code=2).stderr
    assert "Row 4 of img_emb_0.npy" in told
    np.save(tmp_path / "release/img_emb/img_emb_0.npy", rows[:19])
    told = run("import", tmp_path / "release", "--encoder-name", "r", home=home, code=2).stderr
    assert "metadata_0.parquet has more rows than img_emb_0.npy" in told
    assert not home.exists()


def test_the_commands(exported: Path, tmp_path: Path) -> None:
    home, out = exported / "home", tmp_path / "out"
    assert answer("export", out, "--dry-run", home=home)["cases"] == COUNT - 1
    assert not out.exists()
    done = run("export", out, home=home)
    assert "59 cases" in done.stdout and "Vectors are patient data" in done.stderr
    assert answer("import", out, "--dry-run", home=tmp_path / "new")["cases"] == COUNT - 1
    assert not (tmp_path / "new").exists()
    assert answer("import", out, home=tmp_path / "new")["added"] == COUNT - 1
    assert answer("verify", home=tmp_path / "new")["ok"]


@pytest.mark.slow
def test_what_the_documentation_shows_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with named_gallery(tmp_path / "gallery") as gallery:
        fill(gallery)
    publish(tmp_path / "release")
    for block in blocks("vectors.md"):
        shell(block, tmp_path)
    assert answer("stats", home=tmp_path / "elsewhere")["state"]["size"] == COUNT
    page = (REPOSITORY / "docs" / "vectors.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    exec(page.split("```python\n")[1].split("```")[0], {})
    assert f"added={COUNT}" in capsys.readouterr().out
