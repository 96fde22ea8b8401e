"""NIfTI, MetaImage and NRRD: orientation, values, damage; held against nibabel and SimpleITK on real files."""

from __future__ import annotations

import gzip
import itertools
import struct
import zipfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.limits import Limits
from indexer.readers import open_reader
from indexer.readers.stack import Stack
from indexer.sources import Scan, Source
from retrieval.errors import RejectedInput
from retrieval.types import Image
from tests.shared_data import labels, shared_root
from tests.volume_files import RAS_TO_LPS, reoriented, write_nifti, write_with_itk

LIMITS = Limits()
ORIENTATIONS = [
    (order, flips)
    for order in itertools.permutations((0, 1, 2))
    for flips in itertools.product((False, True), repeat=3)
]


def decoded(path: Path, member: str = "") -> tuple[Scan, list[Image]]:
    source = Source(path, member)
    reader = open_reader(source, LIMITS)
    return reader.scan(source, LIMITS), [image for _, image in reader.read(source, None, LIMITS)]


def marked() -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float64]]:
    """Voxels [left, posterior, superior] of 1 x 1 x 3 mm; one voxel at the right, anterior, inferior corner is 1000."""
    voxels = np.arange(6 * 7 * 4, dtype=np.int16).reshape(6, 7, 4)
    voxels[0, 0, 0] = 1000
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    affine[:3, 3] = (-20.0, 11.0, 5.0)
    return voxels, affine


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
def test_storage_orientation_does_not_matter(
    tmp_path: Path, order: tuple[int, int, int], flips: tuple[bool, bool, bool]
) -> None:
    voxels, affine = marked()
    path = tmp_path / "turned.nii"
    write_nifti(path, *reoriented(voxels, affine, order, flips))
    scan, images = decoded(path)
    assert (scan.frames, scan.rows, scan.columns, scan.spacing) == (4, 7, 6, (1.0, 1.0))
    assert [image.plane for image in images] == ["axial"] * 4
    assert [image.position_mm for image in images] == pytest.approx([5.0, 8.0, 11.0, 14.0])
    # Patient's right is on the image's left, anterior is up: the marked corner is the lowest slice's top left pixel.
    assert int(images[0].pixels[0, 0]) == 1000
    for index, image in enumerate(images):
        np.testing.assert_array_equal(image.pixels, voxels[:, :, index].T)
    assert scan.planes[0].position == pytest.approx((-20.0, 11.0, 5.0))
    assert scan.planes[3].position == pytest.approx((-20.0, 11.0, 14.0))
    assert scan.planes[0].row == pytest.approx((1.0, 0.0, 0.0))
    assert scan.planes[0].column == pytest.approx((0.0, 1.0, 0.0))


@pytest.mark.parametrize(
    ("thick", "plane", "top_left"),
    [(0, "sagittal", (0, 0, -1)), (1, "coronal", (0, 0, -1)), (2, "axial", (0, 0, 0))],
)
def test_slices_are_cut_along_the_thick_axis_and_stand_upright(
    tmp_path: Path, thick: int, plane: str, top_left: tuple[int, int, int]
) -> None:
    voxels, _ = marked()
    sizes = [1.0, 1.0, 1.0, 1.0]
    sizes[thick] = 1.25
    write_nifti(tmp_path / "thick.nii", voxels, np.diag(sizes))
    scan, images = decoded(tmp_path / "thick.nii")
    assert {image.plane for image in images} == {plane}
    assert scan.frames == voxels.shape[thick]
    # Sagittal frames run from the patient's left (the last index) to the right; coronal ones from front to back.
    first = images[-1] if plane == "sagittal" else images[0]
    assert int(first.pixels[0, 0]) == int(voxels[top_left])
    positions = [image.position_mm or 0.0 for image in images]
    assert positions == sorted(positions)


