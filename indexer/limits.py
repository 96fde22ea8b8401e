"""The limits an input meets, passed to every worker and reader."""

from __future__ import annotations

from dataclasses import dataclass

from retrieval.errors import LimitExceeded
from retrieval.settings import Settings


@dataclass(frozen=True, slots=True)
class Limits:
    """All inclusive: a value at the limit passes, one past it is refused."""

    file_bytes: int = 2048 << 20
    unpacked_bytes: int = 4096 << 20  # of a compressed file or a zip, in all
    ratio: float = 1100.0  # unpacked / packed, for anything over 16 MiB unpacked (deflate's own maximum is about 1032)
    frame_pixels: int = 200_000_000
    frames: int = 20_000
    voxels: int = 600_000_000
    nesting: int = 32  # DICOM sequences
    zip_members: int = 100_000
    memory_bytes: int = 1024 << 20  # of one worker
    seconds: float = 60.0  # of one file

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        return cls(
            file_bytes=settings.max_file_mb << 20,
            frame_pixels=int(settings.max_megapixels * 1e6),
            frames=settings.max_frames,
            voxels=int(settings.max_voxels_million * 1e6),
            memory_bytes=settings.worker_memory_mb << 20,
            seconds=settings.task_seconds,
        )

    def check_frame(self, rows: int, columns: int, frames: int = 1) -> None:
        """Refuse a declared size before anything of that size is allocated."""
        if rows * columns > self.frame_pixels:
            raise LimitExceeded(
                "scan",
                f"A frame of {rows} x {columns} is over the limit of {self.frame_pixels} pixels (max_megapixels).",
            )
        if frames > self.frames:
            raise LimitExceeded("scan", f"{frames} frames are over the limit of {self.frames} (max_frames).")
        if rows * columns * frames > self.voxels:
            raise LimitExceeded(
                "scan",
                f"{rows} x {columns} x {frames} voxels are over the limit of {self.voxels} (max_voxels_million).",
            )
