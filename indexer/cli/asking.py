"""What a question is asked with on the command line: files, a case on file, a sentence, or both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from indexer.limits import Limits
from indexer.query import read_query
from indexer.sandbox import Sandbox
from indexer.workers import worker_count
from retrieval.encoders.text import text_encoder
from retrieval.errors import UsageError
from retrieval.gallery import TEXT_WEIGHT, Gallery
from retrieval.types import Case, Fusion, Image, Query

What = Annotated[list[str] | None, typer.Argument(help="A file, the files or folder of a series, a zip, or a case id.")]
Text = Annotated[
    str, typer.Option(help="A sentence, alone or beside a file or case; needs an encoder with a text tower.")
]
TextWeight = Annotated[
    float | None, typer.Option(help=f"Share of the sentence beside an image, 0 to 1 (default {TEXT_WEIGHT}).")
]
FusedBy = Annotated[
    Fusion | None, typer.Option(help="Image and sentence as one weighted sum (default), or reciprocal rank.")
]


def check_asked(what: list[str] | None, text: str, text_weight: float | None, fusion: Fusion | None) -> None:
    """UsageError unless these can be asked with together; before a gallery is opened for nothing."""
    if not what and not text:
        raise UsageError("Expected either a file, folder or case id, or --text with a sentence, or both.")
    if not (what and text) and (text_weight is not None or fusion is not None):
        raise UsageError("--text-weight and --fusion put an image and a sentence together: give a file and --text.")


def query_of(
    gallery: Gallery, what: list[str] | None, text: str, text_weight: float | None = None, fusion: Fusion | None = None
) -> tuple[Query, tuple[str, ...]]:
    """The query, decoded and embedded, and warnings on its quality."""
    if text:  # before files are read for nothing
        text_encoder(gallery.encoder)
    query, warnings = case_or_files(gallery, what) if what else (gallery.text_query(text), ())
    if what and text:
        weight = TEXT_WEIGHT if text_weight is None else text_weight
        query = gallery.with_text(query, text, weight=weight, fusion=fusion or Fusion.SUM)
    return query, warnings


def case_or_files(gallery: Gallery, what: list[str]) -> tuple[Query, tuple[str, ...]]:
    """One case on file, or the case that these files are; and warnings on its quality."""
    found = asked_case(gallery, what)
    return found.query, found.warnings


@dataclass(frozen=True, slots=True)
class AskedCase:
    """A case as a query. ``images``: the frames of its files; empty for a case on file."""

    query: Query
    case: Case
    warnings: tuple[str, ...] = ()
    images: tuple[Image, ...] = ()


def asked_case(gallery: Gallery, what: list[str]) -> AskedCase:
    """One case on file, or the case that these files are."""
    paths = [Path(name) for name in what]
    missing = [path for path in paths if not path.exists()]
    if not missing:
        with Sandbox(worker_count(gallery.settings), Limits.of(gallery.settings)) as sandbox:
            read = read_query(gallery, sandbox, paths)
        return AskedCase(read.query, read.case, read.warnings, read.images)
    if on_file := gallery.catalog.content_of(what):
        if len(what) > 1:
            raise UsageError(
                f"'{next(iter(on_file))}' is a case on file: expected one case id alone, or files and folders alone."
            )
        case, query = gallery.filed_query(what[0])
        return AskedCase(query, case)
    raise UsageError(f"'{missing[0]}' is neither a file, nor a folder, nor the id of a case on file.")
