"""``precedent stats``: what the gallery holds."""

from __future__ import annotations

from dataclasses import asdict

from rich.table import Table

from indexer.cli.console import BoundEncoder, Home, Json, out, print_json, settings_of
from retrieval.gallery import Gallery


def stats(encoder: BoundEncoder = None, home: Home = None, as_json: Json = False) -> None:
    """Count what is on file (kinds, modalities, body parts, sources, labels); tell the encoder and the index."""
    with Gallery.open(settings_of(home, encoder=encoder)) as gallery:
        state, counts, adapters = gallery.state(), gallery.catalog.counts(), gallery.catalog.adapters()
    if as_json:
        print_json({"state": asdict(state), "counts": asdict(counts)})
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("cases", f"{state.size:,}")
    table.add_row("encoder", f"{state.fingerprint} ({state.dim} numbers, pooling {state.pooling})")
    if adapters:
        table.add_row(
            "adapters", ", ".join(f"{row.name}{' (live)' if row.name == state.adapter else ''}" for row in adapters)
        )
    table.add_row("index", f"{state.generation or 'none yet'} and {state.delta:,} newer, searched exactly")
    if state.damaged:
        table.add_row("damaged", state.damaged)
    for name, values in (
        ("kinds", counts.kinds),
        ("modalities", counts.modalities),
        ("body parts", counts.body_parts),
        ("sources", counts.sources),
    ):
        table.add_row(name, ", ".join(f"{value or '(none)'} {count:,}" for value, count in values))
    for label in counts.labels:
        shown = ", ".join(f"{value} {count:,}" for value, count in label.values[:8])
        more = f", and {label.distinct - 8:,} more" if label.distinct > 8 else ""
        table.add_row(f"label {label.name}", f"{label.cases:,} cases: {shown}{more}")
    out().print(table)