@given(
    st.permutations([0, 1, 2]),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
    st.floats(-0.3, 0.3),
    st.floats(-0.3, 0.3),
)
@settings(max_examples=60, deadline=None)
def test_tilted_stacks_keep_their_frames_whatever_the_storage(
    order: list[int], flips: tuple[bool, bool, bool], tilt: float, turn: float
) -> None:
    voxels, affine = marked()
    about_x = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    about_z = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine[:3, :3] = about_x @ about_z @ affine[:3, :3]
    plain = Stack.of((6, 7, 4), affine)
    stored, placed = reoriented(voxels, affine, (order[0], order[1], order[2]), flips)
    other = Stack.of((stored.shape[0], stored.shape[1], stored.shape[2]), placed)
    assert other.positions_mm == pytest.approx(plain.positions_mm)
    for index in range(4):
        np.testing.assert_array_equal(other.frame(stored, index), plain.frame(voxels, index))
        assert other.planes[index].position == pytest.approx(plain.planes[index].position, abs=1e-9)


@pytest.mark.parametrize("packed", [False, True])
def test_one_volume_in_four_formats_is_one_volume(tmp_path: Path, packed: bool) -> None:
    voxels, affine = marked()
    write_nifti(tmp_path / ("v.nii.gz" if packed else "v.nii"), voxels, affine)
    for ending in ("mha", "mhd", "nrrd", "nhdr"):
        write_with_itk(tmp_path / f"v.{ending}", voxels, affine, packed=packed)
    truth_scan, truth = decoded(next(tmp_path.glob("v.nii*")))
    for ending in ("mha", "mhd", "nrrd", "nhdr"):
        scan, images = decoded(tmp_path / f"v.{ending}")
        assert scan.format == "itk"
        assert len(scan.companions) == (ending in ("mhd", "nhdr"))
        assert [plane.position for plane in scan.planes] == [
            pytest.approx(plane.position, abs=1e-4) for plane in truth_scan.planes
        ]
        for image, true in zip(images, truth, strict=True):
            np.testing.assert_array_equal(image.pixels, true.pixels)
            assert image.position_mm == pytest.approx(true.position_mm, abs=1e-4)
            assert image.plane == true.plane


@pytest.mark.parametrize("dtype", ["u1", "i1", "<u2", ">i2", "<i4", ">u4", "<i8", "<f4", ">f8"])
def test_every_voxel_type_gives_its_values(tmp_path: Path, dtype: str) -> None:
    values = np.arange(60).reshape(3, 4, 5).astype(dtype)
    image = nibabel.Nifti1Image(values, np.diag([-1.0, -1.0, 4.0, 1.0]), dtype=np.dtype(dtype))
    nibabel.save(image, tmp_path / "typed.nii")
    _, images = decoded(tmp_path / "typed.nii")
    for index, frame in enumerate(images):
        np.testing.assert_array_equal(frame.pixels.astype(float), values[:, :, index].T.astype(float))


def test_scale_is_applied_once_and_stays_exact_for_whole_numbers(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.full((4, 4, 2), 1064, np.int16), np.diag([-1.0, -1.0, 3.0, 1.0]))
    image.header.set_slope_inter(1.0, -1024.0)
    image.to_filename(tmp_path / "ct.nii")
    raw = bytearray((tmp_path / "ct.nii").read_bytes())
    struct.pack_into("<2f", raw, 112, 1.0, -1024.0)
    raw[352:] = np.full(32, 1064, "<i2").tobytes()
    (tmp_path / "ct.nii").write_bytes(raw)
    _, images = decoded(tmp_path / "ct.nii")
    assert images[0].pixels.dtype == np.int16
    assert set(images[0].pixels.ravel().tolist()) == {40}


def test_not_a_number_is_replaced_and_told(tmp_path: Path) -> None:
    voxels = np.linspace(-5, 5, 48).reshape(4, 4, 3).astype(np.float32)
    voxels[0, 0, 0], voxels[1, 0, 0], voxels[2, 0, 0] = np.nan, np.inf, -np.inf
    write_nifti(tmp_path / "nan.nii", voxels, np.diag([1.0, 1.0, 3.0, 1.0]))
    scan, images = decoded(tmp_path / "nan.nii")
    assert any("3 of 48 voxels are NaN" in warning for warning in scan.warnings)
    low = float(voxels[np.isfinite(voxels)].min())
    assert images[0].pixels[0, :3].tolist() == pytest.approx([low, 5.0, low])
    write_nifti(tmp_path / "all.nii", np.full((4, 4, 3), np.nan, np.float32), np.eye(4))
    with pytest.raises(RejectedInput, match="Every voxel is NaN"):
        decoded(tmp_path / "all.nii")


