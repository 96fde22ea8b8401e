"""``precedent evaluate``: how good are the neighbours, patient by patient, beside chance."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from indexer.cli.console import Home, Json, out, print_json, progress_bar, settings_of
from indexer.evaluate import Evaluation, evaluate_table
from indexer.events import Event, FileDone
from retrieval.catalog import Catalog
from retrieval.errors import StoreError
from retrieval.gallery import Gallery
from retrieval.settings import Settings


def evaluate(
    labels: Annotated[Path, typer.Option(help="Labels file (.csv or .parquet) that names files or UIDs.")],
    label: Annotated[str, typer.Option(help="Which column says what counts as similar.")] = "label",
    where: Annotated[
        list[str] | None, typer.Option(help="Only rows that meet this, as split=test; repeatable.")
    ] = None,
    encoder: Annotated[str, typer.Option(help="Embed the files with this encoder instead.")] = "",
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Leave-one-patient-out P@k, R@10, mAP and nDCG with 95 % intervals, beside chance.

    Vectors come from the gallery when it holds every row; otherwise the files are embedded into a temporary one.
    """
    settings = settings_of(home)
    gallery = _gallery(settings)
    try:
        with progress_bar("files", quiet=as_json) as bar:
            task = bar.add_task("Embedding", total=None)

            def listen(event: Event) -> None:
                if isinstance(event, FileDone):
                    bar.advance(task)

            result = evaluate_table(
                labels, label=label, where=where or [], gallery=gallery, encoder=encoder, settings=settings, seed=seed,
                listen=listen,
            )  # fmt: skip
    finally:
        if gallery is not None:
            gallery.close()
    if as_json:
        print_json(result.to_json())
    else:
        _print(result)


def _gallery(settings: Settings) -> Gallery | None:
    """The gallery of the data directory, if there is one."""
    try:
        Catalog.open(settings.url).close()
    except StoreError:
        return None
    return Gallery.open(settings)


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
