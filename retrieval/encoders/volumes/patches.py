"""Cutting a resampled volume into what a 3D network sees. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from retrieval.encoders.volumes.recipe import VolumeRecipe
from retrieval.encoders.volumes.volume import Sampling, Volume, Voxels, resample, sampling
from retrieval.errors import RejectedInput

Patch = npt.NDArray[np.float32]  # [channels, *recipe.patch], 0 to 1 before mean and std
Range = tuple[float, float]
_SAMPLED_VOXELS = 1 << 20  # percentiles of a larger volume are taken on a regular grid of about this many voxels


@dataclass(frozen=True, slots=True)
class Patches:
    """A resampled volume and where its patches begin (in voxels of it, below 0 where it is bordered)."""

    voxels: Voxels
    ranges: tuple[Range, ...]
    starts: tuple[tuple[int, int, int], ...]
    recipe: VolumeRecipe

    def cut(self, n: int) -> Patch:
        """Patch ``n`` as the network sees it."""
        recipe = self.recipe
        within, into = [], []
        for start, length, size in zip(self.starts[n], recipe.patch, self.voxels.shape, strict=True):
            first, past = max(start, 0), min(start + length, size)
            within.append(slice(first, past))
            into.append(slice(first - start, past - start))
        inside = self.voxels[tuple(within)]
        channels = np.zeros((len(self.ranges), *recipe.patch), np.float32)  # the border is the low end of every range
        for channel, (low, high) in zip(channels, self.ranges, strict=True):
            channel[tuple(into)] = _to_unit(inside, low, high)
        shape = (-1, 1, 1, 1)
        mean, std = (np.asarray(each, np.float32).reshape(shape) for each in (recipe.mean, recipe.std))
        return np.ascontiguousarray((channels - mean) / std, dtype=np.float32)


def patches_of(volume: Volume, recipe: VolumeRecipe) -> tuple[Patches, Sampling]:
    """The volume turned, resampled and ready to be cut. RejectedInput for what the recipe was not made for."""
    check_modality(volume.modality, recipe)
    _check_values(volume, recipe)
    grid = sampling(volume.geometry, recipe)
    ranges = recipe.ranges
    if recipe.percentiles:
        ranges = (_percentiles(volume, recipe.percentiles),)
    voxels = resample(volume, grid, min(low for low, _ in ranges))
    return Patches(voxels, ranges, starts_of(grid.shape, recipe), recipe), grid


def check_modality(modality: str, recipe: VolumeRecipe) -> None:
    """RejectedInput for a modality that is known and that the recipe was not made for."""
    if modality and modality.upper() not in recipe.modalities:
        wanted = " or ".join(recipe.modalities)
        raise RejectedInput("embed", f"This encoder takes volumes of {wanted}, got one of {modality.upper()}.")


def _check_values(volume: Volume, recipe: VolumeRecipe) -> None:
    """RejectedInput unless the volume is grey and, taken for CT, can be in Hounsfield units."""
    if volume.voxels.ndim != 3:
        raise RejectedInput("embed", "Expected a grey volume, got one in colour.")
    taken_for = (volume.modality.upper(),) if volume.modality else recipe.modalities
    if "CT" in taken_for and not recipe.percentiles and volume.voxels.dtype.kind == "u":
        raise RejectedInput(
            "embed", "Expected Hounsfield units, got values that can't be negative: is a rescale missing?"
        )


def starts_of(shape: tuple[int, int, int], recipe: VolumeRecipe) -> tuple[tuple[int, int, int], ...]:
    """Where the patches begin, in order. Along an axis shorter than the patch there is one, about the middle; along a
    longer one they step by what they do not share, and the last ends where the volume ends."""
    axes = []
    for size, length in zip(shape, recipe.patch, strict=True):
        if recipe.layout == "whole" or size <= length:
            axes.append([(size - length) // 2])
            continue
        step = max(1, round(length * (1 - recipe.overlap)))
        axes.append([*range(0, size - length, step), size - length])
    return tuple((one, two, three) for one, two, three in product(*axes))


def slices_of(grid: Sampling, recipe: VolumeRecipe, start: tuple[int, int, int]) -> tuple[int, tuple[int, int]]:
    """The slice of the volume nearest the centre of the patch at ``start``, and the first and last it covers."""
    axis = grid.order.index(0)
    first, past = max(start[axis], 0), min(start[axis] + recipe.patch[axis], len(grid.slices))
    places = grid.slices[first:past]
    low, high = float(places.min()), float(places.max())
    return round((low + high) / 2), (round(low), round(high))


def _to_unit(raw: Voxels, low: float, high: float) -> Voxels:
    """``low`` to 0, ``high`` to 1, clipped; zeros where there is no contrast."""
    if high <= low:
        return np.zeros_like(raw)
    scaled: Voxels = (raw - np.float32(low)) / np.float32(high - low)
    return np.clip(scaled, 0, 1, out=scaled)


def _percentiles(volume: Volume, percentiles: tuple[float, float]) -> Range:
    step = max(1, round((volume.voxels.size / _SAMPLED_VOXELS) ** (1 / 3)))
    sample = volume.voxels[::step, ::step, ::step].astype(np.float64)
    low, high = (float(value) for value in np.percentile(sample, percentiles))
    return (low, high) if high > low else (float(sample.min()), float(sample.max()))
