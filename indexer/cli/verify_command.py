"""``precedent verify``: do the index and the database agree, provably."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from typing import Annotated

import typer

from indexer.cli.console import DONE, FAILED, BoundEncoder, Home, Json, out, print_json, settings_of
from indexer.intake import sweep_kept
from indexer.scrub import scrub as run_scrub
from retrieval.gallery import Gallery
from retrieval.verify import verify as run_verify
from retrieval.verify.scrub import Pace

LOW_PRIORITY = 10


def verify(
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended from the database.")] = False,
    scrub: Annotated[
        bool,
        typer.Option("--scrub", help="Also read every page of the database and every kept upload, at low priority."),
    ] = False,
    share: Annotated[
        float, typer.Option(help="How much of the time --scrub reads, above 0 and up to 1; the rest it sleeps.")
    ] = 0.5,
    encoder: BoundEncoder = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Check every stored vector, the index files and their manifest against each other. Exit code 1 if they differ."""
    settings, pace = settings_of(home, encoder=encoder), Pace(share)
    if scrub:
        os.nice(LOW_PRIORITY)
    with Gallery.open(settings) as gallery:
        report = run_verify(gallery.catalog, settings.home, repair=repair)
        swept = sweep_kept(gallery) if repair else 0
        if scrub:
            report = replace(report, checks=(*report.checks, *run_scrub(gallery, pace)))
    if as_json:
        print_json({"ok": report.ok, "checks": [asdict(check) for check in report.checks], "kept_swept": swept})
    else:
        for check in report.checks:
            out().print(f"{'ok  ' if not check.count else 'BAD '} {check.name}: {check.sentence}", markup=False)
        if swept:
            out().print(f"Removed {swept} kept uploads that no case refers to.")
        out().print("Everything agrees." if report.ok else "Some things do not agree: run precedent verify --repair.")
    raise typer.Exit(DONE if report.ok else FAILED)
