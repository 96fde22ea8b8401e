"""How a new generation compares with the live one, for people."""

from __future__ import annotations

from rich.table import Table

from indexer.cli.console import out
from retrieval.shadow_figures import ShadowReport, Side


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
