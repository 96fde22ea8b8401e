"""Recall against speed without a filter, one line a contender over its efforts, as an SVG of a few kB."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.search.measure import CLIENTS, Line, Measured

_LEAST = 1e-4  # share missed that is drawn as none: the queries can't tell less
_MOST = 0.2
_TICKS = (0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
_COLOURS = (
    "#0072B2",
    "#56B4E9",
    "#009E73",
    "#000000",
    "#999999",
    "#E69F00",
    "#D55E00",
    "#CC79A7",
    "#8A7000",
    "#5D3A9B",
)  # Okabe-Ito
_MARKS = "os^Dvp*Xh<"


def plot(found: Sequence[Measured], title: str, path: Path) -> None:
    """Write ``path``; the same figures give the same bytes."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "search", "font.size": 9}):
        figure, (rate, wait) = pyplot.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
        for n, each in enumerate(found):
            style = {
                "color": _COLOURS[n % len(_COLOURS)],
                "marker": _MARKS[n % len(_MARKS)],
                "markersize": 4,
                "lw": 1.2,
            }
            _draw(rate, each, lambda line: line.many, style)
            _draw(wait, each, lambda line: line.median, style)
        _axes(rate, f"queries/s, {CLIENTS} clients (up is better)")
        _axes(wait, "median ms of a query, 1 client (down is better)")
        figure.suptitle(title)
        handles, names = rate.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=5, frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
        pyplot.close(figure)


def shown(curve: Sequence[Line]) -> np.ndarray:
    """bool [n]: the lines that the axis has room for."""
    return np.array([1 - line.recall <= _MOST for line in curve], bool)


def _draw(axes: Any, each: Measured, value: Callable[[Line], float], style: dict[str, Any]) -> None:
    """A line over all efforts, a ring around the one that the tables have."""
    here = [line for line, there in zip(each.curve, shown(each.curve), strict=True) if there]
    axes.plot([_missed(line) for line in here], [value(line) for line in here], label=each.name, **style)
    if shown(each.lines[:1]).all():
        ring = style | {"marker": "o", "markersize": 9, "fillstyle": "none", "ls": "none"}
        axes.plot([_missed(each.lines[0])], [value(each.lines[0])], **ring)


def _missed(line: Line) -> float:
    return max(1 - line.recall, _LEAST)


def _axes(axes: Any, label: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(_MOST, _LEAST * 0.8)  # the right end finds all
    axes.set_xticks([*_TICKS, _LEAST], [*(f"{1 - tick:g}" for tick in _TICKS), "1"], rotation=45)
    axes.minorticks_off()
    axes.axvline(0.01, color="#bbbbbb", lw=0.8, zorder=0)
    axes.grid(axis="y", color="#eeeeee")
    axes.set_xlabel("recall@10")
    axes.set_ylabel(label)
