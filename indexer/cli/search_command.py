"""``precedent search``: the cases most like a file, a case on file, a sentence, or an image and a sentence."""

from __future__ import annotations

from typing import Annotated

import typer

from indexer.cli.asking import FusedBy, Text, TextWeight, What, check_asked, query_of
from indexer.cli.console import BoundEncoder, Home, Json, err, print_json, settings_of
from indexer.cli.hits import print_result, result_json
from retrieval.filters import parse_text
from retrieval.gallery import Gallery
from retrieval.types import GroupBy, SamePatient


def search(
    what: What = None,
    text: Text = "",
    text_weight: TextWeight = None,
    fusion: FusedBy = None,
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
    check_asked(what, text, text_weight, fusion)
    filters = parse_text(where) if where else None
    with Gallery.open(settings_of(home, encoder=encoder)) as gallery:
        query, warnings = query_of(gallery, what, text, text_weight, fusion)
        result = gallery.search(query, k=k, filters=filters, same_patient=same_patient, group=group, rerank=rerank)
    for warning in warnings:
        err().print(f"warning: {warning}", markup=False)
    if as_json:
        print_json(result_json(result, warnings))
    else:
        print_result(result)
