"""Files in, one query out: read, assembled and embedded by exactly the code that does it for the gallery."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from indexer.assemble import CasePlan, assemble, group_key
from indexer.drafts import Draft, draft_of, without_files
from indexer.limits import Limits
from indexer.sandbox import Sandbox
from indexer.sources import Rejection, Scan, Source
from indexer.volumes import chosen_images, embed_volume
from indexer.walk import walk
from retrieval.encoders.base import VolumeEncoder
from retrieval.encoders.pooling import choose_slices
from retrieval.errors import LimitExceeded, NotFoundError, RejectedInput, UsageError
from retrieval.gallery import Gallery
from retrieval.types import Case, Embedding, Image, Query

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class QueryCase:
    """A query made of files. ``images``: the frames that were embedded, in order. ``warnings``: sentences to show.

    ``numbers``: which slice of the query each of the images is. ``case`` has a key when the very same is on file.
    """

    query: Query
    case: Case
    images: tuple[Image, ...]
    numbers: tuple[int, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Embedded:
    draft: Draft
    embedding: Embedding
    images: tuple[Image, ...]
    numbers: tuple[int, ...]


def read_query(gallery: Gallery, sandbox: Sandbox, paths: Sequence[Path]) -> QueryCase:
    """One file, the files of a series, a folder or a zip as a query.

    When they hold several cases the one with the most frames is asked and the warnings say so. A case that is on
    file already is recognised, so that it does not find itself; one that shares files with it is of its patient.
    RejectedInput when there is no image in them.
    """
    plans, rejections = _planned(gallery, sandbox, paths)
    read = _largest(gallery, plans, lambda draft: _embedded(gallery, sandbox, draft))
    draft = read.draft
    case = _known(gallery, draft.case)
    near = case if case.key else _sharing(gallery, draft)
    case = replace(case, patient_key=near.patient_key or case.patient_key)
    key = case.key if case.patient_key else near.key  # a part of a series may find it where its patient is included
    told = draft.case.attributes
    query = Query(
        read.embedding,
        case.patient_key,
        key,
        draft.case.frames,
        draft.case.study_uid,
        modality=told.modality,
        body_part=told.body_part,
    )
    warnings = _warnings(draft.case.warnings, plans, rejections)
    return QueryCase(query, case, read.images, read.numbers, warnings)


def frames_of(gallery: Gallery, sandbox: Sandbox, paths: Sequence[Path]) -> tuple[Image, ...]:
    """The frames that ``read_query`` would embed one by one, decoded and in order; nothing is encoded."""
    plans, _ = _planned(gallery, sandbox, paths)
    return tuple(_largest(gallery, plans, lambda draft: _decoded(sandbox, draft))[1])


def _planned(gallery: Gallery, sandbox: Sandbox, paths: Sequence[Path]) -> tuple[list[CasePlan], list[Rejection]]:
    """The cases that the paths hold, at least one, and the files that could not be read."""
    if not paths:
        raise UsageError("Nothing to search with: expected at least one file.")
    scans, rejections = _sorted(sandbox.scan(walk(paths)))
    plans = _plans(scans, Limits.of(gallery.settings))
    if not plans:
        raise _why_none(scans, rejections)
    return plans, rejections


def _largest(gallery: Gallery, plans: Sequence[CasePlan], use: Callable[[Draft], T]) -> T:
    """What ``use`` makes of the case with the most frames that it does not refuse; the first reason when of none."""
    reason: RejectedInput | None = None
    for plan in sorted(plans, key=lambda p: (-len(p.frames), p.case_id)):
        draft = draft_of(plan, None, "", gallery.secret, gallery.most_frames)
        try:
            return use(draft)
        except RejectedInput as error:
            reason = reason or error
    raise reason or NotFoundError("No image to search with.")


def _embedded(gallery: Gallery, sandbox: Sandbox, draft: Draft) -> _Embedded:
    """Frame by frame, or as a volume: whichever the gallery's encoder takes."""
    encoder, pooling = gallery.encoder, gallery.pooling
    if isinstance(encoder, VolumeEncoder):
        volume = embed_volume(sandbox, encoder, pooling, draft, gallery.settings.volume_memory_mb << 20)
        numbers = choose_slices(len(volume.images), pooling.max_slices)
        return _Embedded(volume.draft, volume.embedding, chosen_images(volume.images, numbers), numbers)
    draft, images = _decoded(sandbox, draft)
    return _Embedded(draft, replace(gallery.embed(images), slice_frames=draft.chosen), tuple(images), draft.chosen)


