"""``precedent drift``: is what was added lately like what was there before, and what stands alone?"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from indexer.cli.console import Home, Json, out, print_json, settings_of
from retrieval.gallery import Gallery

if TYPE_CHECKING:
    from retrieval.evidence.drift import Change
    from retrieval.evidence.drift_report import DriftReport


def drift(
    since: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Compare what was added from this day on (UTC).", show_default=False),
    ] = None,
    last: Annotated[int, typer.Option(min=0, help="Compare the last so many cases; 0: the newest tenth.")] = 0,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Compare cases added lately with those before: how close they are, modality, body part, sex, age, source.

    Also lists cases unlike any other patient's and cases of two patients that are one picture. Exits 0 either way.
    """
    from retrieval.evidence.drift_report import drift as compare

    with Gallery.open(settings_of(home)) as gallery:
        report = compare(gallery, since=since.strftime("%Y-%m-%d") if since else "", last=last)
    if as_json:
        print_json(report.to_json())
        return
    _print(report)


def _print(report: DriftReport) -> None:
    console = out()
    console.print(report.verdict)
    console.print(f"{report.lately:,} cases since {report.since[:10]}, {report.before:,} before.")
    if report.changes:
        table = _table("figure", "test", "p", "index", "drifted", "before and lately")
        for change in report.changes:
            table.add_row(
                change.name,
                change.test,
                f"{change.p_value:.2g}",
                f"{change.stability:.2f}",
                "yes" if change.drifted else "no",
                _told(change),
            )
        console.print(table)
    if len(report.months) > 1:
        table = _table("month", "cases", "nearest similarity (median)")
        for month in report.months:
            near = "" if month.similarity is None else f"{month.similarity:.3f}"
            table.add_row(month.month, f"{month.cases:,}", near)
        console.print(table)
    for alone in report.alone:
        told = f"nearest similarity {alone.similarity:.3f}, far below what is usual (fence {alone.below:.3f})"
        console.print(f"Alone: {alone.case_id} {alone.modality}, {told}.")
    for twins in report.twins:
        console.print(f"Two patients, one picture: {twins.case_id} and {twins.other_case_id} ({twins.similarity:.4f}).")
    for note in report.notes:
        console.print(note)


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def _told(change: Change) -> str:
    if change.medians is not None:
        return f"median {change.medians[0]:.3g}, {change.medians[1]:.3g}"
    return ", ".join(f"{each.value} {each.before:.0%}, {each.lately:.0%}" for each in change.values)
