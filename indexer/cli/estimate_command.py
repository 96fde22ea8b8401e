"""``precedent estimate``: which number of a label a query has, by its neighbours."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from indexer.cli.asking import Text, What, check_asked, query_of
from indexer.cli.console import BoundEncoder, Home, Json, err, out, print_json, settings_of
from retrieval.evidence.estimate import estimate as by_neighbours
from retrieval.evidence.estimating import LEVEL
from retrieval.evidence.plain import estimate_json
from retrieval.evidence.types import Estimate
from retrieval.filters import parse_text
from retrieval.gallery import Gallery
from retrieval.types import SamePatient

SHOWN_CASES = 10


def estimate(
    label: Annotated[str, typer.Option(help="Which numeric label, as bone_age_months or lesion_size_mm.")],
    what: What = None,
    text: Text = "",
    k: Annotated[
        int | None, typer.Option("-k", "--k", help="How many neighbours count (default: fitted on the gallery).")
    ] = None,
    level: Annotated[float, typer.Option(help="Share of new cases that the interval is to hold.")] = LEVEL,
    where: Annotated[str, typer.Option("--filter", help='Such as "modality=CT,age>=40"; see docs/cli.md.')] = "",
    same_patient: Annotated[SamePatient, typer.Option(help="Cases of the query's own patient.")] = SamePatient.EXCLUDE,
    encoder: BoundEncoder = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """A number by neighbours, with a prediction interval measured on the gallery with each patient left out."""
    text = text.strip()
    check_asked(what, text, None, None)
    filters = parse_text(where) if where else None
    with Gallery.open(settings_of(home, encoder=encoder)) as gallery:
        query, warnings = query_of(gallery, what, text)
        found = by_neighbours(gallery, query, label=label, k=k, filters=filters, same_patient=same_patient, level=level)
    for warning in warnings:
        err().print(f"warning: {warning}", markup=False)
    if as_json:
        print_json({**estimate_json(found), "warnings": list(warnings)})
    else:
        _print(found)


def _print(found: Estimate) -> None:
    console = out()
    interval = "" if found.low is None else f", {found.level:.0%} interval {found.low:.4g} to {found.high:.4g}"
    console.print(
        f"{found.label}: {found.number:.4g}{interval} (mean of the gallery {found.base:.4g}).",
        markup=False,
        style="bold",
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("case", "similarity", found.label, "weight"):
        table.add_column(column, no_wrap=True)
    for vote in found.voters[:SHOWN_CASES]:
        table.add_row(vote.case_id, f"{vote.similarity:.3f}", f"{vote.number:g}", f"{vote.weight:.0%}")
    console.print(table)
    fitted = found.fitted_on
    console.print(
        f"Weighted {found.centre} of {len(found.voters)} neighbours, one per patient; fitted on {fitted.queries:,} of "
        f"{fitted.cases:,} cases of {fitted.patients:,} patients.",
        markup=False,
    )
    if quality := found.quality:
        console.print(
            f"On held-out patients: {quality.coverage:.1%} within their interval, mean width {quality.width:.4g}, mean "
            f"error {quality.error:.4g} (always saying the mean: {quality.error_of_mean:.4g})."
        )
    for note in (*found.notes, *found.neighbours.reasons):
        console.print(note, markup=False)
