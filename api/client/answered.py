"""What writing is answered with, a model's and a new case's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from retrieval.evidence.cited import Evidence


@dataclass(frozen=True, slots=True)
class Messages:
    """A bundle as chat messages: what an OpenAI-compatible endpoint takes as ``messages``, with its pictures inside.

    ``notes``: on the pictures, as sentences.
    """

    messages: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of a model that passed, and the cases it cites."""

    text: str
    case_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Removed:
    """A sentence of a model that did not pass. ``why``: as "it cites no case"."""

    text: str
    why: str


@dataclass(frozen=True, slots=True)
class Answer:
    """``text``: the sentences that passed. ``refused``: "" or why there is no answer. ``sent_to``: the host that
    reports and images were sent to, "" when nothing was."""

    text: str
    sentences: tuple[Sentence, ...]
    removed: tuple[Removed, ...]
    refused: str
    reasons: tuple[str, ...]
    model: str
    sent_to: str
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class FileStatus:
    """What became of one file. ``file``: its place among those sent, from 0. ``status``: indexed, updated, unchanged,
    skipped, no_pixels or failed."""

    file: int
    status: str
    case_id: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Added:
    """What became of files, and how many of each kind there are."""

    files: tuple[FileStatus, ...]
    indexed: int
    updated: int
    failed: int
