"""``precedent encoders``: what can turn images into vectors here."""

from __future__ import annotations

from dataclasses import asdict

from rich.table import Table

from indexer.cli.console import Json, out, print_json
from retrieval.encoders import known_encoders


def encoders(as_json: Json = False) -> None:
    """List encoders: their size, input, recipe, licence, and what is missing to use each here."""
    known = known_encoders()
    if as_json:
        print_json([asdict(entry) for entry in known])
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("encoder", "dim", "input", "recipe", "text", "licence", "missing"):
        table.add_column(name, overflow="fold")
    for entry in known:
        table.add_row(
            entry.spec,
            str(entry.dim or "by weights"),
            f"{entry.recipe.size[0]} x {entry.recipe.size[1]}" if entry.recipe else "by weights",
            entry.recipe.name if entry.recipe else "by weights",
            "yes" if entry.text else "",
            entry.licence,
            entry.missing or "nothing",
        )
    out().print(table)
