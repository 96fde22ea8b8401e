"""What an indexing run says while it goes: one event per file and per case, for progress bars, reports and replies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from indexer.report import CaseStatus, FileStatus
from indexer.sources import Rejection, Source


@dataclass(frozen=True, slots=True)
class FileDone:
    """The final word on one file. ``rejection`` is set when it failed; ``reason`` also says why one was left out."""

    source: Source
    status: FileStatus
    reason: str = ""
    case_id: str = ""
    rejection: Rejection | None = None


@dataclass(frozen=True, slots=True)
class CaseDone:
    """A case is durable in the gallery (or was, or was refused)."""

    case_id: str
    status: CaseStatus
    frames: int = 0
    duplicate_of: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scanned:
    """One file's header has been read. Comes before the pixels of most files are."""

    source: Source


Event = FileDone | CaseDone | Scanned
Listener = Callable[[Event], None]
