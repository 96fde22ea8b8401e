"""``precedent rebuild``: a new index, compared before it takes the live one's place; or back to the one before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from indexer.anew import Terms, target_of
from indexer.cli.anew import rebuild_anew
from indexer.cli.console import Home, Json, out, print_json, progress_bar, settings_of
from indexer.cli.shadow_table import as_plain, tell
from indexer.rebuild import rebuild_compared
from indexer.reembed import Target
from retrieval.catalog import Catalog
from retrieval.encoders import full_spec
from retrieval.errors import UsageError
from retrieval.gallery import Gallery
from retrieval.indexes.choice import AUTO, memory_of
from retrieval.publish import discard as discard_others
from retrieval.publish import rollback as roll_back
from retrieval.settings import Settings
from retrieval.shadow_figures import Gates


@dataclass(frozen=True, slots=True)
class _Asked:
    """What else is to be used than what the gallery has; None where nothing is stated."""

    encoder: str | None
    pooling: str | None


def rebuild(
    index: Annotated[
        str | None,
        typer.Option(help="auto, exact, fastscan, faiss with options as faiss:SQfp16, or milvus://host:port."),
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="With auto: the most memory the index may take, as 8G.", show_default=False)
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Embed every case anew from its files, with this encoder.", show_default=False)
    ] = None,
    pooling: Annotated[
        str | None,
        typer.Option(help="Embed every case anew, its slices to one vector by mean, max, min, median or std."),
    ] = None,
    drop_missing: Annotated[
        bool,
        typer.Option("--drop-missing", help="With --encoder: delete the cases whose files are gone or unreadable."),
    ] = False,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Go back to the generation before, and its encoder.")
    ] = False,
    discard: Annotated[
        bool,
        typer.Option(
            "--discard", help="Drop vectors by other encoders: of an unfinished rebuild, or kept for a rollback."
        ),
    ] = False,
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
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Build the index anew, compare it with the live one and make it live. Searches go on meanwhile.

    From the stored vectors no file is read. With --encoder (or --pooling) every case is decoded and embedded anew
    beside the old vectors, which serve until one commit puts the new in their place; killed at any moment, the same
    command goes on where it was. Running services must be restarted after that, and say so.
    """
    if memory is not None:
        index = _within(index, memory)
    settings = settings_of(home, index=index, pooling=pooling)
    terms = Terms(settings.index, Gates(min_overlap, min_recall, max_loss), dry_run, drop_missing)
    if rollback or discard:
        _back(settings, as_json, discarding=discard)
    elif target := _another(settings, _Asked(encoder, pooling)):
        rebuild_anew(settings, target, terms, as_json)
    else:
        _from_stored(settings if encoder is None else settings_of(home, index=index, encoder=encoder), terms, as_json)


def _within(index: str | None, memory: str) -> str:
    if index not in (None, AUTO):
        raise UsageError(f"--memory goes with --index auto, which chooses by it, not with {index}.")
    memory_of(memory)
    return f"{AUTO}:{memory}"


def _another(settings: Settings, asked: _Asked) -> Target | None:
    """The encoder to embed anew with; None when nothing but the gallery's own was stated."""
    with Catalog.open(settings.url) as catalog:
        bound = catalog.binding()
    if bound is None or (asked.encoder is None and asked.pooling is None):
        return None
    if asked.pooling is None and full_spec(asked.encoder or "") == full_spec(bound.encoder):
        return None
    target = target_of(bound, settings, asked.encoder or "")
    return None if target.binding.fingerprint == bound.fingerprint else target


def _from_stored(settings: Settings, terms: Terms, as_json: bool) -> None:
    if terms.drop_missing:
        raise UsageError("--drop-missing goes with --encoder: an index of the stored vectors reads no file.")
    with Gallery.open(settings) as gallery, progress_bar("vectors", quiet=as_json) as bar:
        task = bar.add_task("Building", total=len(gallery))
        done = rebuild_compared(
            gallery,
            gates=terms.gates,
            dry_run=terms.dry_run,
            progress=lambda vectors: bar.update(task, completed=vectors),
        )
    if as_json:
        print_json(as_plain(done, terms))
    else:
        tell(done, terms)
    if done.refusal and not terms.dry_run:
        raise UsageError(done.refusal)


def _back(settings: Settings, as_json: bool, *, discarding: bool) -> None:
    with Catalog.open(settings.url) as catalog:
        if discarding:
            discard_others(catalog, settings.home)
            if as_json:
                print_json({"discarded": True})
            else:
                out().print("Vectors by other encoders than the gallery's are gone.")
            return
        row = roll_back(catalog, settings.home)
    if as_json:
        print_json({"generation": row.name, "count": row.count, "fingerprint": row.fingerprint, "rolled_back": True})
        return
    out().print(
        f"Generation {row.name} is live again ({row.count:,} vectors; later ones are searched exactly).", markup=False
    )
