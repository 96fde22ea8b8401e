"""``precedent classify``: which value of a label a query has, by its neighbours."""

from __future__ import annotations

from math import isfinite
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from indexer.cli.asking import Text, What, check_asked, query_of
from indexer.cli.console import BoundEncoder, Home, Json, err, out, print_json, settings_of
from retrieval.evidence.classify import classify as by_neighbours
from retrieval.evidence.operating import SENSITIVITY, OperatingPoint
from retrieval.evidence.plain import classification_json
from retrieval.evidence.types import Classification, ValueAnswer
from retrieval.filters import parse_text
from retrieval.gallery import Gallery
from retrieval.types import SamePatient

SHOWN_CASES = 3
COLUMNS = ("value", "probability", "answer", "votes", "base rate", "lift", "AUC", "rule in", "rule out", "cases")


def classify(
    label: Annotated[str, typer.Option(help="Which label, as finding or diagnosis.")],
    what: What = None,
    text: Text = "",
    k: Annotated[
        int | None, typer.Option("-k", "--k", help="How many neighbours vote (default: fitted on the gallery).")
    ] = None,
    sensitivity: Annotated[float, typer.Option(help="Share of the true cases that rule-out must keep.")] = SENSITIVITY,
    specificity: Annotated[
        float | None, typer.Option(help="Rule in at this specificity, not at Youden's point.", show_default=False)
    ] = None,
    where: Annotated[str, typer.Option("--filter", help='Such as "modality=CT,age>=40"; see docs/cli.md.')] = "",
    same_patient: Annotated[SamePatient, typer.Option(help="Cases of the query's own patient.")] = SamePatient.EXCLUDE,
    encoder: BoundEncoder = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Probabilities of a label's values by neighbours, calibrated on the gallery with each patient left out."""
    text = text.strip()
    check_asked(what, text, None, None)
    filters = parse_text(where) if where else None
    with Gallery.open(settings_of(home, encoder=encoder)) as gallery:
        query, warnings = query_of(gallery, what, text)
        found = by_neighbours(
            gallery, query, label=label, k=k, filters=filters, same_patient=same_patient, sensitivity=sensitivity,
            specificity=specificity,
        )  # fmt: skip
    for warning in warnings:
        err().print(f"warning: {warning}", markup=False)
    if as_json:
        print_json({**classification_json(found), "warnings": list(warnings)})
    else:
        _print(found)


def _print(found: Classification) -> None:
    console = out()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in COLUMNS:
        table.add_column(column, overflow="fold", no_wrap=column == "cases")
    for value in found.values:
        table.add_row(*_row(value))
    console.print(table)
    fitted, way = found.fitted_on, found.way
    weighted = f"weighted by similarity (temperature {way.temperature:.3g})" if isfinite(way.temperature) else "equal"
    console.print(
        f"{way.k} neighbours, one per patient, votes {weighted}; calibration: {found.method}; fitted on "
        f"{fitted.queries:,} of {fitted.cases:,} cases of {fitted.patients:,} patients.",
        markup=False,
    )
    if quality := found.quality:
        console.print(
            f"Expected calibration error on held-out patients: {quality.mean_after:.3f} (votes alone "
            f"{quality.mean_before:.3f}; {quality.expected:.3f} if every probability were right)."
        )
    if found.other > 0:
        console.print(f"Rarer values together: {found.other:.3f}.")
    notes = {value.note for value in found.values if value.note}
    for note in (*found.notes, *sorted(notes), *found.neighbours.reasons):
        console.print(note, markup=False)


def _row(value: ValueAnswer) -> tuple[str, ...]:
    votes = value.votes
    more = f" +{len(votes.case_ids) - SHOWN_CASES}" if len(votes.case_ids) > SHOWN_CASES else ""
    return (
        escape(value.value),
        f"{value.probability:.3f}",
        value.answer.value,
        f"{votes.count} ({votes.share:.0%})",
        f"{votes.base_rate:.3f}",
        "" if votes.lift is None else f"{votes.lift:.2f}",
        "" if value.auc is None else f"{value.auc:.3f}",
        _point(value.rule_in),
        _point(value.rule_out),
        " ".join(votes.case_ids[:SHOWN_CASES]) + more,
    )


def _point(point: OperatingPoint | None) -> str:
    """The threshold, and what it reaches on the cases it was chosen on."""
    if point is None:
        return ""
    return f"{point.threshold:.3f} (sens {point.sensitivity:.2f}, spec {point.specificity:.2f})"
