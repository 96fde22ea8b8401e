"""Preprocessing of volumes as data: what a 3D encoder wants a CT, MR or PET series to be. Part of the fingerprint."""

from __future__ import annotations

import math
from dataclasses import dataclass

from retrieval.errors import UsageError

LAYOUTS = ("patches", "whole")
POOLS = ("mean", "min", "max")
_OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}


@dataclass(frozen=True, slots=True)
class VolumeRecipe:
    """How a volume becomes what a 3D network sees: turned, resampled, brought to 0..1, cut into patches.

    ``orientation``: where the three axes of the array run to, as nibabel and MONAI name it: in "SPL" the first index
    grows towards the head (Superior), the second to the back (Posterior), the third to the patient's Left. The axes
    stay those of the acquisition, turned to the nearest of the patient's; an oblique volume stays oblique.
    ``spacing``: mm between voxels along each of those axes. ``ranges``: (low, high) in the units of the voxels (HU for
    CT) that become 0 and 1, what lies beyond is clipped; one channel for each. ``percentiles``, where given, take
    the place of ``ranges``: the low and high percentile of the volume itself, one channel.
    ``layout``: "patches" covers the volume with a grid of ``patch`` voxels whose neighbours share ``overlap`` (0 to
    under 1) of their length; "whole" is one patch about the centre, cropped or bordered with the low end.
    ``pooling``: how the features of the patches become one vector, unless the gallery is made with another.
    ``modalities``: those it was made for; a volume known to be of another is refused. ``mean`` and ``std``: on the 0 to
    1 scale, one value or one for each channel.
    """

    name: str
    orientation: str
    spacing: tuple[float, float, float]
    patch: tuple[int, int, int]
    ranges: tuple[tuple[float, float], ...] = ((-1024.0, 2048.0),)
    percentiles: tuple[float, float] | None = None
    layout: str = "patches"
    overlap: float = 0.0
    pooling: str = "mean"
    modalities: tuple[str, ...] = ("CT",)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @property
    def channels(self) -> int:
        return 1 if self.percentiles else len(self.ranges)

    def __post_init__(self) -> None:
        sizes = (1, self.channels)
        low, high = self.percentiles or (0.0, 100.0)
        faults = [
            (
                not _is_orientation(self.orientation),
                f"orientation must be three of R/L, A/P, S/I, got '{self.orientation}'",
            ),
            (
                len(self.spacing) != 3 or not all(0 < step < math.inf for step in self.spacing),
                f"spacing must be three steps over 0 mm, got {self.spacing}",
            ),
            (len(self.patch) != 3 or min(self.patch) < 1, f"patch must be three sizes of at least 1, got {self.patch}"),
            (
                not self.ranges or not all(-math.inf < one < other < math.inf for one, other in self.ranges),
                f"ranges must be pairs of a low and a higher value, got {self.ranges}",
            ),
            (not 0 <= low < high <= 100, f"percentiles must rise within 0 to 100, got {self.percentiles}"),
            (self.layout not in LAYOUTS, f"layout must be one of {', '.join(LAYOUTS)}, got '{self.layout}'"),
            (not 0 <= self.overlap < 1, f"overlap must be at least 0 and under 1, got {self.overlap}"),
            (self.pooling not in POOLS, f"pooling must be one of {', '.join(POOLS)}, got '{self.pooling}'"),
            (len(self.mean) not in sizes, f"mean must have 1 or {self.channels} values, got {self.mean}"),
            (
                len(self.std) not in sizes or min(self.std) <= 0,
                f"std must be 1 or {self.channels} over 0, got {self.std}",
            ),
        ]
        for wrong, sentence in faults:
            if wrong:
                raise UsageError(f"The recipe '{self.name}' can't be used: {sentence}.")


def _is_orientation(code: str) -> bool:
    return (
        len(code) == 3 and all(letter in _OPPOSITE for letter in code) and len({*code, *map(_OPPOSITE.get, code)}) == 6
    )


CT_FM = VolumeRecipe(
    name="ct-fm-v1",
    orientation="SPL",
    spacing=(3.0, 1.0, 1.0),
    patch=(24, 128, 128),
    ranges=((-1024.0, 2048.0),),
    pooling="mean",
)
MERLIN = VolumeRecipe(
    name="merlin-v1",
    orientation="RAS",
    spacing=(1.5, 1.5, 3.0),
    patch=(224, 224, 160),
    ranges=((-1000.0, 1000.0),),
    layout="whole",
)
PUBLISHED = {recipe.name: recipe for recipe in (CT_FM, MERLIN)}
