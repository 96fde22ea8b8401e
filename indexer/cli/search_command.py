"""``precedent search``: the cases most like a file, a case on file, a sentence, or an image and a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from indexer.cli.console import BoundEncoder, Home, Json, err, print_json, settings_of
from indexer.cli.hits import print_result, result_json
from indexer.limits import Limits
from indexer.query import read_query
from indexer.sandbox import Sandbox
from indexer.workers import worker_count
from retrieval.encoders.text import text_encoder
from retrieval.errors import UsageError
from retrieval.filters import parse_text
from retrieval.gallery import TEXT_WEIGHT, Gallery
from retrieval.types import Fusion, GroupBy, Query, SamePatient


def search(
    what: Annotated[
        list[str] | None, typer.Argument(help="A file, the files or folder of a series, a zip, or a case id.")
    ] = None,
    text: Annotated[
        str, typer.Option(help="A sentence, alone or beside a file or case; needs an encoder with a text tower.")
    ] = "",
    text_weight: Annotated[
        float | None, typer.Option(help=f"Share of the sentence beside an image, 0 to 1 (default {TEXT_WEIGHT}).")
    ] = None,
    fusion: Annotated[
        Fusion | None, typer.Option(help="Image and sentence as one weighted sum (default), or reciprocal rank.")
    ] = None,
    k: Annotated[int, typer.Option("-k", "--k", help="How many hits.")] = 10,
    where: Annotated[str, typer.Option("--filter", help='Such as "modality=CT,age>=40"; see docs/cli.md.')] = "",
    same_patient: Annotated[SamePatient, typer.Option(help="Cases of the query's own patient.")] = SamePatient.EXCLUDE,
    group: Annotated[GroupBy, typer.Option(help="Keep the best hit of each.")] = GroupBy.PATIENT,
    rerank: Annotated[bool, typer.Option("--rerank", help="Reorder by the best matching slices.")] = False,
    encoder: BoundEncoder = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Find the most similar cases on file. The query's own patient is left out unless you say otherwise."""
    text = text.strip()
    if not what and not text:
        raise UsageError("Expected either a file, folder or case id, or --text with a sentence, or both.")
    if not (what and text) and (text_weight is not None or fusion is not None):
        raise UsageError("--text-weight and --fusion put an image and a sentence together: give a file and --text.")
    filters = parse_text(where) if where else None
    with Gallery.open(settings_of(home, encoder=encoder)) as gallery:
        if text:  # before files are read for nothing
            text_encoder(gallery.encoder)
        query, warnings = _case_or_files(gallery, what) if what else (gallery.text_query(text), ())
        if what and text:
            weight = TEXT_WEIGHT if text_weight is None else text_weight
            query = gallery.with_text(query, text, weight=weight, fusion=fusion or Fusion.SUM)
        result = gallery.search(query, k=k, filters=filters, same_patient=same_patient, group=group, rerank=rerank)
    for warning in warnings:
        err().print(f"warning: {warning}", markup=False)
    if as_json:
        print_json(result_json(result, warnings))
    else:
        print_result(result)


def _case_or_files(gallery: Gallery, what: list[str]) -> tuple[Query, tuple[str, ...]]:
    paths = [Path(name) for name in what]
    missing = [path for path in paths if not path.exists()]
    if not missing:
        with Sandbox(worker_count(gallery.settings), Limits.of(gallery.settings)) as sandbox:
            read = read_query(gallery, sandbox, paths)
        return read.query, read.warnings
    if on_file := gallery.catalog.content_of(what):
        if len(what) > 1:
            raise UsageError(
                f"'{next(iter(on_file))}' is a case on file: expected one case id alone, or files and folders alone."
            )
        return gallery.query_of(what[0]), ()
    raise UsageError(f"'{missing[0]}' is neither a file, nor a folder, nor the id of a case on file.")
