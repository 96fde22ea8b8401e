"""``precedent rebuild``: a new index from the stored vectors, or back to the one before."""

from __future__ import annotations

from typing import Annotated

import typer

from indexer.cli.console import BoundEncoder, Home, Json, out, print_json, progress_bar, settings_of
from indexer.rebuild import rebuild as run_rebuild
from indexer.rebuild import rollback as run_rollback
from retrieval.gallery import Gallery
from retrieval.indexes import split_backend


def rebuild(
    index: Annotated[str | None, typer.Option(help="exact, or faiss with options as faiss:SQfp16.")] = None,
    rollback: Annotated[bool, typer.Option("--rollback", help="Go back to the generation before.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be built.")] = False,
    encoder: BoundEncoder = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Build the index anew from the database, check it and make it live. Searches go on meanwhile; no file is read."""
    settings = settings_of(home, index=index, encoder=encoder)
    split_backend(settings.index)
    with Gallery.open(settings) as gallery:
        if rollback:
            row = run_rollback(gallery)
            _say(
                as_json,
                {"generation": row.name, "count": row.count, "rolled_back": True},
                f"Generation {row.name} is live again ({row.count:,} vectors; later ones are searched exactly).",
            )
            return
        if dry_run:
            state = gallery.state()
            _say(
                as_json,
                {"index": settings.index, "count": state.size, "dry_run": True},
                f"Would build {settings.index} of {state.size:,} vectors of {state.dim}.",
            )
            return
        with progress_bar("vectors", quiet=as_json) as bar:
            task = bar.add_task("Building", total=len(gallery))
            manifest = run_rebuild(gallery, progress=lambda done: bar.update(task, completed=done))
        _say(
            as_json,
            {"generation": manifest.name, "index": settings.index, "count": manifest.facts.count},
            f"Generation {manifest.name} is live: {settings.index}, {manifest.facts.count:,} vectors.",
        )


def _say(as_json: bool, value: dict[str, object], sentence: str) -> None:
    if as_json:
        print_json(value)
    else:
        out().print(sentence, markup=False)
