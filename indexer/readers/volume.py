"""Single-file volumes (NIfTI, MetaImage, NRRD): what their headers have in common, scanned and read one way."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.limits import Limits
from indexer.pixels import rescale
from indexer.readers.bytes import digest_streams, open_source
from indexer.readers.stack import Affine, Stack
from indexer.readers.voxels import Packing, VoxelBlock, check_size, chunks, voxels
from indexer.sources import Scan, Source
from retrieval.errors import RejectedInput
from retrieval.types import Image, Pixels


@dataclass(frozen=True, slots=True)
class VolumeHeader:
    """A header understood.

    ``shape`` is the full one, first axis fastest; ``spatial`` says which of its axes are i, j, k (-1: an axis of length
    1 that the file does not write out), ``channel`` which holds colour or vector components. ``affine`` maps voxel
    indices to LPS mm.
    """

    source: Source
    data: Source  # the file that holds the voxels: ``source`` itself, or its companion
    shape: tuple[int, ...]
    spatial: tuple[int, int, int]
    channel: int | None
    dtype: np.dtype[Any]
    affine: Affine
    start: int = 0
    skip: int = 0
    packing: Packing = Packing.RAW
    slope: float = 1.0
    intercept: float = 0.0
    warnings: tuple[str, ...] = ()

    @property
    def grid(self) -> tuple[int, int, int]:
        i, j, k = (1 if axis < 0 else self.shape[axis] for axis in self.spatial)
        return (i, j, k)

    @property
    def components(self) -> int:
        return 1 if self.channel is None else self.shape[self.channel]

    @property
    def colour(self) -> bool:
        return self.dtype == np.uint8 and self.components in (3, 4)

    @property
    def others(self) -> int:
        """How many volumes the file holds beyond space and channel (time, echo, gradient direction)."""
        return math.prod(self.shape) // (math.prod(self.grid) * self.components)

    @property
    def block(self) -> VoxelBlock:
        used = max(*self.spatial, -1 if self.channel is None else self.channel) + 1
        wanted = math.prod(self.shape[:used])
        count = math.prod(self.shape)
        return VoxelBlock(self.data, self.dtype, count, wanted, self.start, self.skip, self.packing)


def scan_volume(header: VolumeHeader, format_name: str, limits: Limits) -> Scan:
    """The Scan of a volume; sizes and limits checked, floating-point voxels looked through for NaN and infinity."""
    stack = checked_stack(header, limits)
    paired = header.data != header.source
    with contextlib.ExitStack() as files:
        streams = [files.enter_context(open_source(header.source, limits))]
        if paired:
            streams.append(files.enter_context(open_source(header.data, limits)))
        sha256, size = digest_streams(*streams)
    return Scan(
        source=header.source,
        format=format_name,
        sha256=sha256,
        bytes=size,
        frames=stack.frames,
        rows=stack.rows,
        columns=stack.columns,
        spacing=stack.spacing,
        planes=stack.planes,
        volumetric=stack.frames > 1,
        companions=(header.data.path,) if paired and not header.data.member else (),
        warnings=(*header.warnings, *_counted(header), *_finiteness(header, limits)),
    )


def read_volume(header: VolumeHeader, frames: Sequence[int] | None, limits: Limits) -> Iterator[tuple[int, Image]]:
    """The frames asked for (None: all), cut and turned; values as the header scales them."""
    stack = checked_stack(header, limits)
    wanted = range(stack.frames) if frames is None else frames
    if any(not 0 <= index < stack.frames for index in wanted):
        raise RejectedInput("decode", f"A frame outside 0 to {stack.frames - 1} was asked for: index the file again.")
    flat = voxels(header.block, limits)
    grid = _arranged(header, flat)
    low, high = _finite_range(header, flat)
    for index in wanted:
        pixels = _pixels(header, stack.frame(grid, index), low, high)
        yield (
            index,
            Image(
                pixels=pixels,
                spacing=stack.spacing,
                position_mm=stack.positions_mm[index],
                plane=stack.plane,
                frame_number=index + 1,
            ),
        )


def checked_stack(header: VolumeHeader, limits: Limits) -> Stack:
    """The stack of frames, after the declared sizes were held against the limits and the file."""
    if min(header.shape) < 1:
        raise RejectedInput("scan", f"The declared size {header.shape} has an empty axis: there is no image in it.")
    if sum(length > 1 for length in header.grid) < 2:
        raise RejectedInput("scan", f"A grid of {header.grid} voxels is not an image: expected two axes longer than 1.")
    if not np.isfinite(header.affine).all() or abs(np.linalg.det(header.affine[:3, :3])) < 1e-12:
        raise RejectedInput(
            "scan", "The header's orientation is unusable: it is not finite, or maps the volume onto a plane."
        )
    # Every possible frame and the stack are within the limits before any per-frame geometry is made.
    i, j, k = header.grid
    limits.check_frame(*sorted((i, j, k))[1:])
    limits.check_frame(i, j, k)
    check_size(header.block, limits)
    return Stack.of(header.grid, header.affine)


def _counted(header: VolumeHeader) -> Iterator[str]:
    if header.others > 1:
        yield f"The file holds {header.others} volumes: the first one is used."
    if header.components > 1 and not header.colour:
        yield f"Each voxel has {header.components} components: the first one is used."


def _finiteness(header: VolumeHeader, limits: Limits) -> Iterator[str]:
    if header.dtype.kind not in "fc":
        return
    bad = total = 0
    for chunk in chunks(header.block, limits):
        total += chunk.size
        bad += int(chunk.size - np.count_nonzero(np.isfinite(chunk)))
    if bad == total:
        raise RejectedInput("scan", "Every voxel is NaN or infinite: there is no image in it.")
    if bad:
        yield f"{bad} of {total} voxels are NaN or infinite: they are shown as the lowest or highest finite value."


def _arranged(header: VolumeHeader, flat: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[i, j, k] or [i, j, k, 3]: a view, the first of every axis that is neither space nor colour."""
    used = max(*header.spatial, -1 if header.channel is None else header.channel) + 1
    array = flat.reshape(header.shape[:used], order="F")
    kept = {axis for axis in header.spatial if axis >= 0} | ({header.channel} if header.colour else set())
    names = [axis for axis in range(used) if axis in kept]
    array = array[tuple(slice(None) if axis in kept else 0 for axis in range(used))]
    order = [names.index(axis) for axis in header.spatial if axis >= 0]
    if header.colour and header.channel is not None:
        order.append(names.index(header.channel))
    array = array.transpose(order)
    for position, axis in enumerate(header.spatial):
        if axis < 0:
            array = np.expand_dims(array, position)
    return array[..., :3] if header.colour else array