def test_complex_voxels_are_magnitudes_and_rgb_is_colour(tmp_path: Path) -> None:
    write_nifti(tmp_path / "complex.nii", np.full((4, 4, 2), 3 + 4j, np.complex64), np.diag([1.0, 1.0, 2.0, 1.0]))
    _, images = decoded(tmp_path / "complex.nii")
    assert images[0].pixels.dtype == np.float32
    assert set(images[0].pixels.ravel().tolist()) == {5.0}
    rgb = np.zeros((4, 5, 2), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    rgb["R"], rgb["G"] = 10, 20
    write_nifti(tmp_path / "rgb.nii", rgb, np.diag([1.0, 1.0, 2.0, 1.0]))
    _, images = decoded(tmp_path / "rgb.nii")
    assert images[1].pixels.shape == (5, 4, 3)
    assert images[1].pixels[0, 0].tolist() == [10, 20, 0]


def test_of_four_dimensions_the_first_volume_is_used_and_told(tmp_path: Path) -> None:
    voxels = np.stack([np.full((4, 5, 3), value, np.int16) for value in range(6)], axis=-1)
    write_nifti(tmp_path / "bold.nii.gz", voxels, np.diag([1.0, 1.0, 3.0, 1.0]))
    scan, images = decoded(tmp_path / "bold.nii.gz")
    assert scan.frames == 3
    assert scan.warnings == ("The file holds 6 volumes: the first one is used.",)
    assert {int(image.pixels.max()) for image in images} == {0}


def test_pairs_are_read_together_and_told_apart(tmp_path: Path) -> None:
    voxels, _ = marked()
    for name, value in (("a", 1), ("b", 2)):
        nibabel.save(
            nibabel.Nifti1Pair(voxels + np.int16(value), np.diag([-1.0, -1.0, 3.0, 1.0])), tmp_path / f"{name}.hdr"
        )
    first, images = decoded(tmp_path / "a.hdr")
    second, _ = decoded(tmp_path / "b.hdr")
    assert first.companions == (tmp_path / "a.img",)
    assert first.bytes == sum((tmp_path / f"a.{ending}").stat().st_size for ending in ("hdr", "img"))
    assert first.sha256 != second.sha256  # though their headers are the same bytes
    assert int(images[0].pixels[0, 0]) == 1001
    with zipfile.ZipFile(tmp_path / "pair.zip", "w") as archive:
        archive.write(tmp_path / "a.hdr", "folder/a.hdr")
        archive.write(tmp_path / "a.img", "folder/a.img")
    zipped, images = decoded(tmp_path / "pair.zip", "folder/a.hdr")
    assert zipped.sha256 == first.sha256
    assert int(images[0].pixels[0, 0]) == 1001
    with pytest.raises(RejectedInput, match="Read along with its header"):
        open_reader(Source(tmp_path / "a.img"), LIMITS)
    (tmp_path / "a.img").unlink()
    with pytest.raises(RejectedInput, match="missing"):
        decoded(tmp_path / "a.hdr")


@pytest.mark.parametrize(
    "named", ["../raw.raw", "/etc/passwd", "..", "a\\b.raw", "http://host/x.raw", "sub/raw.raw", ""]
)
def test_a_header_can_not_point_outside_its_folder(tmp_path: Path, named: str) -> None:
    inner = tmp_path / "inner"
    (inner / "sub").mkdir(parents=True)
    for place in (tmp_path / "raw.raw", inner / "sub" / "raw.raw"):
        place.write_bytes(bytes(64))
    (inner / "a.mhd").write_text(
        f"ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\nElementDataFile = {named}\n"
    )
    (inner / "a.nhdr").write_text(
        f"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 4 4 4\nencoding: raw\ndata file: {named}\n"
    )
    for name in ("a.mhd", "a.nhdr"):
        with pytest.raises(RejectedInput):
            decoded(inner / name)


def test_a_header_can_not_point_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(64))
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "x.raw").symlink_to(tmp_path / "secret")
    (inner / "a.mhd").write_text(
        "ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\nElementDataFile = x.raw\n"
    )
    with pytest.raises(RejectedInput, match="link"):
        decoded(inner / "a.mhd")


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz", "v.mha", "v.nrrd"])
def test_every_truncation_is_refused(tmp_path: Path, name: str) -> None:
    voxels = np.random.default_rng(1).integers(0, 4000, (8, 8, 4), np.int16)
    path = tmp_path / name
    if ".nii" in name:
        write_nifti(path, voxels, np.diag([1.0, 1.0, 3.0, 1.0]))
    else:
        write_with_itk(path, voxels, np.diag([1.0, 1.0, 3.0, 1.0]), packed=True)
    whole = path.read_bytes()
    decoded(path)
    for length in range(0, len(whole), max(1, len(whole) // 97)):
        path.write_bytes(whole[:length])
        with pytest.raises(RejectedInput):
            decoded(path)


def test_every_flip_under_a_checksum_is_refused(tmp_path: Path) -> None:
    voxels = np.random.default_rng(2).integers(0, 4000, (8, 8, 4), np.int16)
    path = tmp_path / "v.nii.gz"
    write_nifti(path, voxels, np.diag([1.0, 1.0, 3.0, 1.0]))
    whole = gzip.compress(gzip.decompress(path.read_bytes()), mtime=0)
    for place in range(10, len(whole), 7):  # from behind gzip's own header, which no checksum covers
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        with pytest.raises(RejectedInput):
            decoded(path)


@given(st.binary(max_size=400), st.sampled_from(["nrrd", "meta", "nifti"]))
@settings(max_examples=300, deadline=None)
def test_any_header_ends_in_a_reason_or_an_image(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, kind: str
) -> None:
    start = {
        "nrrd": b"NRRD0004\ntype: uchar\ndimension: 3\n",
        "meta": b"ObjectType = Image\nNDims = 3\nElementType = MET_UCHAR\n",
        "nifti": struct.pack("<i", 348) + bytes(36) + struct.pack("<8h", 3, 4, 4, 4, 1, 1, 1, 1),
    }[kind]
    body = start + noise
    if kind == "nifti":
        body = (body + bytes(348))[:344] + b"n+1\x00" + noise
    path = tmp_path_factory.getbasetemp() / f"noise.{kind}"
    path.write_bytes(body)
    try:
        decoded(path)
    except (RejectedInput, ValueError):
        return  # a ValueError of a library is turned into a Rejection by the worker


REAL = [] if shared_root() is None else sorted((shared_root() / "volumes" / "files").iterdir())  # type: ignore[operator]


def by_another_library(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    """Values [i, j, k] and the affine to LPS: by nibabel for NIfTI (ITK knows no shear), else by SimpleITK."""
    if ".nii" in path.name:
        loaded: Any = nibabel.load(path)
        values = np.asarray(loaded.dataobj)
        return values.reshape(*values.shape[:3], -1)[..., 0], RAS_TO_LPS @ loaded.affine
    import SimpleITK

    image = SimpleITK.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) @ np.diag(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return SimpleITK.GetArrayFromImage(image).T, affine


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_real_volumes_have_the_values_another_library_finds_at_the_same_place(path: Path) -> None:
    scan, images = decoded(path)
    values, affine = by_another_library(path)
    assert scan.frames == len(images) == len(scan.planes)
    for index in (0, len(images) // 2, len(images) - 1):
        plane, frame = scan.planes[index], images[index]
        rows, columns = frame.pixels.shape[:2]
        assert frame.spacing is not None
        for row, column in ((0, 0), (rows - 1, columns // 2), (rows // 2, columns // 2)):
            place = np.array(plane.position) + row * np.array(plane.column) * frame.spacing[0]
            place = place + column * np.array(plane.row) * frame.spacing[1]
            i, j, k = np.rint(np.linalg.solve(affine, [*place, 1.0])[:3]).astype(int)
            expected = values[i, j, k]
            expected = list(expected) if values.dtype.names else np.nan_to_num(float(expected))
            np.testing.assert_allclose(frame.pixels[row, column], expected, rtol=1e-5, atol=1e-4)


def test_hippocampus_volumes_match_nibabel(shared: Path) -> None:
    rows = [row["path"] for row in labels(shared, "volumes") if row["path"].startswith("hippocampus/")][::20]
    assert len(rows) >= 5
    for name in rows:
        _, images = decoded(shared / "volumes" / name)
        canonical: Any = nibabel.as_closest_canonical(nibabel.load(shared / "volumes" / name))
        voxels = np.asarray(canonical.dataobj)
        for index, image in enumerate(images):
            np.testing.assert_allclose(image.pixels, voxels[::-1, ::-1, index].T, rtol=1e-6)
