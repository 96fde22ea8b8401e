"""What became of every file and every case of an indexing run."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from indexer.sources import Rejection

_HASHES = re.compile(r": sha256 [0-9a-f]{64}.*(?=\.$)")
KEPT_FAILURES = 1000  # held in memory; every one is passed to the listener as it happens


class FileStatus(StrEnum):
    """One per file that was walked."""

    INDEXED = "indexed"  # its pixels are in the gallery now
    UNCHANGED = "unchanged"  # they already were
    SKIPPED = "skipped"  # deliberately left out: a localizer, a duplicate, not an image at all
    NO_PIXELS = "no_pixels"  # a valid file that holds no image
    FAILED = "failed"  # refused, with a reason


class CaseStatus(StrEnum):
    """One per case that was assembled."""

    ADDED = "added"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    FAILED = "failed"


def brief(reason: str) -> str:
    """A reason without the hashes that tell its file or case from others."""
    return _HASHES.sub("", reason)


@dataclass(frozen=True, slots=True)
class Skip:
    """One file left out on purpose, and why."""

    path: str
    reason: str


@dataclass(slots=True)
class Report:
    """Counts, the first failures with their reasons, and sentences worth knowing. Grows no further with the archive."""

    files: Counter[FileStatus] = field(default_factory=Counter)
    cases: Counter[CaseStatus] = field(default_factory=Counter)
    frames: int = 0
    skips: Counter[str] = field(default_factory=Counter)  # reason -> files
    warnings: Counter[str] = field(default_factory=Counter)  # sentence -> cases
    duplicates: int = 0  # cases whose pixels another case already has
    failures: list[Rejection] = field(default_factory=list)
    interrupted: bool = False
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """True when no file and no case failed and the run went to its end."""
        return not self.files[FileStatus.FAILED] and not self.cases[CaseStatus.FAILED] and not self.interrupted

    def warn(self, sentences: tuple[str, ...]) -> None:
        """Count warnings."""
        for sentence in sentences:
            _count(self.warnings, sentence)

    def skip(self, reason: str) -> None:
        """Count one file that was left out, under its reason without the hashes that tell this file from others."""
        self.files[FileStatus.SKIPPED] += 1
        _count(self.skips, brief(reason))

    def fail(self, rejection: Rejection) -> None:
        """Count one failed file and keep its reason."""
        self.files[FileStatus.FAILED] += 1
        if len(self.failures) < KEPT_FAILURES:
            self.failures.append(rejection)


def _count(sentences: Counter[str], sentence: str) -> None:
    """Sentences with figures in them may all differ, so past a thousand only known ones count."""
    if sentence in sentences or len(sentences) < KEPT_FAILURES:
        sentences[sentence] += 1
