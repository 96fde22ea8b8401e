"""What became of a rebuild, and how the new generation compares with the one before, for people and machines."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from indexer.anew import Terms
from indexer.cli.console import out
from retrieval.publish import Publication
from retrieval.shadow_figures import ShadowReport, Side


def as_plain(done: Publication, terms: Terms) -> dict[str, Any]:
    """What became of a rebuild, as plain data."""
    return {
        "generation": done.manifest.name if done.live else "",
        "index": done.report.new.backend,
        "bytes_of_a_vector": dict(zip(("memory", "disk"), map(round, done.manifest.bytes_of_a_vector), strict=True)),
        "count": done.manifest.facts.count,
        "fingerprint": done.manifest.facts.fingerprint,
        "live": done.live,
        "dry_run": terms.dry_run,
        "refused": done.refusal,
        "report": done.report.to_json(),
    }


def tell(done: Publication, terms: Terms) -> None:
    """What became of a rebuild, for people."""
    print_shadow(done.report)
    count = done.manifest.facts.count
    if done.live:
        memory, disk = done.manifest.bytes_of_a_vector
        out().print(
            f"Generation {done.manifest.name} is live: {done.report.new.backend}, {count:,} vectors, of each "
            f"{memory:,.0f} bytes in memory and {disk:,.0f} on disk.",
            markup=False,
        )
    elif terms.dry_run:
        out().print(
            f"Nothing was changed: {done.report.new.backend} of {count:,} vectors was compared and thrown away."
        )
        if done.refusal:
            out().print(f"It would have been refused. {done.refusal}", markup=False)


def print_shadow(report: ShadowReport) -> None:
    """Both side by side; then what they share."""
    old, new, k = report.old, report.new, report.k
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in (f"{report.queries:,} queries", f"live {old.generation}".strip(), "new", "95 % interval"):
        table.add_column(column)
    table.add_row("index", old.backend, new.backend, "")
    if old.fingerprint != new.fingerprint:
        table.add_row("vectors", old.fingerprint, new.fingerprint, "")
    table.add_row(f"recall@{k}", _share(old.recall), _share(new.recall), "")
    table.add_row("p50, p99", _times(old), _times(new), "")
    for change in report.labels:
        table.add_row(
            f"P@{k} {change.label} ({change.queries:,})",
            f"{change.old:.3f}",
            f"{change.new:.3f}",
            f"{change.low:+.3f} to {change.high:+.3f}",
        )
    console = out()
    console.print(table, markup=False)
    console.print(
        f"overlap@{k} {_share(report.overlap)}, rank correlation of the shared hits {_share(report.rank_correlation)}."
    )


def _share(figure: float | None) -> str:
    return "not measured" if figure is None else f"{figure:.3f}"


def _times(side: Side) -> str:
    if side.p50_ms is None or side.p99_ms is None:
        return "not measured"
    return f"{side.p50_ms:.2f} ms, {side.p99_ms:.2f} ms"
