"""What is sent to a machine and what comes back. Pure.

A shard is a few drafts that one actor decodes and encodes together. It goes out without what an actor has no use for:
patient ids, pseudonyms, labels and reports stay with the driver, which puts them back.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace

from indexer.drafts import Draft
from indexer.embedder import Finished
from indexer.sources import Rejection
from retrieval.errors import PrecedentError
from retrieval.types import Attributes, Case

FIRST_FRAMES = 32  # of a shard, while few have gone out: a small job still keeps every actor busy
MOST_FRAMES = 256  # of a shard, later: some batches of the encoder; with thumbnails about 4 MB of answers
ROUNDS_A_SIZE = 8  # shards each actor gets before they have doubled, about

Drafts = tuple[Draft, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of shard ``number``: its cases in order, or None when it was begun too often and never ended.

    ``trouble``: what keeps this actor from embedding anything, to be raised by the driver.
    """

    number: int
    finished: tuple[Finished, ...] | None = None
    trouble: PrecedentError | None = None


def shards(drafts: Iterable[Draft], actors: int) -> Generator[Drafts]:
    """The drafts in order, cut into shards that grow from ``FIRST_FRAMES`` to ``MOST_FRAMES`` frames.

    A shard ends with the case that fills it, so a long series makes a shard of its own or ends one.
    """
    frames_out, shard, frames = 0, [], 0
    for draft in drafts:
        shard.append(draft)
        frames += len(draft.chosen)
        if frames >= _size(frames_out, actors):
            yield tuple(shard)
            frames_out += frames
            shard, frames = [], 0
    if shard:
        yield tuple(shard)


def _size(frames_out: int, actors: int) -> int:
    return min(MOST_FRAMES, FIRST_FRAMES + frames_out // (ROUNDS_A_SIZE * actors))


def stripped(draft: Draft) -> Draft:
    """The draft with what decoding and encoding go by, and nothing that tells of the patient but the files' paths."""
    case = draft.case
    bare = replace(
        case,
        attributes=Attributes(modality=case.attributes.modality),
        labels=(),
        report="",
        patient_key="",
        header_patient_key="",
    )
    scans = tuple(
        replace(scan, patient_id="", issuer="", declared=(), attributes=Attributes(modality=scan.attributes.modality))
        for scan in draft.scans
    )
    return replace(draft, case=bare, scans=scans, facts=None, reported=())


def restored(draft: Draft, finished: Finished) -> Finished:
    """What came back of ``stripped(draft)``, with what had been left out."""
    embedded = finished.embedded
    return replace(
        finished,
        draft=replace(
            finished.draft,
            case=_whole(draft.case, finished.draft.case),
            facts=draft.facts,
            reported=draft.reported,
        ),
        embedded=replace(embedded, case=_whole(draft.case, embedded.case)) if embedded else None,
    )


def withdrawn(drafts: Drafts) -> tuple[Finished, ...]:
    """A shard that ended every actor which began it, as refused."""
    reason = (
        "The Ray actors that embedded it ended without an answer, time after time: its node may lack the memory for it."
    )
    return tuple(
        Finished(draft, None, tuple(Rejection(scan.source, "embed", reason, scan.sha256, True) for scan in draft.scans))
        for draft in drafts
    )


def _whole(said: Case, worked: Case) -> Case:
    return replace(
        worked,
        attributes=said.attributes,
        labels=said.labels,
        report=said.report,
        patient_key=said.patient_key,
        header_patient_key=said.header_patient_key,
    )


@dataclass(slots=True, eq=False)
class Slot:
    """A shard under way, and its cases once they are there."""

    drafts: Drafts
    finished: tuple[Finished, ...] | None = None


class Board:
    """The shards under way in the order of the drafts, whatever order they are answered in."""

    def __init__(self) -> None:
        self._slots: list[Slot] = []

    def __len__(self) -> int:
        return len(self._slots)

    def add(self, drafts: Drafts | None) -> Slot | None:
        """A shard behind all others; None adds none."""
        if drafts is None:
            return None
        self._slots.append(Slot(drafts))
        return self._slots[-1]

    def settle(self, slot: Slot, finished: tuple[Finished, ...]) -> None:
        """Note the cases of a shard, one for each of its drafts."""
        slot.finished = tuple(restored(draft, case) for draft, case in zip(slot.drafts, finished, strict=True))

    def split(self, slot: Slot) -> list[Slot]:
        """A shard of each draft of one, in its place."""
        place = self._slots.index(slot)
        self._slots[place : place + 1] = [Slot((draft,)) for draft in slot.drafts]
        return self._slots[place : place + len(slot.drafts)]

    def unsettled(self) -> list[Slot]:
        """Those without an answer."""
        return [slot for slot in self._slots if slot.finished is None]

    def ready(self) -> Iterator[Finished]:
        """Take off what is answered and has nothing unanswered before it."""
        while self._slots and self._slots[0].finished is not None:
            yield from self._slots.pop(0).finished or ()
