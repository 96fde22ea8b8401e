"""``precedent index``: files, folders and zips into the gallery."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, TextIO

import typer
from rich.progress import Progress, TaskID

from indexer.cli.console import DONE, FAILED, INTERRUPTED, Home, Json, err, print_json, progress_bar, settings_of
from indexer.cli.reports import print_report, report_json
from indexer.cluster.engine import RayEngine
from indexer.cluster.session import connected
from indexer.events import Event, FileDone
from indexer.labels import LabelTable
from indexer.limits import Limits
from indexer.pipeline import Options
from indexer.pipeline import index as run_index
from indexer.rebuild import freshen
from indexer.report import Report
from indexer.sandbox import Sandbox
from indexer.walk import walk
from indexer.workers import worker_count
from retrieval.encoders.paths.prepare import EARNING, choose_while_encoding
from retrieval.errors import UsageError
from retrieval.evidence.strangers import EARNING as MEETING
from retrieval.gallery import Gallery

AWAY_SECONDS = 60.0  # a database server may be restarted while a folder is indexed


class Precision(StrEnum):
    """How networks are run."""

    AUTO = "auto"
    FLOAT32 = "float32"


class Engine(StrEnum):
    """Where embedding runs."""

    LOCAL = "local"
    RAY = "ray"


@dataclass(frozen=True, slots=True)
class Cluster:
    """``address``: its head; None, one of this machine alone. ``actors``: None, as many as have room."""

    address: str | None = None
    actors: int | None = None


def index(
    paths: Annotated[list[Path], typer.Argument(help="Files, folders or zips.", show_default=False)],
    labels: Annotated[Path | None, typer.Option(help="Labels file (.csv or .parquet); see docs/labels.md.")] = None,
    source: Annotated[str, typer.Option(help="Name of the data set or site these come from.")] = "",
    encoder: Annotated[str | None, typer.Option(help="Encoder of a new gallery (default: compact).")] = None,
    pooling: Annotated[str | None, typer.Option(help="Slices to vector: mean, max, min, median or std.")] = None,
    precision: Annotated[
        Precision | None,
        typer.Option(help="auto: the fastest way to run the encoder that keeps its vectors; float32: torch as it is."),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Skip what is on file already, known by its content.")] = True,
    replace: Annotated[bool, typer.Option(help="Let other pixels under a known UID replace those on file.")] = False,
    workers: Annotated[int | None, typer.Option(help="Decoding processes (default: one per core).")] = None,
    engine: Annotated[
        Engine, typer.Option(help="Where embedding runs: in this process, or on a Ray cluster (docs/scaling.md).")
    ] = Engine.LOCAL,
    address: Annotated[
        str | None,
        typer.Option(help="With --engine ray: head of the cluster, HOST:PORT or auto (default: this machine alone)."),
    ] = None,
    actors: Annotated[
        int | None,
        typer.Option(min=1, help="With --engine ray: processes that embed (default: one per GPU, else per 4 CPUs)."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read headers and say what would be done.")] = False,
    failures: Annotated[Path | None, typer.Option(help="Write every failed file to this file, as JSON lines.")] = None,
    outcomes: Annotated[
        Path | None, typer.Option(help="Write what became of every file to this file, as JSON lines.")
    ] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Add images and volumes to the gallery. Run it again at any time: only what is new is embedded."""
    if missing := [path for path in paths if not path.exists()]:
        raise UsageError(f"There is no file or folder '{missing[0]}'.")
    cluster = _cluster(engine, address, actors)
    settings = settings_of(home, encoder=encoder, pooling=pooling, workers=workers, precision=precision)
    table = LabelTable.read(labels) if labels else None
    with Gallery.open(settings, create=not dry_run) as gallery:
        options = Options(
            labels=table, source=source, replace=replace, resume=resume, dry_run=dry_run, patience=AWAY_SECONDS
        )
        report = run(gallery, paths, options, quiet=as_json, failures=failures, outcomes=outcomes, cluster=cluster)
        if not (dry_run or report.interrupted or cluster) and len(gallery) >= MEETING:
            gallery.meet_strangers()
        generation = "" if dry_run or report.interrupted else freshen(gallery)
        if not report.files and not report.interrupted:
            err().print("warning: No files there: hidden files, links out of a folder and empty zips do not count.")
        unmatched = len(table.unmatched()) if table else 0
        if as_json:
            print_json(report_json(report, unmatched_rows=unmatched, generation=generation, dry_run=dry_run))
        else:
            print_report(report, unmatched_rows=unmatched, generation=generation, dry_run=dry_run)
    raise typer.Exit(INTERRUPTED if report.interrupted else DONE if report.ok else FAILED)


def run(
    gallery: Gallery,
    paths: Sequence[Path],
    options: Options,
    *,
    quiet: bool = False,
    failures: Path | None = None,
    outcomes: Path | None = None,
    cluster: Cluster | None = None,
) -> Report:
    """Index with a progress bar; ``failures`` gets a JSON line per failed file as it happens, ``outcomes`` per file.

    ``cluster``: the one that embeds; None, this process.
    """
    with ExitStack() as stack:
        sandbox = stack.enter_context(Sandbox(worker_count(gallery.settings), Limits.of(gallery.settings)))
        bar = stack.enter_context(progress_bar("files", quiet=quiet))
        failed, told = (
            stack.enter_context(path.open("w", encoding="utf-8")) if path else None for path in (failures, outcomes)
        )
        listener = _Listener(bar, bar.add_task("Indexing", total=None), failed, told)
        if not bar.disable:
            bar.update(listener.task, total=sum(1 for _ in walk(paths)))
        say = partial(bar.console.print, markup=False)
        remote = None
        if cluster and not options.dry_run:
            stack.enter_context(connected(cluster.address))
            remote = RayEngine(gallery, actors=cluster.actors, told=say)
        elif gallery.settings.precision == "auto" and not options.dry_run:
            sources = sum(1 for _ in islice(walk(paths), EARNING))
            encoder, home = gallery.encoder, gallery.settings.home
            choose_while_encoding(encoder, home, lambda choice: say(choice.sentence), sources=sources)
        return run_index(gallery, sandbox, paths, options, listener, engine=remote)


def _cluster(engine: Engine, address: str | None, actors: int | None) -> Cluster | None:
    if engine is Engine.RAY:
        return Cluster(address, actors)
    if address is not None or actors is not None:
        raise UsageError("--address and --actors are of a Ray cluster: give them along with --engine ray.")
    return None


class _Listener:
    """Moves the bar and writes the failures and the outcomes."""

    def __init__(self, bar: Progress, task: TaskID, failed: TextIO | None, told: TextIO | None) -> None:
        self.task = task
        self._bar = bar
        self._failed = failed
        self._told = told

    def __call__(self, event: Event) -> None:
        if not isinstance(event, FileDone):
            return
        self._bar.advance(self.task)
        path = str(event.source)
        if self._failed and event.rejection:
            why = event.rejection
            _write(self._failed, path=path, sha256=why.sha256, stage=why.stage, reason=why.reason)
        if self._told:
            _write(self._told, path=path, status=event.status.value, reason=event.reason, case_id=event.case_id)


def _write(lines: TextIO, **told: str) -> None:
    lines.write(json.dumps(told) + "\n")
    lines.flush()
