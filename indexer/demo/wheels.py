"""Real images that come with the libraries: what the pydicom and nibabel wheels carry for their own tests."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

# Small, varied and complete: CT, MR, ultrasound, multi-frame, colour, palette, compressed, big endian.
# The last five hold no image: a report, a plan, structures, an ECG; the demo shows what becomes of such files.
_PYDICOM = (
    "CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_jp2klossless.dcm",
    "JPEG2000.dcm", "JPEG-lossy.dcm", "693_J2KI.dcm", "GDCMJ2K_TextGBR.dcm", "JPGExtended.dcm", "examples_jpeg2k.dcm",
    "examples_overlay.dcm", "examples_palette.dcm", "examples_rgb_color.dcm", "examples_ybr_color.dcm",
    "SC_rgb_jpeg_dcmtk.dcm", "SC_ybr_full_422_uncompressed.dcm", "liver_1frame.dcm", "rtdose.dcm", "image_dfl.dcm",
    "test-SR.dcm", "reportsi.dcm", "rtplan.dcm", "rtstruct.dcm", "waveform_ecg.dcm",
)  # fmt: skip
_PYDICOM_SERIES = ("dicomdirtests/98892001", "dicomdirtests/98892003", "dicomdirtests/77654033")
_NIBABEL = (
    "anatomical.nii",
    "functional.nii",
    "example4d.nii.gz",
    "example_nifti2.nii.gz",
    "reoriented_anat_moved.nii",
)
_NIBABEL_DICOM = ("0.dcm", "1.dcm", "decimal_rescale.dcm", "siemens_dwi_0.dcm.gz", "csa_slice_norm.dcm")


def pydicom_files() -> list[Path]:
    """Files and folders of the pydicom wheel."""
    return _present("pydicom", ["data/test_files/" + name for name in (*_PYDICOM, *_PYDICOM_SERIES)])


def nibabel_files() -> list[Path]:
    """Files of the nibabel wheel."""
    volumes = ["tests/data/" + name for name in _NIBABEL]
    return _present("nibabel", volumes + ["nicom/tests/data/" + name for name in _NIBABEL_DICOM])


def wheel_files() -> list[Path]:
    """All of them."""
    return pydicom_files() + nibabel_files()


def _present(package: str, names: list[str]) -> list[Path]:
    """Those that the installed version has: some distributions strip test files."""
    root = Path(str(resources.files(package)))
    return [path for name in names if (path := root / name).exists()]
