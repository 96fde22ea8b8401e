"""Which frames go into each block of a bundle for RadFM, read from the files on record."""

from __future__ import annotations

from collections.abc import Sequence

from indexer.evidence_images import block_frames, framed, shown_of
from indexer.radfm import Placed
from indexer.sandbox import Sandbox
from retrieval.evidence.cited import Evidence
from retrieval.gallery import Gallery
from retrieval.types import Case, CaseKind, Image


def placed_of(
    gallery: Gallery, sandbox: Sandbox, evidence: Evidence, asked: Case | None, own: Sequence[Image]
) -> list[Placed]:
    """Neighbours first, the query last: a volume is one block, and each image of any other case is one.

    ``asked``: the query as a case, None for a sentence; ``own``: the frames of its files, empty when it is on file.
    """
    placed = []
    for cited in evidence.cases:
        case = gallery.case(cited.case_id)
        slices = [ref.slice for ref in cited.images][: 1 if case.kind is CaseKind.VOLUME else None]
        placed += [Placed(f"[{cited.number}]", block_frames(gallery, sandbox, case, n)) for n in slices]
    if asked is None or not evidence.own_images:
        return placed
    if asked.kind is CaseKind.VOLUME:
        whole = framed(own, asked.kind) if own else block_frames(gallery, sandbox, asked, 0)
        return [*placed, Placed("query", whole)]
    for n in shown_of(len(own) or len(asked.frames), evidence.own_images):
        frames = framed([own[n]], asked.kind) if own else block_frames(gallery, sandbox, asked, n)
        placed.append(Placed("query", frames))
    return placed
