"""``precedent export`` and ``precedent import``: vectors out and in."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from indexer.cli.console import DONE, FAILED, Home, Json, err, out, print_json, progress_bar, settings_of
from retrieval.catalog import Catalog
from retrieval.errors import UsageError
from retrieval.privacy import Secret
from retrieval.settings import Settings

PATIENT_DATA = (
    "Vectors are patient data: people can be found again by the vectors of their images. Guard this folder as the "
    "images themselves."
)


def export(
    target: Annotated[Path, typer.Argument(metavar="FOLDER", help="New folder.", show_default=False)],
    dtype: Annotated[str, typer.Option(help="float32, to the bit, or float16, half the size.")] = "float32",
    reports: Annotated[bool, typer.Option("--reports/--no-reports", help="Reports can hold names.")] = True,
    slices: Annotated[bool, typer.Option("--slices/--no-slices", help="The vectors of single slices.")] = True,
    with_uids: Annotated[
        bool, typer.Option("--with-uids", help="Keep study, series and SOP instance UIDs, by which a PACS finds them.")
    ] = False,
    shard: Annotated[int, typer.Option(help="Cases in a file.")] = 100_000,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written.")] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Write vectors, labels and reports as .npy and Parquet, in the layout clip-retrieval and autofaiss read.

    Patients get pseudonyms of this export alone; the key, source paths and pictures are never in it. To move a whole
    gallery with those, use precedent backup.
    """
    from retrieval.backups.backup import check_target
    from retrieval.vectors import export_vectors

    settings = settings_of(home)
    with Catalog.open(settings.url) as catalog:
        if dry_run:
            check_target(target)
            binding = catalog.embedded_with()
            told = {"path": str(target), "cases": catalog.count(), "fingerprint": binding.fingerprint, "dry_run": True}
            _say(told, f"Would write {told['cases']:,} cases of {binding.dim} numbers to {target}.", as_json)
            return
        with progress_bar("cases", quiet=as_json) as bar:
            task = bar.add_task("exporting", total=None)
            done = export_vectors(
                catalog,
                target,
                dtype=dtype,
                reports=reports,
                slices=slices,
                uids=with_uids,
                shard=shard,
                progress=lambda n, of: bar.update(task, completed=n, total=of),
            )
    manifest = done.manifest
    facts = {name: value for name, value in asdict(manifest).items() if name not in ("files", "binding", "shards")}
    told = {"path": str(target), **facts, "fingerprint": manifest.binding.fingerprint, "bytes": manifest.size}
    size = f"{len(manifest.files):,} files, {manifest.size / 1e6:,.1f} MB"
    kind = f"{manifest.dtype}, {manifest.binding.fingerprint}"
    _say(told, f"{target}: {manifest.cases:,} cases, {kind}, {size}.", as_json)
    err().print(PATIENT_DATA)


def import_(
    source: Annotated[Path, typer.Argument(metavar="FOLDER", help="From precedent export, or laid out as that.")],
    encoder_name: Annotated[
        str | None,
        typer.Option(help="What made the vectors of a folder that precedent export did not write.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, write nothing.")] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Take vectors in, from another gallery or as published, into a new data directory or one of the same encoder.

    Everything is checked before the first case is stored: hashes, counts, lengths, NaN, ids, the encoder's fingerprint.
    Published vectors need no encoder: the gallery can be evaluated, and asked by the cases on file.
    """
    from retrieval.vectors import import_vectors, taking

    settings = settings_of(home)
    if dry_run:
        _try_import(source, encoder_name, settings, as_json)
        return
    opened = _source(source, encoder_name, _new_secret())  # before anything is made, that it can be read at all
    opened.check()
    with taking(settings) as (catalog, secret), progress_bar("cases", quiet=as_json) as bar:
        task = bar.add_task("importing", total=opened.count)
        taken = import_vectors(
            _source(source, encoder_name, secret),
            catalog,
            progress=lambda n, of: bar.update(task, completed=n, total=of),
        )
    told = {"home": str(settings.home), "fingerprint": opened.binding.fingerprint, **asdict(taken)}
    counts = ", ".join(f"{count:,} {name}" for name, count in asdict(taken).items() if count) or "nothing"
    _say(told, f"{settings.home}: {counts}; {opened.binding.fingerprint}.", as_json)
    raise typer.Exit(FAILED if taken.conflicts else DONE)


def _source(folder: Path, encoder_name: str | None, secret: Secret) -> Any:
    from indexer.published import PublishedVectors
    from retrieval.vectors import ExportedVectors, is_export

    if is_export(folder):
        if encoder_name is not None:
            raise UsageError(f"'{folder}' says itself what made its vectors: leave out --encoder-name.")
        return ExportedVectors.open(folder)
    if encoder_name is None:
        return ExportedVectors.open(folder)  # says what is expected
    return PublishedVectors.open(folder, encoder_name, secret)


def _new_secret() -> Secret:
    """For a check alone: nothing made with it is kept."""
    return Secret(bytes(32))


def _try_import(folder: Path, encoder_name: str | None, settings: Settings, as_json: bool) -> None:
    from retrieval.errors import StoreError
    from retrieval.vectors.taking import check_source

    source = _source(folder, encoder_name, _new_secret())
    try:
        catalog = Catalog.open(settings.url)
    except StoreError:  # none yet, which is what a new gallery begins with
        check_source(source, None)
    else:
        with catalog:
            check_source(source, catalog)
    told = {"cases": source.count, "fingerprint": source.binding.fingerprint, "dry_run": True}
    _say(told, f"All is well: would import {source.count:,} cases of {source.binding.fingerprint}.", as_json)


def _say(told: dict[str, object], line: str, as_json: bool) -> None:
    if as_json:
        print_json(told)
    else:
        out().print(line, markup=False)
