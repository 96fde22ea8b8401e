"""``precedent evaluate``: how good are the neighbours, patient by patient, beside chance."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from indexer.cli.console import FAILED, Home, Json, err, out, print_json, progress_bar, settings_of
from indexer.evaluate import Evaluation, Material, evaluate_material, material_of_gallery, material_of_table
from indexer.events import Event, FileDone, Listener
from retrieval.backups.staging import staging
from retrieval.catalog import Catalog
from retrieval.errors import StoreError, UsageError
from retrieval.gallery import Gallery
from retrieval.settings import Settings
from retrieval.storage import storing

if TYPE_CHECKING:
    from indexer.reporting.making import Appraised


class Protocol(StrEnum):
    """What is asked."""

    LABELS = "labels"
    RADBENCH = "radbench"


def evaluate(
    folder: Annotated[
        Path | None, typer.Argument(help="With --protocol radbench: the folder of its questions.", show_default=False)
    ] = None,
    protocol: Annotated[Protocol, typer.Option(help="Neighbours' labels, or RadBench's five questions.")] = (
        Protocol.LABELS
    ),
    labels: Annotated[
        Path | None,
        typer.Option(help="Labels file (.csv or .parquet) that names files or UIDs. Default: the labels on file."),
    ] = None,
    label: Annotated[str, typer.Option(help="Which column says what counts as similar.")] = "label",
    where: Annotated[
        list[str] | None, typer.Option(help="Only rows that meet this, as split=test; repeatable.")
    ] = None,
    encoder: Annotated[str, typer.Option(help="Embed the files with this encoder instead.")] = "",
    html: Annotated[Path | None, typer.Option(help="Write everything into one HTML file, pictures included.")] = None,
    pictures: Annotated[bool, typer.Option(help="Whether the HTML file may hold small pictures of cases.")] = True,
    compare: Annotated[
        Path | None, typer.Option(help="Data directory of another gallery of the same cases, to compare with.")
    ] = None,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(help="Exit 1 when a figure is worse, as P@5=0.6, AUC=0.7 or ECE=0.05; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Leave-one-patient-out P@k, R@10, mAP and nDCG with 95 % intervals, beside chance.

    Vectors come from the gallery when it holds every row; otherwise the files are embedded into a temporary one.
    With --html, --compare or --fail-under also: ROC curves and areas, operating points, calibration, rarer findings,
    groups of patients, mistakes and duplicates.
    """
    from retrieval.appraisal.gates import Gate

    settings = settings_of(home)
    if protocol is Protocol.RADBENCH:
        if folder is None or labels or where or encoder or html or compare or fail_under:
            raise UsageError("--protocol radbench takes a FOLDER, --label, --seed, --home and --json, nothing else.")
        _radbench(settings, folder, label, seed, as_json=as_json)
        return
    if folder is not None:
        raise UsageError("A FOLDER is asked with --protocol radbench; name a labels file with --labels.")
    gates = [Gate.parse(text) for text in fail_under or []]
    if html is not None and (html.is_dir() or not html.parent.is_dir()):
        raise UsageError(f"Expected a file in a folder that exists for --html, got {html}.")
    with ExitStack() as stack, progress_bar("files", quiet=as_json) as bar:
        task = bar.add_task("Embedding", total=None)

        def listen(event: Event) -> None:
            if isinstance(event, FileDone):
                bar.advance(task)

        material = stack.enter_context(_material(settings, labels, label, where or [], encoder, listen))
        if html is None and compare is None and not gates:
            result = evaluate_material(material, seed=seed)
            print_json(result.to_json()) if as_json else _print(result)
            return
        from indexer.reporting.making import appraised

        other = stack.enter_context(Gallery.open(settings_of(compare))) if compare else None
        done = appraised(material, seed=seed, other=other, gates=gates, pictures=pictures and html is not None)
    _tell(done, html, settings, as_json=as_json)


def _radbench(settings: Settings, folder: Path, label: str, seed: int, *, as_json: bool) -> None:
    from indexer.cli.radbench_tables import print_radbench
    from indexer.limits import Limits
    from indexer.radbench.run import evaluate_radbench
    from indexer.sandbox import Sandbox
    from indexer.workers import worker_count

    sandbox = Sandbox(worker_count(settings), Limits.of(settings))
    with Gallery.open(settings) as gallery, sandbox, progress_bar("images", quiet=as_json) as bar:
        task = bar.add_task("Embedding", total=None)
        report = evaluate_radbench(gallery, sandbox, folder, label, seed=seed, done=lambda: bar.advance(task))
    print_json(report.to_json()) if as_json else print_radbench(report)