def _decoded(sandbox: Sandbox, draft: Draft) -> tuple[Draft, list[Image]]:
    """The chosen frames; files that can't be decoded are left out and told, as when indexing."""
    images: list[tuple[Source, Image]] = []
    failed: dict[Source, Rejection] = {}
    for reply in sandbox.read(draft.wanted):
        if isinstance(reply, Rejection):
            failed[reply.source] = reply
        else:
            images.append((reply.wanted.source, reply.image))
    kept = [image for source, image in images if source not in failed]
    if failed and not kept:
        raise _error(next(iter(failed.values())))
    if failed:
        draft = without_files(draft, frozenset(n for n, scan in enumerate(draft.scans) if scan.source in failed))
    return draft, kept


def _sorted(answers: Iterable[Scan | Rejection]) -> tuple[list[Scan], list[Rejection]]:
    scans: list[Scan] = []
    rejections: list[Rejection] = []
    for answer in answers:
        if isinstance(answer, Rejection):
            rejections.append(answer)
        else:
            scans.append(answer)
    return scans, rejections


def _plans(scans: Sequence[Scan], limits: Limits) -> list[CasePlan]:
    groups: dict[str, list[Scan]] = {}
    for scan in scans:
        if scan.frames:
            groups.setdefault(group_key(scan), []).append(scan)
    return [plan for group in groups.values() for plan in assemble(group, limits) if plan.frames]


def _why_none(scans: Sequence[Scan], rejections: Sequence[Rejection]) -> RejectedInput | NotFoundError:
    """The one file's own reason, or what was found among many."""
    if len(rejections) == 1 and not scans:
        return _error(rejections[0])
    if not rejections and not scans:
        return NotFoundError("No file there: expected an image file, a folder or a zip with images.")
    if rejections:
        found = f"none of {len(scans) + len(rejections)} files holds an image; the first reason: {rejections[0].reason}"
        return RejectedInput(rejections[0].stage, f"Expected an image, but {found}")
    why = next((warning for scan in scans for warning in scan.warnings), "it holds no pixels.")
    return RejectedInput("scan", f"Expected an image, but there are no pixels to search with: {why}")


def _error(rejection: Rejection) -> RejectedInput:
    return (LimitExceeded if rejection.limit else RejectedInput)(rejection.stage, rejection.reason)


def _known(gallery: Gallery, case: Case) -> Case:
    """The stored case when the same content is on file: it knows its patient even if the header does not."""
    stored = gallery.catalog.content_of([case.case_id])
    if stored.get(case.case_id) != case.content_sha256:
        return case
    return gallery.case(case.case_id)


def _sharing(gallery: Gallery, draft: Draft) -> Case:
    """The case on file that has most of the query's files (one slice of a series, one that grew); else the query's."""
    known = gallery.catalog.known_files([file.sha256 for file in draft.files])
    shares = Counter(case_id for case_ids in known.values() for case_id in case_ids)
    for case_id, _ in shares.most_common(1):
        with suppress(NotFoundError):  # deleted in this very moment
            return gallery.case(case_id)
    return draft.case


def _warnings(of_case: Sequence[str], plans: Sequence[CasePlan], rejections: Sequence[Rejection]) -> tuple[str, ...]:
    told = list(of_case)
    if len(plans) > 1:
        told.append(f"The files hold {len(plans)} cases; the one with the most frames that can be read is searched.")
    refused = [rejection for rejection in rejections if rejection.stage != "sniff"]
    if refused:
        told.append(f"{len(refused)} of the files could not be read; the first reason: {refused[0].reason}")
    if strangers := len(rejections) - len(refused):
        told.append(f"{strangers} of the files are not images and were left out.")
    return tuple(told)
