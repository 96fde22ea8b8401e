"""Writers of small volumes for tests, independent of the readers: nibabel and SimpleITK write, or bytes by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_nifti(path: Path, voxels: npt.NDArray[Any], affine_lps: npt.NDArray[np.float64]) -> None:
    """A NIfTI-1 file with the affine (voxel index -> LPS mm) in its sform."""
    nibabel.save(nibabel.Nifti1Image(voxels, RAS_TO_LPS @ affine_lps), path)


def reoriented(
    voxels: npt.NDArray[Any],
    affine: npt.NDArray[np.float64],
    order: tuple[int, int, int],
    flips: tuple[bool, bool, bool],
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    """The same volume in the same place, stored with other axes first and some of them backwards."""
    turned, placed = voxels, affine.copy()
    for axis, flip in enumerate(flips):
        if flip:
            turned = np.flip(turned, axis)
            placed[:3, 3] += placed[:3, axis] * (turned.shape[axis] - 1)
            placed[:3, axis] *= -1
    placed[:3, :3] = placed[:3, list(order)]
    return np.ascontiguousarray(turned.transpose(order)), placed


def write_with_itk(
    path: Path, voxels: npt.NDArray[Any], affine_lps: npt.NDArray[np.float64], *, packed: bool = False
) -> None:
    """MetaImage or NRRD, by the ending of ``path``, through SimpleITK."""
    import SimpleITK

    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(voxels.transpose(2, 1, 0)))
    sizes = np.linalg.norm(affine_lps[:3, :3], axis=0)
    image.SetSpacing([float(size) for size in sizes])
    image.SetDirection((affine_lps[:3, :3] / sizes).ravel().tolist())
    image.SetOrigin(affine_lps[:3, 3].tolist())
    SimpleITK.WriteImage(image, str(path), packed)
