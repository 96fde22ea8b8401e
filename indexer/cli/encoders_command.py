"""``precedent encoders``: what can turn images into vectors here, and whether it keeps its word."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from indexer.cli.console import DONE, FAILED, Home, Json, err, out, print_json, settings_of
from indexer.encoder_check import EncoderCheck, check_encoder
from retrieval.encoders import KnownEncoder, known_encoders, known_recipes, open_encoder
from retrieval.encoders.base import EncoderCard
from retrieval.encoders.files.template import write_template

encoders = typer.Typer(
    help="Encoders: list them, check one, write a card for a model file.", invoke_without_command=True
)


@encoders.callback()
def list_(context: typer.Context, as_json: Json = False) -> None:
    """List encoders: their size, input, recipe, licence, and what is missing to use each here."""
    if context.invoked_subcommand:
        return
    known = known_encoders()
    if as_json:
        print_json([_facts(entry) for entry in known])
        return
    for entry in known:
        out().print(entry.spec, style="bold", markup=False)
        out().print("    " + "; ".join(fact for fact in _words(entry) if fact), markup=False)
        if entry.missing:
            out().print(f"    missing: {entry.missing}", markup=False)
    names = ", ".join(recipe.name for recipe in known_recipes())
    out().print(f"Any 2D network takes another preparation as SPEC?recipe=NAME: {names}.", markup=False)


@encoders.command("check")
def check(
    name: Annotated[str, typer.Argument(help="The encoder, as --encoder names it.", show_default=False)],
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 (default: a GPU where there is one).")] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure the faster paths now, keeping nothing.")
    ] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Load an encoder, print its card and fingerprint, and measure determinism and speed on built-in images."""
    encoder = open_encoder(name, device=device)
    report = check_encoder(encoder, settings_of(home).home, calibrate=calibrate)
    if as_json:
        print_json(_report_json(report))
    else:
        _print_report(report)
    raise typer.Exit(DONE if report.ok else FAILED)


@encoders.command("card")
def card(
    model: Annotated[Path, typer.Argument(help="An ONNX, torch.export or TorchScript file.", show_default=False)],
    replace: Annotated[bool, typer.Option("--replace", help="Write over the card that is there.")] = False,
) -> None:
    """Write a card beside a model file, to be completed by hand: it says how images are prepared for the model."""
    path = write_template(model, replace=replace)
    out().print(str(path), markup=False, soft_wrap=True)
    err().print("Complete it (dim, size, mean, std, licence), then: precedent encoders check onnx:PATH or torch:PATH.")


def _words(entry: KnownEncoder) -> list[str]:
    size = entry.recipe.size if entry.recipe else entry.size
    recipe = entry.recipe.name if entry.recipe else entry.recipe_name
    return [
        f"{entry.dim} numbers" if entry.dim else "",
        entry.kind,
        " x ".join(map(str, size)) if size else "",
        f"recipe {recipe}" if recipe else "",
        "images and text" if entry.text else "images",
        entry.licence,
        entry.notes,
    ]


def _facts(entry: KnownEncoder) -> dict[str, Any]:
    size = entry.recipe.size if entry.recipe else entry.size
    name = entry.recipe.name if entry.recipe else entry.recipe_name
    return {**asdict(entry), "size": size, "recipe_name": name, "usable": not entry.missing}


def _report_json(report: EncoderCheck) -> dict[str, Any]:
    return {
        "ok": report.ok,
        "fingerprint": report.card.fingerprint,
        "card": asdict(report.card),
        "milliseconds": round(report.milliseconds, 2),
        "path": report.path,
        "findings": [asdict(finding) for finding in report.findings],
    }


def _print_report(report: EncoderCheck) -> None:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in _card_rows(report.card):
        table.add_row(name, Text(value))
    unit = "a volume" if report.card.volume else "a frame"
    table.add_row("speed", Text(f"{report.milliseconds:.1f} ms {unit}. {report.path}"))
    for finding in report.findings:
        table.add_row("kept" if finding.kept else "BROKEN", Text(f"{finding.promise} ({finding.measured})"))
    out().print(table)


def _card_rows(card: EncoderCard) -> list[tuple[str, str]]:
    recipe = asdict(card.volume) if card.volume else asdict(card.recipe)
    scale = f", logit scale {card.logit_scale:.4g}" if card.logit_scale else ""
    bias = f", bias {card.logit_bias:.4g}" if card.logit_bias is not None else ""
    return [
        ("encoder", card.spec),
        ("fingerprint", card.fingerprint),
        ("vectors", f"{card.dim} numbers, {card.dtype}, {card.kind}, {'images and text' if card.text else 'images'}"),
        ("weights", f"SHA-256 {card.weights_sha256}{scale}{bias}" if card.weights_sha256 else "none"),
        ("licence", card.licence or "not stated"),
        ("notes", card.notes or "-"),
        *((f"recipe.{name}", str(value)) for name, value in recipe.items()),
    ]
