"""``precedent erase``: cases deleted for good, and no byte of them left in a live file."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from indexer.cli.console import DONE, FAILED, BoundEncoder, Home, Json, err, print_json, progress_bar, settings_of
from indexer.erase import Receipt, on_file
from indexer.erase import erase as run_erase
from retrieval.errors import NotFoundError, UsageError
from retrieval.gallery import Gallery
from retrieval.storage import storing

MODE = 0o600


def erase(
    case_ids: Annotated[list[str] | None, typer.Argument(metavar="[CASE_ID]...", show_default=False)] = None,
    patient: Annotated[
        str | None,
        typer.Option(
            help="All cases of a patient: the id as in the files, or - to read it from standard input, which keeps it "
            "out of the shell's history.",
            show_default=False,
        ),
    ] = None,
    issuer: Annotated[str, typer.Option(help="Issuer of that patient id, where the files state one.")] = "",
    patient_key: Annotated[
        str | None, typer.Option(help="All cases of a patient, by pseudonym.", show_default=False)
    ] = None,
    deleted: Annotated[
        bool, typer.Option("--deleted", help="Erase what was deleted before (over HTTP, or by an erase cut off).")
    ] = False,
    receipt: Annotated[
        Path | None, typer.Option(help="Also write the receipt to this new file.", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say which cases would be erased.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    encoder: BoundEncoder = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Delete cases so that their bytes are in no live file: the index and the database are rewritten.

    Prints a receipt as JSON. Searching goes on; it takes as long as a rebuild and needs room for a second database and
    index. Exit code 1 when some of the cases were not on file.
    """
    settings = settings_of(home, encoder=encoder)
    if receipt is not None and receipt.exists():
        raise UsageError(f"'{receipt}' is there already: expected the name of a new file for the receipt.")
    with Gallery.open(settings) as gallery:
        asked = _asked(gallery, case_ids or [], patient, issuer, patient_key, deleted=deleted)
        if dry_run:
            found, missing = on_file(gallery, asked)
            print_json({"cases": [case.case_id for case in found], "not_on_file": missing, "dry_run": True})
            return
        if not yes:
            _confirm(len(asked))
        with progress_bar("vectors", quiet=as_json) as bar:
            task = bar.add_task("Rebuilding", total=len(gallery))
            done = run_erase(gallery, asked, progress=lambda count: bar.update(task, completed=count))
    _say(done, receipt, as_json=as_json)
    raise typer.Exit(FAILED if done.not_on_file else DONE)


def _asked(
    gallery: Gallery, case_ids: list[str], patient: str | None, issuer: str, patient_key: str | None, *, deleted: bool
) -> list[str]:
    """The ids meant, none for ``--deleted``; exactly one way of naming cases must have been used."""
    if sum([bool(case_ids), patient is not None, patient_key is not None, deleted]) != 1:
        raise UsageError("Expected CASE_IDs, --patient, --patient-key or --deleted, and one of them only.")
    if case_ids or deleted:
        return case_ids
    if patient is not None:
        stated = sys.stdin.readline() if patient == "-" else patient
        patient_key = gallery.secret.patient_key(stated.strip(), issuer)
    keys = gallery.catalog.keys_of_patient(patient_key or "")
    if not len(keys):
        raise NotFoundError("No case of that patient is on file. Mind the issuer of the id: state it with --issuer.")
    return [case.case_id for case in gallery.catalog.cases(keys).values()]


def _confirm(count: int) -> None:
    if not sys.stdin.isatty():
        raise UsageError("Nobody is there to confirm that cases may be erased: say --yes.")
    what = f"Erase {count} cases for good" if count else "Rewrite index and database"
    typer.confirm(f"{what}?", abort=True, err=True)


def _say(done: Receipt, path: Path | None, *, as_json: bool) -> None:
    value: dict[str, Any] = asdict(done)
    if path is not None:
        with storing("The receipt can't be written, though the cases are erased"):
            path.touch(mode=MODE, exist_ok=False)
            path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    print_json(value)
    if not as_json:
        err().print(f"{len(done.cases):,} cases are erased. {' '.join(done.beyond)}", markup=False)
