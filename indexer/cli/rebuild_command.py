"""``precedent rebuild``: a new index, compared with the live one before it takes its place; or back to the one before."""

from __future__ import annotations

from typing import Annotated

import typer

from indexer.cli.console import BoundEncoder, Home, Json, out, print_json, progress_bar, settings_of
from indexer.cli.shadow_table import print_shadow
from indexer.rebuild import rebuild_compared
from indexer.rebuild import rollback as run_rollback
from retrieval.errors import UsageError
from retrieval.gallery import Gallery
from retrieval.indexes import split_backend
from retrieval.publish import Publication
from retrieval.shadow_figures import Gates


def rebuild(
    index: Annotated[str | None, typer.Option(help="exact, or faiss with options as faiss:SQfp16.")] = None,
    rollback: Annotated[bool, typer.Option("--rollback", help="Go back to the generation before.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build and compare, say what would change, and throw it away.")
    ] = False,
    min_overlap: Annotated[
        float | None, typer.Option(help="Refuse to go live below this share of the first 10 hits in common.")
    ] = None,
    min_recall: Annotated[
        float | None, typer.Option(help="Refuse to go live below this recall@10 against exact search.")
    ] = None,
    max_loss: Annotated[
        float | None, typer.Option(help="Refuse to go live when P@10 of any label falls by more than this.")
    ] = None,
    encoder: BoundEncoder = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Build the index anew from the database, compare it with the live one and make it live. Searches go on meanwhile;
    no file is read.
    """
    settings = settings_of(home, index=index, encoder=encoder)
    split_backend(settings.index)
    gates = Gates(min_overlap, min_recall, max_loss)
    with Gallery.open(settings) as gallery:
        if rollback:
            _roll_back(gallery, as_json)
            return
        with progress_bar("vectors", quiet=as_json) as bar:
            task = bar.add_task("Building", total=len(gallery))
            done = rebuild_compared(
                gallery, gates=gates, dry_run=dry_run, progress=lambda vectors: bar.update(task, completed=vectors)
            )
    _tell(done, settings.index, as_json, dry_run=dry_run)
    if done.refusal and not dry_run:
        raise UsageError(done.refusal)


def _roll_back(gallery: Gallery, as_json: bool) -> None:
    row = run_rollback(gallery)
    if as_json:
        print_json({"generation": row.name, "count": row.count, "rolled_back": True})
        return
    out().print(
        f"Generation {row.name} is live again ({row.count:,} vectors; later ones are searched exactly).", markup=False
    )


def _tell(done: Publication, index: str, as_json: bool, *, dry_run: bool) -> None:
    facts = done.manifest.facts
    if as_json:
        print_json(
            {
                "generation": done.manifest.name if done.live else "",
                "index": index,
                "count": facts.count,
                "live": done.live,
                "dry_run": dry_run,
                "refused": done.refusal,
                "report": done.report.to_json(),
            }
        )
        return
    print_shadow(done.report)
    if done.live:
        out().print(f"Generation {done.manifest.name} is live: {index}, {facts.count:,} vectors.", markup=False)
    elif dry_run:
        out().print(f"Nothing was changed: {index} of {facts.count:,} vectors was compared and thrown away.")
        if done.refusal:
            out().print(f"It would have been refused. {done.refusal}", markup=False)
