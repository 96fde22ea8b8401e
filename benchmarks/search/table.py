"""What was measured, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.search.measure import CLIENTS, ENOUGH, Line, Measured, enough
from benchmarks.search.scopes import Scope
from benchmarks.search.trial import Left

_HEAD = f"| plan | effort | recall@10 | first ms | p50 ms | p99 ms | queries/s, 1 client | {CLIENTS} clients | batch |"


def tables(found: Sequence[Measured], left: Sequence[Left], scopes: Sequence[Scope], count: int) -> str:
    """What each takes, then a table for each scope, then who took no part."""
    parts = [
        "| plan | build s | bytes/vector held in memory | bytes/vector read from disk |\n|---|---|---|---|\n"
        + "\n".join(
            f"| {each.name} | {each.build_seconds:.1f} | {_per(each.held, count)} | {_per(each.stored, count)} |"
            for each in found
        )
    ]
    for scope in scopes:
        title = scope.name if scope.allowed is None else f"{scope.name} may be returned"
        rows = [row for each in found for row in _rows(each, scope)]
        parts.append(f"{title[0].upper()}{title[1:]}:\n\n{_HEAD}\n|{'---|' * 9}\n" + "\n".join(rows))
    parts += [f"Without {each.name}: {each.reason}." for each in left]
    return "\n\n".join(parts)


def _rows(told: Measured, scope: Scope) -> list[str]:
    """Its line; without a filter also that of the least effort which is enough, where it takes more by itself."""
    line = told.lines[scope.number]
    least = enough(told.curve)
    spare = scope.allowed is None and least.recall >= ENOUGH and least.median < line.median
    return [_row(told.name, line)] + ([_row(f"{told.name}, told to do no more than needed", least)] if spare else [])


def _row(name: str, line: Line) -> str:
    short = "" if line.recall >= ENOUGH else " (short)"
    return (
        f"| {name} | {line.effort} | {line.recall:.4f}{short} | {line.first:.2f} | {line.median:.2f} | "
        f"{line.tail:.2f} | {line.alone:.0f} | {line.many:.0f} | {line.batch:.0f} |"
    )


def _per(total: float | None, count: int) -> str:
    return "not told" if total is None else f"{total / count:.0f}"
