"""A gallery of volumes from end to end: DICOM and NIfTI in, the same vector, found again, verified, rebuilt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from indexer import rebuild
from indexer.assemble import assemble
from indexer.drafts import Draft, draft_of
from indexer.labels import LabelTable
from indexer.limits import Limits
from indexer.query import read_query
from indexer.report import CaseStatus, FileStatus
from indexer.sandbox import Sandbox
from indexer.sources import Source
from indexer.volumes import embed_volume, geometry_of
from retrieval.encoders.base import VolumeRows
from retrieval.encoders.volumes.tower import VolumeTower
from retrieval.encoders.volumes.volume import Volume, resample, sampling
from retrieval.errors import FingerprintMismatch, LimitExceeded, RejectedInput
from retrieval.gallery import Gallery
from retrieval.privacy import Secret
from retrieval.settings import Settings
from retrieval.types import GroupBy, SamePatient
from retrieval.verify import verify
from tests.studies import index_all, write_pictures
from tests.test_gallery import damage
from tests.volume_files import write_nifti
from tests.volume_phantoms import AXIAL, SAGITTAL, SMALL, Grid, rounded, small_tower, write_ct, write_nii

OBLIQUE = Grid(
    (42, 50, 58), (-72.0, -48.0, -70.0),
    ((0.0, -0.25881905, 0.96592583), (0.0, 0.96592583, 0.25881905), (1.0, 0.0, 0.0)), (3.0, 2.5, 2.5),
)  # fmt: skip
COLUMNS_FIRST = Grid((40, 56, 48), (68.0, 57.5, -58.0), ((0, 0, 1), (-1, 0, 0), (0, -1, 0)), (3.0, 2.5, 2.5))


@pytest.fixture(scope="module")
def tower() -> VolumeTower:
    return small_tower()


def open_volumes(home: Path, tower: VolumeTower, **settings: object) -> Gallery:
    return Gallery.open(Settings(home=home, **settings), create=True, encoder=tower)


class Seen:
    """An encoder of volumes that remembers what it was given."""

    def __init__(self, tower: VolumeTower) -> None:
        self.card, self.encode, self._tower = tower.card, tower.encode, tower
        self.volumes: list[Volume] = []

    def encode_volume(self, volume: Volume) -> VolumeRows:
        self.volumes.append(volume)
        return self._tower.encode_volume(volume)


def drafted(sandbox: Sandbox, paths: list[Path], secret: Secret) -> Draft:
    (plan,) = assemble([sandbox.scan_one(Source(path)) for path in paths], Limits())
    return draft_of(plan, None, "", secret, 10_000)


def answer(gallery: Gallery, case_id: str) -> dict[str, float]:
    return {hit.case.case_id: hit.similarity for hit in gallery.similar_to(case_id, k=5).hits}


@pytest.mark.parametrize(
    "grid", [AXIAL, SAGITTAL, OBLIQUE, COLUMNS_FIRST], ids=["axial", "sagittal", "oblique", "turned"]
)
def test_the_geometry_of_displayed_slices_says_where_in_the_patient_each_voxel_lies(
    tmp_path: Path, sandbox: Sandbox, tower: VolumeTower, grid: Grid
) -> None:
    """The phantom, computed anew at the places the geometry claims, is what the encoder gets: every voxel, to 1 HU."""
    with open_volumes(tmp_path / "home", tower) as gallery:
        for paths in (write_ct(tmp_path / "dicom", grid), [write_nii(tmp_path / "one.nii.gz", grid)]):
            seen = Seen(tower)
            embed_volume(sandbox, seen, gallery.pooling, drafted(sandbox, paths, gallery.secret), 1 << 30)
            (volume,) = seen.volumes
            geometry = volume.geometry
            index = np.stack(np.meshgrid(*(np.arange(n) for n in geometry.shape[1:]), indexing="ij"), axis=-1)
            in_plane = (index * geometry.spacing) @ np.array([geometry.column, geometry.row])
            points = np.array(geometry.corners)[:, None, None] + in_plane
            assert volume.voxels.shape == geometry.shape
            assert np.abs(volume.voxels - rounded(points)).max() <= 1


def test_one_phantom_as_dicom_nifti_and_in_other_planes_is_nearly_one_vector(
    tmp_path: Path, sandbox: Sandbox, tower: VolumeTower
) -> None:
    write_ct(tmp_path / "in" / "axial", AXIAL, number=1)
    write_nii(tmp_path / "in" / "axial.nii.gz", AXIAL)
    write_ct(tmp_path / "in" / "turned", COLUMNS_FIRST, number=3)
    write_ct(tmp_path / "in" / "sagittal", SAGITTAL, number=4)
    with open_volumes(tmp_path / "home", tower) as gallery:
        report = index_all(gallery, sandbox, tmp_path / "in")
        assert report.cases == {CaseStatus.ADDED: 4} and report.frames == 160
        cases = list(gallery.catalog.list_cases(limit=10))
        rows = np.stack([gallery.catalog.embedding(case.case_id)[1].vector for case in cases])
        centred = rows - _far(gallery, tmp_path, sandbox)
        centred /= np.linalg.norm(centred, axis=1, keepdims=True)
        assert (rows @ rows.T).min() > 0.999
        exact = [n for n, case in enumerate(cases) if case.columns == 56]  # the three that lie on one grid
        assert len(exact) == 3 and (rows[exact] @ rows[exact].T).min() > 0.999999
        assert (centred @ centred.T).min() > 0.9  # also next to how far another body is away


def _far(gallery: Gallery, tmp_path: Path, sandbox: Sandbox) -> np.ndarray:
    paths = write_ct(tmp_path / "other", AXIAL, number=9, size=1.3)
    return read_query(gallery, sandbox, paths).query.embedding.vector


def test_a_series_is_found_by_its_like_with_matching_slices_and_reranked(
    tmp_path: Path, sandbox: Sandbox, tower: VolumeTower
) -> None:
    for number, size in ((1, 1.0), (2, 1.15), (3, 0.8), (4, 0.85)):
        write_ct(tmp_path / "in" / str(number), AXIAL, number=number, size=size)
    with open_volumes(tmp_path / "home", tower) as gallery:
        index_all(gallery, sandbox, tmp_path / "in")
        asked = read_query(gallery, sandbox, [write_nii(tmp_path / "asked.nii.gz", AXIAL, size=0.82)])
        assert asked.numbers == tuple(range(40)) and len(asked.images) == 40
        plain = gallery.search(asked.query, k=4)
        again = gallery.search(asked.query, k=4, rerank=True)
        for found in (plain, again):
            assert {hit.case.columns for hit in found.hits[:2]} == {56}
            assert [hit.case.series_uid[-1] for hit in found.hits[2:]] == ["1", "2"]
            assert {hit.case.series_uid[-1] for hit in found.hits[:2]} == {"3", "4"}
        best = plain.hits[0]
        pairs = [(match.query_slice, match.hit_slice) for match in best.matches]
        assert len(pairs) == len(set(pairs)) >= 3
        _, embedding = gallery.catalog.embedding(best.case.case_id)
        for match in best.matches:
            assert match.hit_slice in embedding.slice_frames
            assert match.hit_position_mm == best.case.frames[match.hit_slice].position_mm
            assert match.query_position_mm == asked.query.frames[match.query_slice].position_mm
        assert abs((best.matches[0].hit_position_mm or 0) - (best.matches[0].query_position_mm or 0)) < 25


def test_a_case_on_file_asked_by_its_files_is_itself_and_nothing_is_embedded_twice(
    tmp_path: Path, sandbox: Sandbox, tower: VolumeTower
) -> None:
    paths = write_ct(tmp_path / "in", AXIAL)
    with open_volumes(tmp_path / "home", tower) as gallery:
        index_all(gallery, sandbox, tmp_path / "in")
        asked = read_query(gallery, sandbox, paths)
        _, stored = gallery.catalog.embedding(asked.case.case_id)
        assert asked.case.key == 1 and np.array_equal(asked.query.embedding.vector, stored.vector)
        assert asked.query.embedding.slice_frames == stored.slice_frames
        again = index_all(gallery, sandbox, tmp_path / "in")
        assert again.cases == {CaseStatus.UNCHANGED: 1}


def test_verify_is_clean_and_an_index_is_rebuilt_from_sql_alone(
    tmp_path: Path, sandbox: Sandbox, tower: VolumeTower
) -> None:
    for number, size in ((1, 1.0), (2, 1.2), (3, 0.8)):
        write_ct(tmp_path / "in" / str(number), AXIAL, number=number, size=size)
    with open_volumes(tmp_path / "home", tower) as gallery:
        index_all(gallery, sandbox, tmp_path / "in")
        case_id = next(iter(gallery.catalog.list_cases(limit=1))).case_id
        before = answer(gallery, case_id)
        for path in (tmp_path / "in").rglob("*.dcm"):
            path.unlink()
        rebuild.rebuild(gallery)
        after = answer(gallery, case_id)
        assert list(after) == list(before) and len(after) == 2
        assert np.allclose(list(after.values()), list(before.values()), atol=1e-6)
        assert not verify(gallery.catalog, gallery.settings.home).findings


def test_pictures_loops_and_other_modalities_are_refused_with_the_reason_and_the_rest_goes_on(
    tmp_path: Path, sandbox: Sandbox, tower: VolumeTower
) -> None:
    write_ct(tmp_path / "in" / "ct", AXIAL)
    write_pictures(tmp_path / "in" / "png", 2)
    labels = "path,modality\nin/mr.nii.gz,MR\n"
    (tmp_path / "labels.csv").write_text(labels)
    write_nii(tmp_path / "in" / "mr.nii.gz", AXIAL)
    with open_volumes(tmp_path / "home", tower) as gallery:
        told = LabelTable.read(tmp_path / "labels.csv")
        report = index_all(gallery, sandbox, tmp_path / "in", labels=told)
        assert report.cases == {CaseStatus.ADDED: 1, CaseStatus.FAILED: 3}
        assert report.files[FileStatus.INDEXED] == 40
        reasons = sorted({failure.reason for failure in report.failures})
        assert reasons == [
            "This encoder takes volumes of CT, got one of MR.",
            "This encoder takes volumes of several slices, got a single frame.",
        ]
        assert {failure.stage for failure in report.failures} == {"embed"}
        with pytest.raises(RejectedInput, match="got a single frame"):
            read_query(gallery, sandbox, [tmp_path / "in" / "png" / "000.png"])
        mixed = read_query(gallery, sandbox, [tmp_path / "in" / "png", tmp_path / "in" / "ct"])
        assert mixed.case.key and mixed.case.kind == "volume"


def test_a_volume_over_the_memory_limit_is_refused_before_it_is_decoded(
    tmp_path: Path, sandbox: Sandbox, tower: VolumeTower
) -> None:
    write_nifti(tmp_path / "large.nii.gz", np.zeros((180, 180, 300), np.int16), np.eye(4))
    write_nifti(tmp_path / "larger.nii.gz", np.zeros((180, 180, 600), np.int16), np.eye(4))
    with open_volumes(tmp_path / "home", tower, volume_memory_mb=64) as gallery:
        assert read_query(gallery, sandbox, [tmp_path / "large.nii.gz"]).case.kind == "volume"  # 37 MB, and a little
        with pytest.raises(LimitExceeded, match=r"may take \d+ MB; the limit is 64 MB \(volume_memory_mb\)"):
            read_query(gallery, sandbox, [tmp_path / "larger.nii.gz"])
        report = index_all(gallery, sandbox, tmp_path / "larger.nii.gz")
        assert report.failures[0].limit and report.cases == {CaseStatus.FAILED: 1}


def test_a_damaged_slice_is_left_out_and_the_others_lie_where_they_did(
    tmp_path: Path, sandbox: Sandbox, tower: VolumeTower
) -> None:
    paths = write_ct(tmp_path / "in", AXIAL)
    with open_volumes(tmp_path / "home", tower) as gallery:
        whole = read_query(gallery, sandbox, paths).query.embedding
        damage(paths[20])
        report = index_all(gallery, sandbox, tmp_path / "in")
        assert report.cases == {CaseStatus.ADDED: 1} and len(report.failures) == 1
        (case,) = gallery.catalog.list_cases(limit=1)
        assert len(case.frames) == 39 and any("1 of 40" in warning for warning in case.warnings)
        _, stored = gallery.catalog.embedding(case.case_id)
        assert stored.vector @ whole.vector > 0.9999 and max(stored.slice_frames) <= 38


def test_the_recipe_decides_the_pooling_of_a_new_gallery_unless_one_is_stated(
    tmp_path: Path, tower: VolumeTower
) -> None:
    with open_volumes(tmp_path / "mean", tower) as gallery:
        assert gallery.pooling.how == "mean"
    least = small_tower(replace(SMALL, pooling="min"))
    with open_volumes(tmp_path / "min", least) as gallery:
        assert gallery.pooling.how == "min" and gallery.fingerprint.endswith("-min-256")
    with open_volumes(tmp_path / "stated", least, pooling="max") as gallery:
        assert gallery.pooling.how == "max"
    with pytest.raises(FingerprintMismatch), open_volumes(tmp_path / "mean", least):
        pass


def test_slices_of_several_types_become_one_array(tmp_path: Path, sandbox: Sandbox, tower: VolumeTower) -> None:
    """Slopes that differ between slices make some whole numbers and some fractions."""
    paths = write_ct(tmp_path / "in", AXIAL)
    with open_volumes(tmp_path / "home", tower) as gallery:
        whole = read_query(gallery, sandbox, paths).query.embedding.vector
        for path in paths[::3]:
            made = pydicom.dcmread(path)
            stored = made.pixel_array.astype(np.uint16) * 2
            made.PixelData, made.RescaleSlope = stored.tobytes(), 0.5
            made.save_as(path)
        mixed = read_query(gallery, sandbox, paths).query.embedding.vector
        assert np.allclose(mixed, whole, atol=1e-6)


def test_hits_stand_by_patient_and_study_as_ever(tmp_path: Path, sandbox: Sandbox, tower: VolumeTower) -> None:
    write_ct(tmp_path / "in" / "1", AXIAL, number=1)
    write_ct(tmp_path / "in" / "2", AXIAL, number=2, size=1.1)
    with open_volumes(tmp_path / "home", tower) as gallery:
        index_all(gallery, sandbox, tmp_path / "in")
        asked = read_query(gallery, sandbox, [tmp_path / "in" / "1"]).query
        assert [hit.case.series_uid[-1] for hit in gallery.search(asked).hits] == ["2"]
        own = gallery.search(asked, same_patient=SamePatient.INCLUDE, group=GroupBy.NONE).hits
        assert [hit.case.series_uid[-1] for hit in own] == ["2"]  # never itself


@pytest.mark.parametrize(
    "name",
    [
        "totalsegmentator__example_ct_sm.nii.gz",
        "elastix__3DCT_lung_baseline_small.mha",
        "sct_testing_data__t2.nii.gz",
        "niivue__mean_func.nii.gz",
        "pyradiomics__breast1_image.nrrd",
    ],
)
@pytest.mark.parametrize("code", ["RAS", "SPL", "LIP"])
def test_real_volumes_are_resampled_as_simpleitk_does(
    shared: Path, tmp_path: Path, sandbox: Sandbox, tower: VolumeTower, name: str, code: str
) -> None:
    """From file to array by our readers and geometry; against SimpleITK reading the file and asked at places in mm."""
    import SimpleITK

    path = shared / "volumes" / "files" / name
    image = SimpleITK.ReadImage(str(path), SimpleITK.sitkFloat32)
    recipe = replace(SMALL, orientation=code, spacing=(2.5, 1.7, 3.1))
    with open_volumes(tmp_path / "home", tower) as gallery:
        draft = drafted(sandbox, [path], gallery.secret)
        geometry = geometry_of(draft)
        voxels = np.stack([reply.image.pixels for reply in sandbox.read(draft.wanted)])
    found = resample(Volume(voxels, geometry), sampling(geometry, recipe), 0.0)
    size, own = np.array(image.GetSize()), np.array(image.GetDirection()).reshape(3, 3)
    towards = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
    along = [max(own.T, key=lambda axis, letter=letter: abs(axis @ towards[letter])) for letter in code]
    along = [axis * np.sign(axis @ towards[letter]) for axis, letter in zip(along, code, strict=True)]
    ends = np.array([np.array(image.TransformIndexToPhysicalPoint([int(n) for n in size * far - far]))
                     for far in np.ndindex(2, 2, 2)])  # fmt: skip
    start = np.linalg.solve(np.array(along), (ends @ np.array(along).T).min(axis=0))
    compared = 0
    for index in np.random.default_rng(0).integers(0, found.shape, (400, 3)):
        place = start + (index * np.array(recipe.spacing)) @ np.array(along)
        at = np.array(image.TransformPhysicalPointToContinuousIndex(place))
        if (at > 0).all() and (at < size - 1).all():
            value = image.EvaluateAtPhysicalPoint(place, SimpleITK.sitkLinear)
            assert abs(value - found[tuple(index)]) <= 1e-3 * max(1.0, np.ptp(voxels)), (index, at)
            compared += 1
    assert compared > 100


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("niivue__FLAIR.nii.gz", "niivue__FLAIR.nrrd"),
        ("data__nifti_marc_avf_avf_float_32.nii.gz", "data__nrrd_marc_avf_avf_float_32.nrrd"),
    ],
)
def test_a_real_volume_in_two_formats_is_one_vector(
    shared: Path, tmp_path: Path, sandbox: Sandbox, one: str, other: str
) -> None:
    tower = small_tower(replace(SMALL, percentiles=(0.5, 99.5), modalities=("MR",)))
    folder = shared / "volumes" / "files"
    with open_volumes(tmp_path / "home", tower) as gallery:
        vectors = [read_query(gallery, sandbox, [folder / name]).query.embedding.vector for name in (one, other)]
        assert vectors[0] @ vectors[1] > 0.9999
