"""``precedent adapt``: learn what counts as similar from a label, and search by it."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.table import Table

from indexer.cli.console import DONE, REFUSED, BoundEncoder, Home, Json, out, print_json, progress_bar, settings_of
from retrieval.adaptation import NONE, Adaptation, Lesson, adapter_of, check_name, keep, learn_adapter, use
from retrieval.adapters.choice import plans
from retrieval.adapters.report import AdaptReport
from retrieval.errors import UsageError
from retrieval.gallery import Gallery


class HeadChoice(StrEnum):
    LINEAR = "linear"
    MLP = "mlp"


class LossChoice(StrEnum):
    PROXY = "proxy"
    SUPCON = "supcon"


def adapt(
    label: Annotated[str, typer.Option(help="The label that says what counts as similar.")] = "",
    head: Annotated[HeadChoice | None, typer.Option(help="Kind of head. Default: both are tried.")] = None,
    loss: Annotated[LossChoice | None, typer.Option(help="Loss to learn by. Default: both are tried.")] = None,
    bins: Annotated[int | None, typer.Option(help="Cut a numeric label into this many equal parts.")] = None,
    name: Annotated[str, typer.Option(help="What to call the adapter. Default: label and hash.")] = "",
    seed: Annotated[int, typer.Option(help="Seed of split and learning.")] = 0,
    switch: Annotated[str, typer.Option("--use", help="Search through this adapter; 'none' for no adapter.")] = "",
    list_all: Annotated[bool, typer.Option("--list", help="List the adapters on file.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Learn and measure, but keep nothing.")] = False,
    encoder: BoundEncoder = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Learn a small metric head for a label on the stored vectors, measure it on patients apart, and search through it.

    No file is read and no stored vector changes. A head that does not clearly improve the validation part, or lowers
    the figures of the test part, does not become live; the exit code is then 2.
    """
    if sum((bool(label), bool(switch), list_all)) != 1:
        raise UsageError("Expected exactly one of --label NAME, --use NAME and --list.")
    with Gallery.open(settings_of(home, encoder=encoder)) as gallery:
        if list_all:
            _list(gallery, as_json)
        elif switch:
            _switch(gallery, switch, dry_run=dry_run, as_json=as_json)
        else:
            if name:
                check_name(name)
            lesson = Lesson(label, head.value if head else None, loss.value if loss else None, bins, seed)
            raise typer.Exit(_learn(gallery, lesson, name, dry_run=dry_run, as_json=as_json))


def _learn(gallery: Gallery, lesson: Lesson, name: str, *, dry_run: bool, as_json: bool) -> int:
    with progress_bar("ways", quiet=as_json) as bar:
        task = bar.add_task("Learning", total=len(plans(lesson.head, lesson.loss)))
        adaptation = learn_adapter(gallery, lesson, lambda _: bar.advance(task))
    report = adaptation.report
    kept = live = ""
    if report.improves and not dry_run:
        kept = keep(gallery, adaptation, name)
        if report.worth_using:
            live = _publish(gallery, kept, quiet=as_json)
    verdict = _verdict(report, kept, live, dry_run=dry_run)
    if as_json:
        print_json(report.to_json() | {"adapter": kept, "generation": live, "verdict": verdict, "dry_run": dry_run})
    else:
        _print(adaptation)
        out().print(verdict, markup=False)
    return DONE if report.worth_using else REFUSED


def _publish(gallery: Gallery, name: str, *, quiet: bool) -> str:
    """The generation that is live afterwards."""
    with progress_bar("vectors", quiet=quiet) as bar:
        task = bar.add_task("Building", total=len(gallery))
        use(gallery, name, lambda done: bar.update(task, completed=done))
    return gallery.state().generation


def _verdict(report: AdaptReport, kept: str, live: str, *, dry_run: bool) -> str:
    if not report.improves:
        return (
            f"Not kept: on the validation part the best head moves mAP from {report.validation_before:.3f} to "
            f"{report.validation_after:.3f}, which luck and the number of heads tried can explain. Searches stay as "
            "they are."
        )
    if not report.holds:
        saved = "Would be kept but not used" if dry_run else f"Kept as '{kept}' but not used"
        return f"{saved}: on the test part it lowers mAP by {-report.test_gain.value:.3f}. Searches stay as they are."
    if dry_run:
        return "Would be kept, and searches would go through it."
    return f"Kept as '{kept}'. Searches go through it from now on (generation {live}); --use none goes back."


def _print(adaptation: Adaptation) -> None:
    report, console = adaptation.report, out()
    sizes = ", ".join(f"{size.part} {size.cases:,} cases of {size.patients:,} patients" for size in report.parts)
    console.print(f"{report.label}: {len(report.classes)} values; {sizes}.", markup=False)
    if report.left_out:
        few = ", ".join(f"'{value}' {count}" for value, count in report.left_out[:8])
        console.print(f"{len(report.left_out)} values with too few patients were left out: {few}.", markup=False)
    console.print(
        f"Chosen of {len(report.tried)}: {report.chosen}; validation mAP {report.validation_before:.3f} to "
        f"{report.validation_after:.3f}, in {report.seconds:.1f} s.",
        markup=False,
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("test part", "before", "95 % interval", "after", "95 % interval", "chance"):
        table.add_column(column)
    for pair in report.test:
        before, after = pair.before, pair.after
        table.add_row(
            before.name,
            f"{before.value:.3f}", f"{before.low:.3f} to {before.high:.3f}",
            f"{after.value:.3f}", f"{after.low:.3f} to {after.high:.3f}",
            f"{before.chance:.3f}",
        )  # fmt: skip
    console.print(table)
    gain = report.test_gain
    console.print(f"Gain in mAP {gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f}), {report.fingerprint_after}.")
    for note in report.notes:
        console.print(note, markup=False)


def _switch(gallery: Gallery, name: str, *, dry_run: bool, as_json: bool) -> None:
    if name != NONE:
        adapter_of(gallery, name)
    if not dry_run:
        _publish(gallery, name, quiet=as_json)
    state = gallery.state()
    if as_json:
        print_json({"use": name, "generation": state.generation, "fingerprint": state.fingerprint, "dry_run": dry_run})
        return
    what = "the encoder's own vectors" if name == NONE else f"the adapter '{name}'"
    would = "Searches would go" if dry_run else "Searches go"
    out().print(f"{would} through {what} ({state.size:,} cases).", markup=False)


def _list(gallery: Gallery, as_json: bool) -> None:
    rows = gallery.catalog.adapters()
    if as_json:
        told = [
            {"name": r.name, "label": r.label, "sha256": r.sha256, "live": r.live, "created_at": r.created_at}
            for r in rows
        ]
        print_json([each | {"report": json.loads(row.report_json)} for each, row in zip(told, rows, strict=True)])
        return
    if not rows:
        out().print("No adapters yet: precedent adapt --label NAME learns one.")
    for row in rows:
        out().print(
            f"{row.name}{' (live)' if row.live else ''}: {_summary(row.label, json.loads(row.report_json))}",
            markup=False,
        )


def _summary(label: str, report: dict[str, Any]) -> str:
    """One line of a stored report."""
    figures = "; ".join(
        f"{pair['before']['name']} {pair['before']['value']:.3f} to {pair['after']['value']:.3f}"
        for pair in report["test"]
    )
    return f"{label}, {report['chosen']}; test part {figures}"
