"""``precedent demo``: a gallery of phantoms and of real files from installed libraries, and the service on it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from indexer.cli.console import Home, Json, err, print_json, settings_of
from indexer.cli.index_command import run
from indexer.cli.reports import print_report, report_json
from indexer.cli.serve_command import start
from indexer.labels import LabelTable
from indexer.pipeline import Options
from indexer.report import Report
from retrieval.errors import UsageError
from retrieval.gallery import Gallery

DEMO_SOURCES = {"phantom", "pydicom", "nibabel"}


class Size(StrEnum):
    """How large a phantom set."""

    DEMO = "demo"
    TINY = "tiny"


def demo(
    host: Annotated[str | None, typer.Option(help="Address to listen on (default 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (default 8000).")] = None,
    serve: Annotated[bool, typer.Option(help="Start the service when the gallery is ready.")] = True,
    size: Annotated[Size, typer.Option(help="How large a phantom set.")] = Size.DEMO,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Build a small gallery (generated phantoms, real files of pydicom and nibabel) and serve it with its page."""
    settings = settings_of(home, host=host, port=port)
    with Gallery.open(settings, create=True) as gallery:
        _check_is_demo(gallery)
        if not as_json:
            err().print("Drawing phantoms and indexing them with the real files of pydicom and nibabel ...")
        reports = _index(gallery, size, quiet=as_json)
        if as_json:
            print_json({source: _plain(report) for source, report in reports.items()})
        else:
            for source, report in reports.items():
                err().print(f"\n{source}", style="bold")
                print_report(report, unmatched_rows=0, generation="", dry_run=False)
    if serve:
        start(settings)


def _index(gallery: Gallery, size: Size, *, quiet: bool) -> dict[str, Report]:
    from indexer.demo.demo import build_demo_inputs  # here: no other command needs what draws phantoms

    reports = {}
    for paths, labels, source in build_demo_inputs(gallery.settings.home, size=size.value):
        table = LabelTable.read(labels) if labels else None
        reports[source] = run(gallery, paths, Options(labels=table, source=source), quiet=quiet)
        if reports[source].interrupted:
            raise KeyboardInterrupt
    return reports


def _plain(report: Report) -> dict[str, object]:
    return report_json(report, unmatched_rows=0, generation="", dry_run=False)


def _check_is_demo(gallery: Gallery) -> None:
    """Phantoms have no place among somebody's own cases."""
    others = [source for source, _ in gallery.catalog.counts().sources if source not in DEMO_SOURCES]
    if others:
        raise UsageError(
            f"The data directory {gallery.settings.home} holds cases of your own: give the demo its own with --home."
        )
