"""A case as its headers and the labels file describe it, before a pixel of it has been read. Pure but for the key."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Protocol

from indexer.assemble import CasePlan
from indexer.labels import RowFacts
from indexer.originals import seal
from indexer.sources import Scan, Source, Wanted
from retrieval.encoders.pooling import choose_slices
from retrieval.privacy import Secret
from retrieval.types import Attributes, Case, CaseFile, FrameRef, Label


class Describer(Protocol):
    """What knows more of a case than its header does: a labels file, the fields of an upload."""

    def match(self, path: Path, study_uid: str = "", series_uid: str = "", sop_uid: str = "") -> RowFacts | None: ...


@dataclass(frozen=True, slots=True)
class Draft:
    """``chosen``: which of ``case.frames`` are embedded; ``wanted`` asks for just those, in that order.

    ``facts``: what a labels row or an upload's fields say of it, None when they are silent: on file already, it then
    keeps what was said of it before.
    ``reported``: the files whose final status this case decides (a file split over two cases is told once).
    """

    case: Case
    scans: tuple[Scan, ...]
    chosen: tuple[int, ...]
    wanted: tuple[Wanted, ...]
    files: tuple[CaseFile, ...]
    part: str
    facts: RowFacts | None
    reported: tuple[Source, ...]


def draft_of(
    plan: CasePlan,
    labels: Describer | None,
    source: str,
    secret: Secret,
    max_slices: int,
    reported: tuple[Source, ...] = (),
) -> Draft:
    """Everything known of a case without its pixels."""
    facts = labels.match(_path(plan.scans[0].source), *_uids(plan)) if labels else None
    frames = tuple(FrameRef(f.file, f.frame, f.position_mm, f.sop_uid) for f in plan.frames)
    chosen = choose_slices(len(frames), max_slices)
    files = tuple(_file(scan, secret) for scan in plan.scans)
    case = Case(
        case_id=plan.case_id,
        kind=plan.kind,
        attributes=_attributes(plan.attributes, facts, source),
        labels=_labels(plan, facts),
        report=facts.report if facts else "",
        patient_key=_patient_key(plan, facts, secret),
        header_patient_key=secret.patient_key(plan.patient_id, plan.issuer),
        study_uid=_study_uid(plan, facts, secret),
        series_uid=plan.series_uid,
        content_sha256=content_sha256(files, plan.part),
        frames=frames,
        rows=plan.rows,
        columns=plan.columns,
        spacing=plan.spacing,
        warnings=plan.warnings,
    )
    wanted = _wanted(plan, frames, chosen)
    return Draft(case, plan.scans, chosen, wanted, files, plan.part, facts, reported)


def content_sha256(files: Sequence[CaseFile], part: str) -> str:
    """One digest over a case's files, in order, and which part of them it is."""
    return hashlib.sha256("\n".join([part, *(file.sha256 for file in files)]).encode()).hexdigest()


def without_files(draft: Draft, failed: frozenset[int]) -> Draft:
    """The draft less the files that could not be decoded, told in a warning; content covers what was read."""
    kept = [n for n in range(len(draft.files)) if n not in failed]
    number = {old: new for new, old in enumerate(kept)}
    staying = [n for n, frame in enumerate(draft.case.frames) if frame.file not in failed]
    moved = {old: new for new, old in enumerate(staying)}
    files = tuple(draft.files[n] for n in kept)
    warning = f"{len(failed)} of {len(draft.files)} files could not be decoded and are left out."
    case = replace(
        draft.case,
        frames=tuple(replace(draft.case.frames[n], file=number[draft.case.frames[n].file]) for n in staying),
        content_sha256=content_sha256(files, draft.part),
        warnings=(*draft.case.warnings, warning),
    )
    chosen = tuple(moved[n] for n in draft.chosen if n in moved)
    scans = tuple(draft.scans[n] for n in kept)
    return replace(draft, case=case, scans=scans, chosen=chosen, files=files)


def _wanted(plan: CasePlan, frames: Sequence[FrameRef], chosen: Sequence[int]) -> tuple[Wanted, ...]:
    """One request per run of chosen frames of one file, so that it is opened once. The middle frame is previewed."""
    middle = chosen[len(chosen) // 2]
    return tuple(
        Wanted(
            plan.scans[file].source,
            plan.scans[file].format,
            tuple(frames[n].frame for n in run),
            preview=frames[middle].frame if middle in run else None,
        )
        for file, run in _runs(frames, chosen)
    )


def _runs(frames: Sequence[FrameRef], chosen: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    for file, run in groupby(chosen, key=lambda n: frames[n].file):
        yield file, list(run)


def _file(scan: Scan, secret: Secret) -> CaseFile:
    return CaseFile(scan.sha256, scan.bytes, seal(scan.source, scan.format, secret))


def _path(source: Source) -> Path:
    return source.path / source.member if source.member else source.path


def _uids(plan: CasePlan) -> tuple[str, str, str]:
    sop = plan.frames[0].sop_uid if len(plan.scans) == 1 else ""
    return plan.study_uid, plan.series_uid, sop


def _attributes(attributes: Attributes, facts: RowFacts | None, source: str) -> Attributes:
    if facts:
        attributes = facts.over(attributes)
    return replace(attributes, source=source) if source and not attributes.source else attributes


def _labels(plan: CasePlan, facts: RowFacts | None) -> tuple[Label, ...]:
    """The row's labels, then what the header declares under names the row does not use."""
    stated = facts.labels if facts else ()
    names = {label.name for label in stated}
    declared = dict.fromkeys(pair for scan in plan.scans[:1] for pair in scan.declared)
    return (*stated, *(Label(name, value) for name, value in declared if name not in names))


def _patient_key(plan: CasePlan, facts: RowFacts | None, secret: Secret) -> str:
    if facts and facts.patient_id:
        return secret.patient_key(facts.patient_id)
    return secret.patient_key(plan.patient_id, plan.issuer)


def _study_uid(plan: CasePlan, facts: RowFacts | None, secret: Secret) -> str:
    """The header's, else a pseudonymous one made of the row's study id."""
    if plan.study_uid or not (facts and facts.study_id):
        return plan.study_uid
    return f"2.25.{int(secret.patient_key(facts.study_id, 'study'), 16)}"
