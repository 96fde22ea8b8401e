"""``precedent encoders``: what can turn images into vectors here."""

from __future__ import annotations

from dataclasses import asdict

from indexer.cli.console import Json, out, print_json
from retrieval.encoders import known_encoders


def encoders(as_json: Json = False) -> None:
    """List encoders: their size, input, recipe, licence, and what is missing to use each here."""
    known = known_encoders()
    if as_json:
        print_json([asdict(entry) for entry in known])
        return
    for entry in known:
        size = f"{entry.recipe.size[0]} x {entry.recipe.size[1]}, recipe {entry.recipe.name}" if entry.recipe else ""
        facts = [f"{entry.dim} numbers" if entry.dim else "", size, "text too" if entry.text else "", entry.licence]
        out().print(entry.spec, style="bold", markup=False)
        out().print("    " + "; ".join(fact for fact in facts if fact), markup=False)
        if entry.missing:
            out().print(f"    missing: {entry.missing}", markup=False)