@contextmanager
def _material(
    settings: Settings, labels: Path | None, label: str, where: list[str], encoder: str, listen: Listener
) -> Iterator[Material]:
    gallery = _gallery(settings)
    try:
        if labels is not None:
            with material_of_table(
                labels, label=label, where=where, gallery=gallery, encoder=encoder, settings=settings, listen=listen
            ) as material:
                yield material
        elif gallery is None:
            raise UsageError("Expected a labels file (--labels) or a gallery with labels on file; there is neither.")
        elif where or encoder:
            raise UsageError("--where and --encoder are about the rows of a labels file: name it with --labels.")
        else:
            yield material_of_gallery(gallery, label)
    finally:
        if gallery is not None:
            gallery.close()


def _gallery(settings: Settings) -> Gallery | None:
    """The gallery of the data directory, if there is one."""
    try:
        Catalog.open(settings.url).close()
    except StoreError:
        return None
    return Gallery.open(settings)


def _tell(done: Appraised, html: Path | None, settings: Settings, *, as_json: bool) -> None:
    """Write the page, print the figures, and exit 1 when a bound was not kept."""
    if html is not None:
        _write(done, html, settings)
    if as_json:
        print_json(done.to_json())
    else:
        _print(done.evaluation)
        _print_more(done)
        if html is not None:
            out().print(f"Everything is in {html}.", markup=False)
    for sentence in done.broken:
        err().print(f"precedent: {sentence}", markup=False)
    if done.broken:
        raise typer.Exit(FAILED)


def _write(done: Appraised, html: Path, settings: Settings) -> None:
    from indexer.reporting.page import Page, render

    page = Page(
        evaluation=done.evaluation,
        appraisal=done.appraisal,
        subjects=done.subjects,
        pictures=done.pictures,
        command=shlex.join(["precedent", *sys.argv[1:]]),
        gallery=str(settings.home),
        made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=version("precedent"),
        comparison=done.comparison,
        broken=done.broken,
    )
    replace_report(html, render(page))


def replace_report(file: Path, text: str) -> None:
    """All of the text or, where the disk is full or writing is broken off, what was there before."""
    target = file.resolve()
    if target.exists() and not target.is_file():  # as /dev/stdout
        target.write_text(text, encoding="utf-8")
        return
    with storing("The report can't be written"), staging(target.parent) as place:
        written = place / target.name
        written.write_text(text, encoding="utf-8")
        written.replace(target)


def _print(result: Evaluation) -> None:
    report, console = result.report, out()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in (result.label, "value", "95 % interval", "chance"):
        table.add_column(column)
    for measure in report.measures:
        interval = f"{measure.low:.3f} to {measure.high:.3f}"
        table.add_row(measure.name, f"{measure.value:.3f}", interval, f"{measure.chance:.3f}")
    console.print(table)
    console.print(
        f"{report.queries:,} queries of {report.patients:,} patients, {report.classes} classes, {result.fingerprint}, "
        f"vectors from the {result.vectors_from}.",
        markup=False,
    )
    if result.rows_without_case:
        console.print(f"{result.rows_without_case:,} of {result.rows:,} rows gave no case.")
    for note in report.notes:
        console.print(note, markup=False)


def _print_more(done: Appraised) -> None:
    """Areas and calibration, and how the other encoder compares."""
    appraisal, console = done.appraisal, out()
    if appraisal.calibration is not None:
        area, error = appraisal.auc, appraisal.calibration.error
        console.print(
            f"AUC {area.value:.3f} ({area.low:.3f} to {area.high:.3f}), mean of {len(appraisal.values)} values; "
            f"expected calibration error {error.value:.3f} ({error.low:.3f} to {error.high:.3f}).",
            markup=False,
        )
    if done.comparison is None:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "this", "other", "other less this", "95 % interval"):
        table.add_column(column)
    for one in done.comparison.differences:
        interval = f"{one.low:+.3f} to {one.high:+.3f}"
        table.add_row(one.name, f"{one.this.value:.3f}", f"{one.other.value:.3f}", f"{one.difference:+.3f}", interval)
    console.print(table)
    console.print(f"On {done.comparison.shared:,} cases that both galleries hold.", markup=False)
