"""A case as one volume in the patient, for encoders that take volumes: one volume in memory at a time.

Gallery and query go through ``embed_volume`` alike. What can be refused from the headers is refused before anything is
decoded: a single frame, a loop in time, a modality the encoder was not made for, a volume over the memory limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from indexer.drafts import Draft, without_files
from indexer.pixels import turn_of
from indexer.sandbox import Sandbox
from indexer.sources import Frame, Plane, Rejection, Scan
from retrieval.encoders.base import VolumeEncoder
from retrieval.encoders.pooling import Pooling, pool
from retrieval.encoders.volumes.patches import check_modality
from retrieval.encoders.volumes.recipe import VolumeRecipe
from retrieval.encoders.volumes.volume import Geometry, Volume, sampling
from retrieval.errors import LimitExceeded, RejectedInput, UsageError
from retrieval.types import CaseKind, Embedding, Image

_NOTHING = np.empty((0, 0), np.uint8)
_BYTES_A_VOXEL = np.dtype(np.float32).itemsize  # at most, of what is read; and of what is resampled


@dataclass(frozen=True, slots=True)
class EmbeddedVolume:
    """``images``: the slices, in order, views into one array. ``failed``: files that were left out, by number."""

    draft: Draft
    embedding: Embedding
    images: tuple[Image, ...]
    digests: tuple[bytes, ...]
    thumbnail: bytes
    failed: tuple[Rejection, ...] = ()


@dataclass(frozen=True, slots=True)
class _Read:
    draft: Draft
    voxels: npt.NDArray[np.generic]
    frames: tuple[Frame, ...]  # without their own pixels
    failed: tuple[Rejection, ...]


def embed_volume(
    sandbox: Sandbox, encoder: VolumeEncoder, pooling: Pooling, draft: Draft, most_bytes: int
) -> EmbeddedVolume:
    """Decode every slice of a draft, encode it as a whole, pool the rows of its patches.

    Raises RejectedInput for what is not a volume the encoder takes, or when no slice decodes; LimitExceeded for one
    that would take more than ``most_bytes`` as read and resampled.
    """
    recipe = encoder.card.volume
    if recipe is None:
        raise UsageError(f"The encoder '{encoder.card.name}' has no volume recipe in its card: add one.")
    check_modality(draft.case.attributes.modality, recipe)
    declared = geometry_of(draft)
    _check_memory(declared, recipe, most_bytes)
    read = _read(sandbox, draft, declared.shape[1:])
    geometry = geometry_of(read.draft)  # of the slices that were read
    found = encoder.encode_volume(Volume(read.voxels, geometry, draft.case.attributes.modality))
    return EmbeddedVolume(
        draft=read.draft,
        embedding=Embedding(pool(found.rows, pooling), found.rows, found.middles),
        images=tuple(replace(frame.image, pixels=plane) for frame, plane in zip(read.frames, read.voxels, strict=True)),
        digests=tuple(frame.digest for frame in read.frames),
        thumbnail=next((frame.thumbnail for frame in read.frames if frame.thumbnail), b""),
        failed=read.failed,
    )


def geometry_of(draft: Draft) -> Geometry:
    """Where the slices of a case lie once each is turned as it is displayed; RejectedInput when it has no place."""
    case = draft.case
    if case.kind is not CaseKind.VOLUME or len(case.frames) < 2:
        raise RejectedInput("embed", "This encoder takes volumes of several slices, got a single frame.")
    seen = [_displayed(draft.scans[frame.file], frame.frame) for frame in case.frames]
    first = draft.scans[case.frames[0].file]
    if first.spacing is None or any(plane is None for plane in seen):
        raise RejectedInput(
            "embed", "This encoder takes volumes in space, got frames without position, orientation or pixel spacing."
        )
    planes = [plane for plane in seen if plane is not None]
    turned = turn_of(first.planes[case.frames[0].frame].row, first.planes[case.frames[0].frame].column)[0]
    rows, columns, (down, across) = first.rows, first.columns, first.spacing
    if turned:
        rows, columns, down, across = columns, rows, across, down
    corners = tuple(plane.position for plane in planes)
    return Geometry((len(planes), rows, columns), corners, planes[0].row, planes[0].column, (down, across))


def _displayed(scan: Scan, frame: int) -> Plane | None:
    """The plane of a frame after its turn to the radiological view: its corner moves, its axes swap or reverse."""
    if len(scan.planes) != scan.frames or scan.spacing is None:
        return None
    plane = scan.planes[frame]
    transpose, flip_rows, flip_columns = turn_of(plane.row, plane.column)
    corner, row, column = (np.asarray(each, np.float64) for each in (plane.position, plane.row, plane.column))
    rows, columns, (down, across) = scan.rows, scan.columns, scan.spacing
    if transpose:
        row, column, rows, columns, down, across = column, row, columns, rows, across, down
    if flip_rows:
        corner, column = corner + column * (rows - 1) * down, -column
    if flip_columns:
        corner, row = corner + row * (columns - 1) * across, -row
    return Plane(_triple(corner), _triple(row), _triple(column))


def _triple(vector: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    return float(vector[0]), float(vector[1]), float(vector[2])


def _check_memory(geometry: Geometry, recipe: VolumeRecipe, most_bytes: int) -> None:
    voxels = int(np.prod(geometry.shape, dtype=np.int64))
    resampled = int(np.prod(sampling(geometry, recipe).shape, dtype=np.int64))
    needed = (voxels + resampled) * _BYTES_A_VOXEL
    if needed > most_bytes:
        raise LimitExceeded(
            "embed",
            f"A volume of {' x '.join(map(str, geometry.shape))} voxels, {resampled} once resampled, may take "
            f"{needed >> 20} MB; the limit is {most_bytes >> 20} MB (volume_memory_mb).",
        )


def _read(sandbox: Sandbox, draft: Draft, plane: tuple[int, int]) -> _Read:
    """Every slice, each copied into its place as it comes; files that can't be decoded are left out and told.

    ``plane``: (rows, columns) the headers declare, for which there is memory.
    """
    asked = ((wanted, frame) for wanted in draft.wanted for frame in wanted.frames or ())
    places = {request: n for n, request in enumerate(asked)}
    frames: dict[int, Frame] = {}
    failed: dict[int, Rejection] = {}
    numbers = {scan.source: n for n, scan in enumerate(draft.scans)}
    voxels: npt.NDArray[np.generic] | None = None
    with closing(sandbox.read(draft.wanted)) as replies:
        for reply in replies:
            if isinstance(reply, Rejection):
                failed[numbers[reply.source]] = reply
                continue
            place, pixels = places[reply.wanted, reply.index], reply.image.pixels
            voxels = _room(voxels, (len(places), *plane), pixels)
            voxels[place] = pixels
            frames[place] = replace(reply, image=replace(reply.image, pixels=_NOTHING))
    kept = [n for n, frame in enumerate(draft.case.frames) if n in frames and frame.file not in failed]
    if voxels is None or not kept:
        raise _error(next(iter(failed.values())))
    if failed:
        draft = without_files(draft, frozenset(failed))
        voxels = voxels[kept]
    return _Read(draft, voxels, tuple(frames[n] for n in kept), tuple(failed.values()))


def _room(
    voxels: npt.NDArray[np.generic] | None, shape: tuple[int, int, int], pixels: npt.NDArray[np.generic]
) -> npt.NDArray[np.generic]:
    """An array of ``shape`` that can hold ``pixels``: of their type, float32 once types differ between slices."""
    if pixels.ndim != 2:
        raise RejectedInput("embed", "Expected a grey volume, got one in colour.")
    if pixels.shape != shape[1:]:
        raise RejectedInput("embed", f"The header declares slices of {shape[1:]}, one of {pixels.shape} was decoded.")
    if voxels is None:
        return np.zeros(shape, pixels.dtype)
    return voxels if voxels.dtype in (pixels.dtype, np.float32) else voxels.astype(np.float32)


def _error(rejection: Rejection) -> RejectedInput:
    return (LimitExceeded if rejection.limit else RejectedInput)(rejection.stage, rejection.reason)


def refusals(draft: Draft, error: RejectedInput) -> tuple[Rejection, ...]:
    """Why a case has no embedding, told for each of its files."""
    limit = isinstance(error, LimitExceeded)
    return tuple(Rejection(scan.source, error.stage, error.reason, scan.sha256, limit) for scan in draft.scans)


def chosen_images(images: Sequence[Image], numbers: Sequence[int]) -> tuple[Image, ...]:
    """Copies of some of the slices, so that the rest of the volume can go."""
    return tuple(replace(images[n], pixels=images[n].pixels.copy()) for n in numbers)
