"""NIfTI-1, NIfTI-2 and Analyze 7.5: .nii, .nii.gz and .hdr/.img pairs. nibabel reads the header, ``volume`` the voxels.

The free-text fields (descrip, aux_file, db_name, intent_name, extensions) can hold names and are never read out.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError

from indexer.limits import Limits
from indexer.readers.base import HEAD_BYTES
from indexer.readers.bytes import BoundedReader, beside, gunzip, open_source
from indexer.readers.stack import Affine
from indexer.readers.volume import VolumeHeader, read_volume, scan_volume
from indexer.readers.voxels import Packing
from indexer.sources import Scan, Source
from retrieval.errors import RejectedInput
from retrieval.types import Image

_GZIP = b"\x1f\x8b"
_SINGLE_1, _PAIR_1 = b"n+1\x00", b"ni1\x00"
_SINGLE_2, _PAIR_2 = b"n+2\x00\r\n\x1a\n", b"ni2\x00\r\n\x1a\n"
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_MM_PER_UNIT = {1: 1000.0, 2: 1.0, 3: 0.001}  # xyzt_units & 7: metre, millimetre, micrometre
_CIFTI = range(3000, 3100)  # intent codes of surface and connectivity tables
_MOST_HEADER = 64 << 20  # of extensions before the voxels


class NiftiReader:
    format = "nifti"

    def can_read(self, head: bytes, name: str) -> bool:
        return _kind(head, name) is not None

    def scan(self, source: Source, limits: Limits) -> Scan:
        return scan_volume(_header(source, limits), self.format, limits)

    def read(self, source: Source, frames: Sequence[int] | None, limits: Limits) -> Iterator[tuple[int, Image]]:
        return read_volume(_header(source, limits), frames, limits)


def _kind(head: bytes, name: str) -> tuple[Any, bool] | None:
    """The nibabel header class and whether header and voxels share the file; None for anything else."""
    if len(head) < 348:
        return None
    size = {int.from_bytes(head[:4], order) for order in ("little", "big")}
    if 540 in size and len(head) >= 540 and head[4:12] in (_SINGLE_2, _PAIR_2):
        return nibabel.Nifti2Header, head[4:12] == _SINGLE_2
    if head[344:348] in (_SINGLE_1, _PAIR_1):
        return nibabel.Nifti1Header, head[344:348] == _SINGLE_1
    dimensions = {int.from_bytes(head[40:42], order) for order in ("little", "big")}
    if 348 in size and dimensions & set(range(1, 8)) and name.removesuffix(".gz").endswith(".hdr"):
        return nibabel.Spm2AnalyzeHeader, False
    return None


def _header(source: Source, limits: Limits) -> VolumeHeader:
    with open_source(source, limits) as stream:
        packed = stream.read(2) == _GZIP
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        reader = gunzip(stream, size, limits) if packed else BoundedReader(stream, size, limits)
        head = reader.read(HEAD_BYTES)
        kind = _kind(head, source.member or source.path.name.lower())
        if kind is None:
            raise RejectedInput("scan", "Expected a NIfTI or Analyze header, got something else: the file was changed.")
        make, single = kind
        try:
            header = make(head[: make.sizeof_hdr], check=True)
            facts = _understood(header)
        except (HeaderDataError, ValueError, OverflowError, KeyError) as error:
            raise RejectedInput(
                "scan", "The NIfTI header is damaged: its sizes, data type or orientation are not valid."
            ) from error
        offset = _voxel_offset(header, single)
        if single:
            head += reader.read(offset - len(head)) if offset > len(head) else b""
            _check_extensions(head, make.sizeof_hdr, offset)
    data = source if single else _companion(source, limits)
    packing = Packing.GZIP if (packed if single else _is_gzip(data, limits)) else Packing.RAW
    return dataclasses.replace(facts, source=source, data=data, skip=offset, packing=packing)


def _understood(header: Any) -> VolumeHeader:
    """Everything that the header alone tells; the files are filled in by the caller."""
    shape = tuple(int(length) for length in header.get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) < 2 or ("intent_code" in header and int(header["intent_code"]) in _CIFTI):
        raise RejectedInput(
            "scan", f"No image: {len(shape)} dimensions of a table or a signal, expected 2 or more of space."
        )
    spatial = (0, 1, 2 if len(shape) > 2 else -1)
    dtype, channels = _plain_type(header.get_data_dtype())
    slope, intercept = header.get_slope_inter() if channels == 1 else (None, None)
    affine, warnings = _affine(header)
    channel = None
    if channels > 1:
        shape, spatial, channel = (channels, *shape), (1, 2, 3 if spatial[2] == 2 else -1), 0
    nowhere = Source(Path())
    return VolumeHeader(
        source=nowhere,
        data=nowhere,
        shape=shape,
        spatial=spatial,
        channel=channel,
        dtype=dtype,
        affine=affine,
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
        warnings=warnings,
    )


def _plain_type(dtype: np.dtype[Any]) -> tuple[np.dtype[Any], int]:
    """RGB and RGBA structures as three or four bytes; every other type as it is."""
    if dtype.names is not None:
        return np.dtype(np.uint8), len(dtype.names)
    if dtype.kind not in "iufc":
        raise RejectedInput(
            "scan", f"Voxels of type {dtype} are not read: expected integers, floats, complex, RGB or RGBA."
        )
    return dtype, 1


def _affine(header: Any) -> tuple[Affine, tuple[str, ...]]:
    """Voxel index -> LPS mm, and what had to be assumed."""
    affine = np.asarray(header.get_best_affine(), float)
    warnings: tuple[str, ...] = ()
    usable = np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 1e-12
    if not usable:
        sizes = np.abs(np.nan_to_num(np.asarray(header.get_zooms(), float), nan=1.0, posinf=1.0, neginf=1.0))[:3]
        steps = [float(size) or 1.0 for size in sizes] + [1.0] * (3 - len(sizes))
        affine = np.diag([-steps[0], steps[1], steps[2], 1.0])
        warnings = (
            "The stated orientation is unusable: the axes are assumed to run to the right, to the front and up.",
        )
    elif "sform_code" not in header or not (int(header["sform_code"]) or int(header["qform_code"])):
        warnings = ("The file states no orientation: left and right are assumed and may be swapped.",)
    if "xyzt_units" in header:
        affine[:3] *= _MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    return _RAS_TO_LPS @ affine, warnings


def _voxel_offset(header: Any, single: bool) -> int:
    stated = float(header["vox_offset"])
    if not math.isfinite(stated) or not stated.is_integer() or not 0 <= stated <= _MOST_HEADER:
        raise RejectedInput("scan", "The header's voxel offset is not a usable number of bytes: the file is damaged.")
    if not single:
        return int(stated)
    if stated == 0:  # left unset by some writers
        return int(header.sizeof_hdr) + 4
    if stated < header.sizeof_hdr:
        raise RejectedInput("scan", f"The voxels are declared to start at byte {int(stated)}, inside the header.")
    return int(stated)


def _check_extensions(head: bytes, start: int, end: int) -> None:
    """Follow the chain of extensions (sizes only): it must end where the voxels begin, or before."""
    position = start + 4
    if end < position or len(head) <= start or head[start] == 0:
        return
    order = "little" if int.from_bytes(head[:4], "little") in (348, 540) else "big"
    while position + 16 <= end:
        size = int.from_bytes(head[position : position + 4], order, signed=True)  # type: ignore[arg-type]
        if size == 0:
            return
        if size < 8 or position + size > end:
            raise RejectedInput("scan", "A header extension runs past the start of the voxels: the header is damaged.")
        position += size


def _companion(source: Source, limits: Limits) -> Source:
    """The .img beside a .hdr, in the same folder or archive."""
    name = source.member or source.path.name
    stem = name[: name.lower().rindex(".hdr")] if ".hdr" in name.lower() else name.rpartition(".")[0]
    for ending in (".img", ".IMG", ".img.gz", ".IMG.GZ"):
        if (found := beside(source, stem + ending, limits)) is not None:
            return found
    raise RejectedInput("scan", "The voxels of a .hdr file are in the .img file of the same name, which is missing.")


def _is_gzip(source: Source, limits: Limits) -> bool:
    with open_source(source, limits) as stream:
        return stream.read(2) == _GZIP
