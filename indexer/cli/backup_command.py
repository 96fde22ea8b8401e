"""``precedent backup`` and ``precedent restore``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from indexer.cli.console import DONE, FAILED, Home, Json, out, print_json, settings_of
from indexer.kept_names import kept_files
from retrieval.backups import Backup, Restored
from retrieval.backups import backup as run_backup
from retrieval.backups import restore as run_restore
from retrieval.backups.backup import check_target
from retrieval.catalog import Catalog
from retrieval.privacy import Secret
from retrieval.storage import storing

WITH_KEY = (
    "The key is in it: whoever has this backup can link patients and read source paths, so guard it as the store "
    "itself."
)
WITHOUT_KEY = (
    "The key is not in it: keep a copy of secret.key in another place. It never changes, and without it this backup "
    "can't be restored."
)


def backup(
    target: Annotated[Path, typer.Argument(metavar="DEST", help="New directory for the backup.", show_default=False)],
    with_key: Annotated[
        bool,
        typer.Option(
            "--with-key",
            help="Put secret.key into the backup. Without it the backup says less to a thief, and a copy of the key "
            "kept elsewhere is needed to restore it.",
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be copied.")] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Copy the gallery as it is at this moment: database, live index, kept uploads. Everything else goes on meanwhile.

    DEST appears when all of it is written and synced, with the size and SHA-256 of every file in backup.json.
    """
    settings = settings_of(home)
    with storing("The key file secret.key can't be read"):
        secret = Secret.open(settings.home / "secret.key")
    with Catalog.open(settings.url) as catalog:
        if dry_run:
            check_target(target)
            _say_dry(catalog, target, as_json)
            return
        done = run_backup(catalog, settings.home, target, secret, kept_files(secret), with_key=with_key)
    _say(done, as_json)


def restore(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A directory made by precedent backup.")],
    key: Annotated[
        Path | None,
        typer.Option(help="A copy of secret.key, for a backup made without it.", show_default=False),
    ] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Make a data directory from a backup, with SQLite or the empty PostgreSQL database PRECEDENT_DATABASE_URL names.

    Every file is checked against backup.json, and in the end everything against everything as by precedent verify: exit
    code 1 if they differ. A damaged or newer backup is refused, and so is a data directory that is not empty.
    """
    settings = settings_of(home)
    done = run_restore(source, settings.home, settings.database_url, key=key)
    _say_restored(done, as_json)
    raise typer.Exit(DONE if done.report.ok else FAILED)


def _say_dry(catalog: Catalog, target: Path, as_json: bool) -> None:
    cases = catalog.count()
    if as_json:
        print_json({"path": str(target), "cases": cases, "dry_run": True})
    else:
        out().print(f"Would write {cases:,} cases to {target}.", markup=False)


def _say(done: Backup, as_json: bool) -> None:
    manifest = done.manifest
    if as_json:
        told = {name: value for name, value in asdict(manifest).items() if name != "files"}
        print_json(
            {"path": str(done.path), **told, "files": len(manifest.files), "bytes": manifest.size, "gone": done.gone}
        )
        return
    size = f"{len(manifest.files):,} files, {manifest.size / 1e6:,.1f} MB"
    index = f"index {manifest.generation}" if manifest.generation else "no index"
    out().print(
        f"{done.path}: {manifest.cases:,} cases, {index}, {size}.",
        markup=False,
    )
    if done.gone:
        out().print(
            f"The pixels of {done.gone:,} uploads are not in it: they were lost before; see precedent verify --scrub."
        )
    out().print(WITH_KEY if manifest.key_inside else WITHOUT_KEY)


def _say_restored(done: Restored, as_json: bool) -> None:
    manifest, report = done.manifest, done.report
    if as_json:
        print_json(
            {
                "home": str(done.home),
                "created_at": manifest.created_at,
                "cases": manifest.cases,
                "rebuilt": done.rebuilt,
                "ok": report.ok,
                "findings": [asdict(check) for check in report.findings],
            }
        )
        return
    for check in report.findings:
        out().print(f"BAD {check.name}: {check.sentence}", markup=False)
    index = " The index was built anew." if done.rebuilt else ""
    sound = "Everything agrees." if report.ok else "Some things do not agree: run precedent verify --repair."
    out().print(f"{done.home}: {manifest.cases:,} cases as of {manifest.created_at}.{index} {sound}", markup=False)
