"""A phantom in the patient that knows left from right, sampled on any grid and written as DICOM or NIfTI."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from retrieval.encoders.base import EncoderCard
from retrieval.encoders.volumes.recipe import VolumeRecipe
from retrieval.encoders.volumes.tower import VolumeTower, frame_recipe
from retrieval.encoders.volumes.volume import Geometry, Volume
from tests.dicom_files import CT, dataset, save, uid
from tests.volume_files import write_nifti

Points = npt.NDArray[np.float64]  # [..., 3], LPS mm
LEFT, ANTERIOR, SUPERIOR = (30.0, 0.0, 0.0), (0.0, -30.0, 0.0), (0.0, 0.0, 30.0)


def phantom(points: Points, size: float = 1.0) -> npt.NDArray[np.float64]:
    """HU at points: a soft ellipsoid in air, with marks of 300 HU on its left, 600 in front and 900 on top."""
    body = np.linalg.norm(points / (np.array([50.0, 45.0, 55.0]) * size), axis=-1)
    values = -1000 + 1040 / (1 + np.exp((body - 1) * 20))
    for place, height in ((LEFT, 300.0), (ANTERIOR, 600.0), (SUPERIOR, 900.0)):
        apart = np.linalg.norm(points - np.array(place) * size, axis=-1)
        values += height * np.exp(-((apart / 8) ** 2))
    return values


@dataclass(frozen=True)
class Grid:
    """Voxels [slices, rows, columns]: the centre of the first one, unit axes in that order (LPS), steps in mm."""

    shape: tuple[int, int, int]
    origin: tuple[float, float, float]
    axes: tuple[tuple[float, float, float], ...]
    steps: tuple[float, float, float]

    def points(self) -> Points:
        index = np.stack(np.meshgrid(*(np.arange(n) for n in self.shape), indexing="ij"), axis=-1)
        return np.array(self.origin) + (index * np.array(self.steps)) @ np.array(self.axes)

    def geometry(self) -> Geometry:
        corners = self.points()[:, 0, 0]
        return Geometry(
            self.shape, tuple(map(tuple, corners.tolist())), self.axes[2], self.axes[1], (self.steps[1], self.steps[2])
        )

    def volume(self, values: npt.NDArray[np.generic], modality: str = "CT") -> Volume:
        return Volume(values, self.geometry(), modality)


AXIAL = Grid((40, 48, 56), (-70.0, -60.0, -58.0), ((0, 0, 1), (0, 1, 0), (1, 0, 0)), (3.0, 2.5, 2.5))
SAGITTAL = Grid((40, 48, 44), (-62.0, -60.0, 60.0), ((1, 0, 0), (0, 0, -1), (0, 1, 0)), (3.0, 2.5, 2.8))


def rounded(points: Points, size: float = 1.0) -> npt.NDArray[np.int16]:
    return np.rint(phantom(points, size)).astype(np.int16)


def write_ct(folder: Path, grid: Grid, *, number: int = 1, size: float = 1.0) -> list[Path]:
    """A CT series of the phantom, stored with an intercept of -1024, files in shuffled order."""
    folder.mkdir(parents=True, exist_ok=True)
    values = rounded(grid.points(), size)
    corners = grid.geometry().corners
    paths = []
    for n, (plane, corner) in enumerate(zip(values, corners, strict=True)):
        made = dataset(
            (plane + 1024).astype(np.uint16), sop_class=CT, modality="CT",
            SOPInstanceUID=uid(50, number, n), SeriesInstanceUID=uid(51, number), StudyInstanceUID=uid(52, number),
            PatientID=f"P{number}", InstanceNumber=n + 1, RescaleSlope=1, RescaleIntercept=-1024,
            ImagePositionPatient=[round(each, 6) for each in corner],
            ImageOrientationPatient=[*grid.axes[2], *grid.axes[1]],
            PixelSpacing=[grid.steps[1], grid.steps[2]], SliceThickness=grid.steps[0],
        )  # fmt: skip
        paths.append(save(made, folder / f"{(n * 7) % len(values):03d}.dcm"))
    return paths


def write_nii(path: Path, grid: Grid, *, size: float = 1.0) -> Path:
    """The phantom as NIfTI; its first array axis is the grid's columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.eye(4)
    affine[:3, :3] = (np.array(grid.axes) * np.array(grid.steps)[:, None]).T[:, ::-1]
    affine[:3, 3] = grid.origin
    write_nifti(path, np.ascontiguousarray(rounded(grid.points(), size).transpose(2, 1, 0)), affine)
    return path


SMALL = VolumeRecipe(
    name="small-v1", orientation="SPL", spacing=(4.0, 3.0, 3.0), patch=(12, 24, 24), ranges=((-1024.0, 2048.0),)
)


def small_network(recipe: VolumeRecipe = SMALL, dim: int = 32, seed: int = 0) -> torch.nn.Module:
    """A small 3D network with seeded random weights: [n, channels, *patch] -> [n, dim]."""
    generator = torch.Generator().manual_seed(seed)
    features = 16 * int(np.prod([size // 12 for size in recipe.patch]))
    network = torch.nn.Sequential(
        torch.nn.Conv3d(recipe.channels, 8, 5, stride=2, padding=2), torch.nn.ReLU(),
        torch.nn.Conv3d(8, 16, 3, stride=2, padding=1), torch.nn.ReLU(),
        torch.nn.AvgPool3d(3), torch.nn.Flatten(), torch.nn.Linear(features, dim),
    ).eval().requires_grad_(False)  # fmt: skip
    for parameter in network.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) / max(1, parameter[0].numel()) ** 0.5)
    return network


def small_tower(recipe: VolumeRecipe = SMALL, dim: int = 32, seed: int = 0, name: str = "small3d") -> VolumeTower:
    """The small network, wrapped as any network of kind 3D is."""
    network = small_network(recipe, dim, seed)
    card = EncoderCard(
        name=name, spec=name, dim=dim, recipe=frame_recipe(recipe), weights_sha256=str(seed), kind="3D", volume=recipe
    )
    return VolumeTower(card, lambda batch: network(torch.from_numpy(batch)).numpy())


def rises(values: npt.NDArray[np.generic]) -> bool:
    return all(b > a for a, b in pairwise(values))
