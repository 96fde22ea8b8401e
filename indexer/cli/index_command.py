"""``precedent index``: files, folders and zips into the gallery."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress, TaskID

from indexer.cli.console import DONE, FAILED, INTERRUPTED, Home, Json, print_json, progress_bar, settings_of
from indexer.cli.reports import print_report, report_json
from indexer.events import Event, FileDone
from indexer.labels import LabelTable
from indexer.limits import Limits
from indexer.pipeline import Options
from indexer.pipeline import index as run_index
from indexer.rebuild import freshen
from indexer.report import FileStatus, Report
from indexer.sandbox import Sandbox
from indexer.walk import walk
from indexer.workers import worker_count
from retrieval.errors import UsageError
from retrieval.gallery import Gallery


class Engine(StrEnum):
    """Where embedding runs."""

    LOCAL = "local"


def index(
    paths: Annotated[list[Path], typer.Argument(help="Files, folders or zips.", show_default=False)],
    labels: Annotated[Path | None, typer.Option(help="Labels file (.csv or .parquet); see docs/labels.md.")] = None,
    source: Annotated[str, typer.Option(help="Name of the data set or site these come from.")] = "",
    encoder: Annotated[str | None, typer.Option(help="Encoder of a new gallery (default: classical).")] = None,
    pooling: Annotated[str | None, typer.Option(help="Slices to vector: mean, max, min, median or std.")] = None,
    resume: Annotated[bool, typer.Option(help="Skip what is on file already, known by its content.")] = True,
    replace: Annotated[bool, typer.Option(help="Let other pixels under a known UID replace those on file.")] = False,
    workers: Annotated[int | None, typer.Option(help="Decoding processes (default: one per core).")] = None,
    engine: Annotated[Engine, typer.Option(help="Where embedding runs.")] = Engine.LOCAL,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read headers and say what would be done.")] = False,
    failures: Annotated[Path | None, typer.Option(help="Write every failed file to this file, as JSON lines.")] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Add images and volumes to the gallery. Run it again at any time: only what is new is embedded."""
    if missing := [path for path in paths if not path.exists()]:
        raise UsageError(f"There is no file or folder '{missing[0]}'.")
    settings = settings_of(home, encoder=encoder, pooling=pooling, workers=workers)
    table = LabelTable.read(labels) if labels else None
    with Gallery.open(settings, create=not dry_run) as gallery:
        _check_encoder(gallery, encoder)
        options = Options(labels=table, source=source, replace=replace, resume=resume, dry_run=dry_run)
        report = run(gallery, paths, options, quiet=as_json, failures=failures)
        generation = "" if dry_run or report.interrupted else freshen(gallery)
        unmatched = len(table.unmatched()) if table else 0
        if as_json:
            print_json(report_json(report, unmatched_rows=unmatched, generation=generation, dry_run=dry_run))
        else:
            print_report(report, unmatched_rows=unmatched, generation=generation, dry_run=dry_run)
    raise typer.Exit(INTERRUPTED if report.interrupted else DONE if report.ok else FAILED)


def run(
    gallery: Gallery, paths: Sequence[Path], options: Options, *, quiet: bool = False, failures: Path | None = None
) -> Report:
    """Index with a progress bar; ``failures`` gets a JSON line per failed file as it happens."""
    with ExitStack() as stack:
        sandbox = stack.enter_context(Sandbox(worker_count(gallery.settings), Limits.of(gallery.settings)))
        bar = stack.enter_context(progress_bar("files", quiet=quiet))
        lines = stack.enter_context(failures.open("w", encoding="utf-8")) if failures else None
        listener = _Listener(bar, bar.add_task("Indexing", total=None), lines)
        if not bar.disable:
            bar.update(listener.task, total=sum(1 for _ in walk(paths)))
        return run_index(gallery, sandbox, paths, options, listener)


class _Listener:
    """Moves the bar and writes the failures."""

    def __init__(self, bar: Progress, task: TaskID, lines: Any) -> None:
        self.task = task
        self._bar = bar
        self._lines = lines

    def __call__(self, event: Event) -> None:
        if not isinstance(event, FileDone):
            return
        self._bar.advance(self.task)
        if event.status is FileStatus.FAILED and event.rejection and self._lines:
            told = event.rejection
            line = {"path": str(event.source), "sha256": told.sha256, "stage": told.stage, "reason": told.reason}
            self._lines.write(json.dumps(line) + "\n")
            self._lines.flush()


def _check_encoder(gallery: Gallery, asked: str | None) -> None:
    """An encoder that is not the gallery's is told, never silently ignored."""
    if asked and asked != gallery.encoder.card.spec:
        raise UsageError(
            f"This gallery was made with the encoder {gallery.encoder.card.spec}, asked for was {asked}: "
            "use another --home for another encoder."
        )