def _finite_range(header: VolumeHeader, flat: npt.NDArray[Any]) -> tuple[float, float]:
    """The lowest and highest finite value of floating-point voxels, as scaled; (0, 0) where it is not needed."""
    if header.dtype.kind != "f":
        return 0.0, 0.0
    low, high, step = math.inf, -math.inf, 1 << 20
    for start in range(0, flat.size, step):
        part = flat[start : start + step]
        finite = part[np.isfinite(part)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if low > high:
        raise RejectedInput("decode", "Every voxel is NaN or infinite: there is no image in it.")
    ends = sorted((low * header.slope + header.intercept, high * header.slope + header.intercept))
    return ends[0], ends[1]


def _pixels(header: VolumeHeader, cut: npt.NDArray[Any], low: float, high: float) -> Pixels:
    if header.colour:
        return cut
    if cut.dtype.kind in "iu":
        return rescale(cut.astype(cut.dtype.newbyteorder("="), copy=False), header.slope, header.intercept)
    if cut.dtype.kind == "c":
        magnitude = np.abs(cut.astype(np.complex128) * header.slope + header.intercept)
        return _within_float32(np.nan_to_num(magnitude, nan=0.0, posinf=0.0))
    wide = cut.astype(np.float64) * header.slope + header.intercept
    if not np.isfinite(wide).all():
        wide = np.nan_to_num(wide, nan=low, posinf=high, neginf=low)
    return _within_float32(wide)


def _within_float32(values: npt.NDArray[np.float64]) -> Pixels:
    most = float(np.finfo(np.float32).max)
    return values.clip(-most, most).astype(np.float32)
