"""Figures of the page, drawn as SVG from numbers. Colours come from the page's style sheet, light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

from retrieval.appraisal.statistics import Figure
from retrieval.appraisal.types import Curve
from retrieval.evidence.reliability import ReliabilityBin

SIDE, MARGIN = 200, 26  # of a square plot, and room for its numbers
LETTERS, LETTER = 25, 5.6  # of a name beside a plot, at most; the width of one


def _points(xs: Iterable[float], ys: Iterable[float]) -> str:
    """Of the unit square, in the plot."""
    span = SIDE - MARGIN - 6
    return " ".join(f"{MARGIN + x * span:.1f},{6 + (1 - y) * span:.1f}" for x, y in zip(xs, ys, strict=True))


def _axes(across: str, up: str) -> str:
    low, high, mid = MARGIN, SIDE - 6, (MARGIN + SIDE - 6) / 2
    bottom = SIDE - MARGIN
    ticks = ""
    for share in (0, 0.25, 0.5, 0.75, 1):
        x, y = f"{low + share * (high - low):.1f}", f"{6 + share * (bottom - 6):.1f}"
        ticks += f'<line class="grid" x1="{x}" x2="{x}" y1="6" y2="{bottom}"/>'
        ticks += f'<line class="grid" x1="{low}" x2="{high}" y1="{y}" y2="{y}"/>'
    return (
        f"{ticks}"
        f'<text x="{low}" y="{bottom + 11}">0</text><text x="{high}" y="{bottom + 11}" class="end">1</text>'
        f'<text x="{low - 4}" y="{bottom}" class="end">0</text><text x="{low - 4}" y="13" class="end">1</text>'
        f'<text x="{mid:.0f}" y="{bottom + 12}" class="mid">{escape(across)}</text>'
        f'<text x="9" y="{mid - 10:.0f}" class="mid" transform="rotate(-90 9 {mid - 10:.0f})">{escape(up)}</text>'
    )


def _square(body: str, label: str) -> Markup:
    return Markup(  # noqa: S704 - numbers of our own and escaped names
        f'<svg class="plot" viewBox="0 0 {SIDE} {SIDE - 10}" role="img" aria-label="{escape(label)}">{body}</svg>'
    )


def roc_plot(curve: Curve, label: str) -> Markup:
    """A curve with its band above the diagonal of chance."""
    band = _points([*curve.grid, *reversed(curve.grid)], [*curve.high, *reversed(curve.low)])
    return _square(
        _axes("1 − specificity", "sensitivity")
        + f'<line class="chance" {_line((0, 0), (1, 1))}/><polygon class="band" points="{band}"/>'
        + f'<polyline class="curve" points="{_points(curve.false_positive, curve.true_positive)}"/>',
        label,
    )


def reliability_plot(bins: Sequence[ReliabilityBin], label: str) -> Markup:
    """How often probabilities came true; a dot's area says how many there are, on a logarithmic scale."""
    most = max((one.count for one in bins), default=1)
    path = _points([one.predicted for one in bins], [one.observed for one in bins])
    dots = ""
    for one, place in zip(bins, path.split(), strict=True):
        x, y = place.split(",")
        radius = 2 + 4 * math.log1p(one.count) / math.log1p(most)
        dots += (
            f'<circle class="dot" cx="{x}" cy="{y}" r="{radius:.1f}"><title>{one.count} of mean {one.predicted:.2f}: '
            f"{one.observed:.2f} true</title></circle>"
        )
    body = f'<line class="chance" {_line((0, 0), (1, 1))}/><polyline class="curve thin" points="{path}"/>{dots}'
    return _square(_axes("said", "came true") + body, label)


def _line(start: tuple[float, float], end: tuple[float, float]) -> str:
    (x1, y1), (x2, y2) = (place.split(",") for place in _points([start[0], end[0]], [start[1], end[1]]).split())
    return f'x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"'


def _short(name: str) -> str:
    """A name that has room beside a plot, its beginning and its end kept."""
    return name if len(name) <= LETTERS else f"{name[: LETTERS - 10]}…{name[-9:]}"


def interval_plot(rows: Sequence[tuple[str, Figure]], label: str, mark: float | None = None) -> Markup:
    """Figures with their intervals, one below the other, on one scale; ``mark`` is drawn across, as chance."""
    shown = [(name, figure) for name, figure in rows if math.isfinite(figure.value)]
    if not shown:
        return Markup("")
    edges = [edge for _, figure in shown for edge in (figure.low, figure.high)]
    edges += [] if mark is None or not math.isfinite(mark) else [mark]
    low, high = math.floor(min(edges) * 10) / 10, math.ceil(max(edges) * 10) / 10
    high = max(high, low + 0.1)
    left = 10 + max(86, max(LETTER * len(_short(name)) for name, _ in shown))
    width, step = 320 - left, 18

    def across(value: float) -> float:
        return left + (value - low) / (high - low) * width

    bottom = step * len(shown) + 6
    parts = [
        f'<line class="grid" x1="{across(t):.1f}" x2="{across(t):.1f}" y1="2" y2="{bottom}"/>'
        f'<text class="mid" x="{across(t):.1f}" y="{bottom + 11}">{t:.2f}</text>'
        for t in (low, (low + high) / 2, high)
    ]
    if mark is not None and math.isfinite(mark):
        parts.append(f'<line class="chance" x1="{across(mark):.1f}" x2="{across(mark):.1f}" y1="2" y2="{bottom}"/>')
    for number, (name, figure) in enumerate(shown):
        y = step * number + step / 2 + 3
        start, end, at = (f"{across(edge):.1f}" for edge in (figure.low, figure.high, figure.value))
        parts.append(
            f'<text class="end name" x="{left - 8}" y="{y + 3:.1f}">{escape(_short(name))}'
            f"<title>{escape(name)}</title></text>"
            f'<line class="whisker" x1="{start}" x2="{end}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<circle class="dot" cx="{at}" cy="{y:.1f}" r="3.4"/>'
        )
    size = f"0 0 {left + width + 16} {bottom + 16}"
    return Markup(  # noqa: S704 - numbers of our own and escaped names
        f'<svg class="intervals" viewBox="{size}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )
