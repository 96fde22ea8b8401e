"""Two calls for scripts and notebooks: files into a gallery, and a file as a query."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from indexer.labels import LabelTable
from indexer.limits import Limits
from indexer.pipeline import Options, index
from indexer.query import read_query
from indexer.report import Report
from indexer.sandbox import Sandbox
from indexer.workers import worker_count
from retrieval.gallery import Gallery
from retrieval.types import Query

StrPath = str | PathLike[str]


def add(gallery: Gallery, *paths: StrPath, labels: StrPath | None = None, source: str = "") -> Report:
    """Index files, folders and zips into a gallery; what is on file already is skipped. See ``indexer.pipeline``."""
    table = LabelTable.read(Path(labels)) if labels is not None else None
    with Sandbox(worker_count(gallery.settings), Limits.of(gallery.settings)) as sandbox:
        return index(gallery, sandbox, [Path(path) for path in paths], Options(labels=table, source=source))


def ask(gallery: Gallery, *paths: StrPath) -> Query:
    """One file, the files of a series, a folder or a zip as a query for ``Gallery.search``."""
    with Sandbox(1, Limits.of(gallery.settings)) as sandbox:
        return read_query(gallery, sandbox, [Path(path) for path in paths]).query
