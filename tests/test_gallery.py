"""The gallery against NumPy, on generated vectors and on real files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from indexer import rebuild
from indexer.labels import LabelTable
from indexer.query import read_query
from indexer.sandbox import Sandbox
from retrieval import Gallery
from retrieval.errors import NotFoundError, RejectedInput, StoreError, UsageError
from retrieval.filters import parse
from retrieval.generations import generations_folder, publishing
from retrieval.types import Attributes, Case, CaseKind, EmbeddedCase, Embedding, GroupBy, Query, SamePatient
from tests.studies import index_all, open_gallery, texture, write_pictures, write_series


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def fill(gallery: Gallery, count: int, seed: int = 0, per_patient: int = 3) -> np.ndarray:
    """``count`` seeded cases, three to a patient; returns their vectors in key order."""
    dim = gallery.encoder.card.dim
    rows = unit(np.random.default_rng(seed).normal(size=(count, dim)))
    cases = [
        EmbeddedCase(
            Case(
                case_id=f"case{seed}-{n:05d}", kind=CaseKind.IMAGE, content_sha256=f"{seed}-{n}",
                pixel_sha256=f"p{seed}-{n}", patient_key=f"patient{n // per_patient}", study_uid=f"1.2.{n // 2}",
                attributes=Attributes(modality="CT" if n % 4 else "MR", age=float(n % 90)),
            ),
            Embedding(rows[n], rows[n : n + 1], (0,)),
        )
        for n in range(count)
    ]  # fmt: skip
    outcomes = gallery.add(cases)
    assert [outcome.status for outcome in outcomes] == ["added"] * count
    return rows


def expected(rows: np.ndarray, query: np.ndarray, allowed: np.ndarray, groups: list[str], k: int) -> list[int]:
    """The oracle: rank everything, keep the best of each group."""
    found: list[int] = []
    for n in np.argsort(-(rows @ query), kind="stable"):
        if allowed[n] and groups[n] not in {groups[m] for m in found}:
            found.append(int(n))
    return found[:k]


@pytest.mark.parametrize("published", [False, True])
def test_search_equals_brute_force_under_filter_exclusion_and_grouping(tmp_path: Path, published: bool) -> None:
    with open_gallery(tmp_path) as gallery:
        rows = fill(gallery, 300)
        if published:
            rebuild.rebuild(gallery)
            extra = fill(gallery, 30, seed=1)
            rows = np.concatenate([rows, extra])
        patients = [f"patient{n // 3}" for n in range(300)] + [f"patient{n // 3}" for n in range(30)] * published
        modality = np.array([n % 4 != 0 for n in [*range(300), *(range(30) if published else [])]])
        for n in (0, 7, 100, 299):
            got = gallery.similar_to(f"case0-{n:05d}", k=20, filters=parse({"modality": "CT"}))
            allowed = modality & np.array([patient != patients[n] for patient in patients])
            want = expected(rows, rows[n], allowed, patients, 20)
            assert [hit.case.key - 1 for hit in got.hits] == want
            assert np.allclose([hit.similarity for hit in got.hits], (rows @ rows[n])[want], atol=1e-5)
            assert (
                got.exhaustive
                and got.gallery_size == len(rows)
                and [hit.rank for hit in got.hits] == list(range(1, 21))
            )


def test_same_patient_and_grouping_switches(tmp_path: Path) -> None:
    with open_gallery(tmp_path) as gallery:
        fill(gallery, 60)
        ask = gallery.similar_to
        own = ask("case0-00004", k=50, same_patient=SamePatient.ONLY, group=GroupBy.NONE)
        assert {hit.case.case_id for hit in own.hits} == {"case0-00003", "case0-00005"}
        everything = ask("case0-00004", k=100, same_patient=SamePatient.INCLUDE, group=GroupBy.NONE)
        assert len(everything.hits) == 59  # all but itself
        default = ask("case0-00004", k=100)
        assert len(default.hits) == 19 and len({hit.case.patient_key for hit in default.hits}) == 19
        by_study = ask("case0-00004", k=100, group=GroupBy.STUDY, same_patient=SamePatient.INCLUDE)
        assert len({hit.case.study_uid for hit in by_study.hits}) == len(by_study.hits) == 30


def test_only_the_patient_of_an_unknown_patient_is_refused(tmp_path: Path) -> None:
    with open_gallery(tmp_path) as gallery:
        rows = fill(gallery, 5)
        query = Query(Embedding(rows[0], rows[:1], (0,)))
        with pytest.raises(UsageError, match="patient"):
            gallery.search(query, same_patient=SamePatient.ONLY)
        with pytest.raises(UsageError, match="k must be"):
            gallery.search(query, k=0)


def test_other_processes_writes_and_deletes_are_seen(tmp_path: Path) -> None:
    with open_gallery(tmp_path) as one, open_gallery(tmp_path) as other:
        rows = fill(one, 10)
        query = Query(Embedding(rows[3], rows[3:4], (0,)))
        assert other.search(query, k=1).hits[0].case.case_id == "case0-00003"
        assert one.delete(["case0-00003", "nothing"]) == ["case0-00003"]
        for gallery in (one, other):
            found = gallery.search(query, k=10, group=GroupBy.NONE)
            assert "case0-00003" not in {hit.case.case_id for hit in found.hits}
            assert len(found.hits) == len(gallery) == 9
        with pytest.raises(NotFoundError):
            other.case("case0-00003")


def test_a_query_need_not_number_its_slices(tmp_path: Path) -> None:
    with open_gallery(tmp_path) as gallery:
        rows = fill(gallery, 6)
        hit = gallery.search(Query(Embedding(rows[0], rows[:3])), k=1).hits[0]
        assert hit.case.case_id == "case0-00000"
        assert [(match.query_slice, match.hit_slice) for match in hit.matches] == [(0, 0)]


def test_an_index_that_is_being_published_already_is_left_to_who_does(tmp_path: Path) -> None:
    with open_gallery(tmp_path) as gallery:
        fill(gallery, 6)
        with publishing(generations_folder(tmp_path)):
            assert rebuild.freshen(gallery, stale_vectors=5) == ""
        assert rebuild.freshen(gallery) == ""
        assert rebuild.freshen(gallery, stale_vectors=5) == gallery.state().generation != ""


def test_an_empty_gallery_answers_nothing(tmp_path: Path) -> None:
    with open_gallery(tmp_path) as gallery:
        rows = unit(np.ones((1, gallery.encoder.card.dim)))
        result = gallery.search(Query(Embedding(rows[0], rows, (0,))))
        assert result.hits == () and result.no_confident_match and result.gallery_size == 0


def test_there_must_be_a_gallery(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="precedent index"):
        Gallery.open(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_lost_key_is_told_not_replaced(tmp_path: Path) -> None:
    with open_gallery(tmp_path) as gallery:
        fill(gallery, 3)
    (tmp_path / "secret.key").unlink()
    with pytest.raises(StoreError, match="restore it"):
        open_gallery(tmp_path)
    assert not (tmp_path / "secret.key").exists()


def test_a_stored_file_does_not_find_itself_nor_its_patient(tmp_path: Path, sandbox: Sandbox) -> None:
    paths = write_pictures(tmp_path / "in", 6)
    (tmp_path / "in" / "labels.csv").write_text(
        "path,patient_id\n" + "".join(f"{path.name},P{n // 2}\n" for n, path in enumerate(paths))
    )
    with open_gallery(tmp_path / "home") as gallery:
        index_all(gallery, sandbox, tmp_path / "in", labels=LabelTable.read(tmp_path / "in" / "labels.csv"))
        asked = read_query(gallery, sandbox, [paths[0]])
        found = gallery.search(asked.query, group=GroupBy.NONE)
        assert asked.case.case_id not in {hit.case.case_id for hit in found.hits}
        assert asked.query.patient_key and all(hit.case.patient_key != asked.query.patient_key for hit in found.hits)
        assert len(found.hits) == 4
        included = gallery.search(asked.query, group=GroupBy.NONE, same_patient=SamePatient.INCLUDE)
        assert len(included.hits) == 5


@pytest.mark.parametrize("slices", [5, 3, 1])
def test_a_part_of_a_stored_series_finds_neither_it_nor_its_patient(
    tmp_path: Path, sandbox: Sandbox, slices: int
) -> None:
    """Anonymous files, whose patients only the labels file knows."""
    paths = [write_series(tmp_path / name, 5, seed=n, patient="") for n, name in enumerate("abc")]
    (tmp_path / "labels.csv").write_text("path,patient_id\na,Z\nb,Z\nc,Y\n")
    with open_gallery(tmp_path / "home") as gallery:
        folders = [tmp_path / name for name in "abc"]
        index_all(gallery, sandbox, *folders, labels=LabelTable.read(tmp_path / "labels.csv"))
        asked = read_query(gallery, sandbox, paths[0][:slices])
        assert asked.query.patient_key == gallery.secret.patient_key("Z")
        hits = gallery.search(asked.query, group=GroupBy.NONE).hits
        assert [hit.case.patient_key for hit in hits] == [gallery.secret.patient_key("Y")]
        included = gallery.search(asked.query, group=GroupBy.NONE, same_patient=SamePatient.INCLUDE).hits
        assert len(included) == (2 if slices == 5 else 3)  # a part finds the whole, when asked to


def test_a_part_of_a_series_of_nobody_does_not_find_it(tmp_path: Path, sandbox: Sandbox) -> None:
    paths = [write_series(tmp_path / "in", 5, seed=n, patient="") for n in range(2)]
    with open_gallery(tmp_path / "home") as gallery:
        index_all(gallery, sandbox, tmp_path / "in")
        asked = read_query(gallery, sandbox, paths[0][:3])
        (hit,) = gallery.search(asked.query).hits
        assert not asked.case.key and hit.case.case_id != asked.case.case_id


def test_a_series_finds_its_altered_copy_slice_by_slice(tmp_path: Path, sandbox: Sandbox) -> None:
    """Matching slices are numbered as in the case and carry their positions."""
    write_series(tmp_path / "in", 8, seed=11, patient="A")
    write_series(tmp_path / "in", 8, seed=12, patient="B")
    with open_gallery(tmp_path / "home") as gallery:
        index_all(gallery, sandbox, tmp_path / "in")
        half = sorted((tmp_path / "in").rglob("s11-*.dcm"))[:4]
        asked = read_query(gallery, sandbox, half)
        result = gallery.search(asked.query, same_patient=SamePatient.INCLUDE, rerank=True)
        best = result.hits[0]
        for match in best.matches:
            assert match.similarity == pytest.approx(1.0, abs=1e-3)
            assert match.query_position_mm == pytest.approx(match.hit_position_mm)
            assert best.case.frames[match.hit_slice].position_mm == match.hit_position_mm


def test_bad_queries_are_sentences(tmp_path: Path, sandbox: Sandbox) -> None:
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n garbage")
    (tmp_path / "empty").mkdir()
    with open_gallery(tmp_path / "home") as gallery:
        with pytest.raises(RejectedInput):
            read_query(gallery, sandbox, [tmp_path / "x.png"])
        with pytest.raises((NotFoundError, RejectedInput), match="image"):
            read_query(gallery, sandbox, [tmp_path / "empty"])
        with pytest.raises(UsageError):
            read_query(gallery, sandbox, [])
        with pytest.raises(UsageError, match="text tower"):
            gallery.embed_text("a sentence")


def test_a_python_session(tmp_path: Path, sandbox: Sandbox) -> None:
    """Near copies are near, whatever else is there."""
    from PIL import Image as Picture

    folder = tmp_path / "in"
    write_pictures(folder, 20)
    base = texture(3)
    noisy = np.clip(base.astype(int) + np.random.default_rng(1).normal(0, 3, base.shape), 0, 255).astype(np.uint8)
    Picture.fromarray(noisy).save(tmp_path / "query.png")
    with open_gallery(tmp_path / "home") as gallery:
        index_all(gallery, sandbox, folder)
        found = gallery.search(read_query(gallery, sandbox, [tmp_path / "query.png"]).query, k=3)
        nearest = gallery.catalog.files(found.hits[0].case.case_id)[0]
        import hashlib

        assert nearest.sha256 == hashlib.sha256((folder / "003.png").read_bytes()).hexdigest()
        assert found.hits[0].percentile > 90 and not found.no_confident_match


def damage(path: Path) -> None:
    """Turn a slice into RLE and break its first segment: its header is sound, its pixels are not."""
    import pydicom

    made = pydicom.dcmread(path)
    made.compress(pydicom.uid.RLELossless)
    made.PixelData = made.PixelData.replace(made.PixelData[-60:-20], bytes(40))
    made.save_as(path)


def test_a_damaged_slice_of_a_query_is_left_out_and_told(tmp_path: Path, sandbox: Sandbox) -> None:
    paths = write_series(tmp_path / "in", 8, seed=13)
    with open_gallery(tmp_path / "home") as gallery:
        whole = read_query(gallery, sandbox, [tmp_path / "in"])
        damage(paths[5])
        asked = read_query(gallery, sandbox, [tmp_path / "in"])
        assert len(asked.images) == len(whole.images) - 1 == len(asked.query.embedding.slice_frames)
        assert any("1 of" in warning for warning in asked.warnings)
        positions = [frame.position_mm for frame in asked.query.frames]
        assert positions == sorted(positions) and len(positions) == 7
        for path in paths[:5] + paths[6:]:
            damage(path)
        with pytest.raises(RejectedInput):
            read_query(gallery, sandbox, [tmp_path / "in"])


def test_a_patient_whom_header_and_labels_name_differently_is_one(tmp_path: Path, sandbox: Sandbox) -> None:
    """Only one series of the patient is in the labels file; a later file names the patient by its header alone."""
    named = write_series(tmp_path / "in" / "a", 4, seed=31, patient="HEADER")
    write_series(tmp_path / "in" / "b", 4, seed=32, patient="HEADER")
    write_series(tmp_path / "in" / "c", 4, seed=33, patient="ELSE")
    (tmp_path / "in" / "labels.csv").write_text("path,patient_id\na,site:HEADER\n")
    with open_gallery(tmp_path / "home") as gallery:
        index_all(gallery, sandbox, tmp_path / "in", labels=LabelTable.read(tmp_path / "in" / "labels.csv"))
        by_seed = {
            path.name: read_query(gallery, sandbox, [path]) for path in (tmp_path / "in").iterdir() if path.is_dir()
        }
        ids = {name: asked.case.case_id for name, asked in by_seed.items()}
        for name in ("a", "b"):
            hits = gallery.similar_to(ids[name], group=GroupBy.NONE).hits
            assert [hit.case.case_id for hit in hits] == [ids["c"]]
            own = gallery.similar_to(ids[name], group=GroupBy.NONE, same_patient=SamePatient.ONLY).hits
            assert {hit.case.case_id for hit in own} == {ids["a"], ids["b"]} - {ids[name]}
        assert len(gallery.similar_to(ids["c"]).hits) == 1  # one hit for the patient, not one for each name
        write_series(tmp_path / "new", 4, seed=34, patient="HEADER")
        asked = read_query(gallery, sandbox, [tmp_path / "new"])
        assert [hit.case.case_id for hit in gallery.search(asked.query).hits] == [ids["c"]]
        assert gallery.catalog.delete_patient(gallery.secret.patient_key("HEADER")) == 2
    assert len(named) == 4


def test_a_header_that_says_anonymous_for_everybody_links_nobody(tmp_path: Path, sandbox: Sandbox) -> None:
    for n in range(3):
        write_series(tmp_path / "in" / f"s{n}", 3, seed=40 + n, patient="ANON")
    rows = "".join(f"s{n},P{n}\n" for n in range(3))
    (tmp_path / "in" / "labels.csv").write_text("path,patient_id\n" + rows)
    with open_gallery(tmp_path / "home") as gallery:
        index_all(gallery, sandbox, tmp_path / "in", labels=LabelTable.read(tmp_path / "in" / "labels.csv"))
        for case in gallery.catalog.list_cases():
            assert len(gallery.similar_to(case.case_id).hits) == 2


def test_cases_of_the_query_s_study_are_its_patient_s(tmp_path: Path, sandbox: Sandbox) -> None:
    """Also where no patient is named at all."""
    write_series(tmp_path / "in", 4, seed=51, patient="")
    write_series(tmp_path / "in", 4, seed=52, patient="")
    with open_gallery(tmp_path / "home") as gallery:
        index_all(gallery, sandbox, tmp_path / "in")
        half = sorted((tmp_path / "in").rglob("s51-*.dcm"))[:2]
        found = gallery.search(read_query(gallery, sandbox, half).query, group=GroupBy.NONE)
        assert len(found.hits) == 1


def test_a_damaged_picture_among_good_ones_does_not_refuse_the_query(tmp_path: Path, sandbox: Sandbox) -> None:
    paths = write_pictures(tmp_path / "in", 3)
    for path in paths[:2]:
        path.write_bytes(path.read_bytes()[:-900])
    (tmp_path / "in" / "notes.txt").write_text("no image")
    with open_gallery(tmp_path / "home") as gallery:
        asked = read_query(gallery, sandbox, [tmp_path / "in"])
        assert len(asked.images) == 1
        assert any("3 cases" in warning for warning in asked.warnings)
        assert any("not images" in warning for warning in asked.warnings)
