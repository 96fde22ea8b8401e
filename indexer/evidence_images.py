"""The pixels of a bundle: from the original files, decoded in the sandbox, or a thumbnail where they are gone."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from indexer.originals import read_frames
from indexer.rendering import Window, png, stack_window
from indexer.sandbox import Sandbox
from retrieval.errors import NotFoundError, SourceGone
from retrieval.evidence.cited import Evidence, ImageRef
from retrieval.evidence.formats.messages import Picture
from retrieval.gallery import Gallery
from retrieval.types import Case, CaseKind, Image

SIDE = 512  # longest side, px
MOST_OF_A_VOLUME = 128  # frames, of which 64 are interpolated


@dataclass(frozen=True, slots=True)
class Frames:
    """Frames of one case, in order. ``window``: one for all of them, or None where each knows its own."""

    images: tuple[Image, ...]
    window: Window | None = None
    thumbnail: bool = False


def pictures_of(gallery: Gallery, sandbox: Sandbox, evidence: Evidence) -> tuple[Evidence, dict[ImageRef, Picture]]:
    """A picture of every image of the bundle, and the bundle with a note on those that are thumbnails."""
    found: dict[ImageRef, Picture] = {}
    gone: list[str] = []
    for case in evidence.cases:
        if not case.images:
            continue
        frames = frames_on_file(gallery, sandbox, gallery.case(case.case_id), [ref.slice for ref in case.images])
        if frames.thumbnail:
            gone.append(f"[{case.number}]")
        found |= dict(zip(case.images, rendered(frames), strict=False))
    return noted(evidence, gone), found


def noted(evidence: Evidence, gone: Sequence[str]) -> Evidence:
    """The bundle with a note on the cases whose pictures are thumbnails."""
    if not gone:
        return evidence
    note = f"The original files of {', '.join(gone)} are gone: their pictures are stored thumbnails of at most 256 px."
    return replace(evidence, notes=(*evidence.notes, note))


def rendered(frames: Frames) -> list[Picture]:
    """The frames as PNG."""
    return [Picture("image/png", png(image, frames.window, SIDE), frames.thumbnail) for image in frames.images]


def frames_on_file(gallery: Gallery, sandbox: Sandbox, case: Case, numbers: Sequence[int]) -> Frames:
    """Those frames of a case, 0-based; its one thumbnail when the original files are gone. Empty without either."""
    try:
        images = tuple(read_frames(gallery, sandbox, case, numbers))
    except SourceGone:
        return Frames(_thumbnail(gallery, case), thumbnail=True)
    images = tuple(image if image.spacing else replace(image, spacing=case.spacing) for image in images)
    return framed(images, case.kind)


def block_frames(gallery: Gallery, sandbox: Sandbox, case: Case, best: int) -> Frames:
    """Of a volume, at most 128 frames spread over it; of any other case the one frame ``best``."""
    if case.kind is not CaseKind.VOLUME:
        return frames_on_file(gallery, sandbox, case, [best])
    count = len(case.frames)
    spread = np.linspace(0, count - 1, min(count, MOST_OF_A_VOLUME)).round().astype(int)
    return frames_on_file(gallery, sandbox, case, [int(n) for n in spread])


def framed(images: Sequence[Image], kind: CaseKind) -> Frames:
    """Frames of a case: with one window for all of a stack, and each with its own where they are views."""
    window = stack_window(images[len(images) // 2]) if len(images) > 1 and kind is not CaseKind.VIEWS else None
    return Frames(tuple(images), window)


def shown_of(count: int, most: int) -> list[int]:
    """Which of ``count`` frames are shown of a query: the first ``most``, or its middle one when one is to be shown."""
    return [count // 2] if most == 1 and count else list(range(min(count, most)))


def query_pictures(images: Sequence[Image], kind: CaseKind, most: int) -> list[Picture]:
    """At most so many pictures of a query's own frames; none when there are none."""
    frames = framed(images, kind)
    return rendered(replace(frames, images=tuple(images[n] for n in shown_of(len(images), most))))


def filed_pictures(gallery: Gallery, sandbox: Sandbox, case: Case, most: int) -> list[Picture]:
    """The same of a case on file; its one thumbnail without its files, none without either."""
    numbers = shown_of(len(case.frames), most)
    return rendered(frames_on_file(gallery, sandbox, case, numbers)) if numbers else []


def _thumbnail(gallery: Gallery, case: Case) -> tuple[Image, ...]:
    try:
        return (_decoded(gallery.catalog.thumbnail(case.case_id)),)
    except NotFoundError:
        return ()


def _decoded(thumbnail: bytes) -> Image:
    """A thumbnail, which Precedent itself has made."""
    from PIL import Image as Opened

    with Opened.open(io.BytesIO(thumbnail), formats=["JPEG"]) as picture:
        return Image(np.asarray(picture.convert("RGB")))
