"""The page: what was evaluated, with what, and how it went, with all figures drawn and all pictures within."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

from indexer.evaluate import Evaluation
from indexer.reporting import drawings
from retrieval.appraisal.compare import Comparison
from retrieval.appraisal.fairness import GroupFigures
from retrieval.appraisal.statistics import Figure
from retrieval.appraisal.subjects import Subjects
from retrieval.appraisal.types import Appraisal

NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Page:
    """All that the page shows. ``pictures``: a data URL for each case shown, by its row; empty for a page without.

    ``broken``: bounds that were not kept. ``made_at``: UTC, as it is printed.
    """

    evaluation: Evaluation
    appraisal: Appraisal
    subjects: Subjects
    pictures: Mapping[int, str]
    command: str
    gallery: str
    made_at: str
    version: str
    comparison: Comparison | None = None
    broken: tuple[str, ...] = ()


def render(page: Page) -> str:
    """The HTML, complete in itself: no script, no font, no picture and no style is fetched."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("indexer.reporting", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "with_interval": with_interval, "interval": interval, "percent": percent}
    environment.filters |= {"counted": counted, "point_name": point_name, "breakable": breakable}
    environment.globals |= {
        "roc_plot": drawings.roc_plot,
        "reliability_plot": drawings.reliability_plot,
        "interval_plot": drawings.interval_plot,
        "figures_of": _figures_of,
    }
    style = resources.files("indexer.reporting").joinpath("report.css").read_text(encoding="utf-8")
    return environment.get_template("report.html.j2").render(page=page, style=style)


def number(value: float | None, places: int = 3) -> str:
    """Rounded; a dash for a figure that does not exist."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:.{places}f}".replace("-", "−")


def interval(low: float, high: float, places: int = 3) -> str:
    """Both ends, a dash where there are none."""
    return f"{number(low, places)} to {number(high, places)}" if math.isfinite(low) else NOTHING


def with_interval(figure: Figure, places: int = 3) -> str:
    """A figure and its interval in brackets."""
    if not math.isfinite(figure.value):
        return NOTHING
    return f"{number(figure.value, places)} ({interval(figure.low, figure.high, places)})"


def percent(share: float) -> str:
    """As few digits as it takes."""
    return f"{share * 100:.3g} %"


def counted(count: int, what: str) -> str:
    """As "1 case" and "1,200 cases"."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def point_name(name: str) -> str:
    """An operating point as a reader knows it."""
    return name.replace("youden", "Youden").replace(">=", " ≥ ")


def breakable(text: str) -> str:
    """Lines may break after an underscore."""
    return text.replace("_", "_\u200b")


def _figures_of(groups: tuple[GroupFigures, ...], name: str) -> list[tuple[str, Figure]]:
    """A figure of every group, with the group's name."""
    found = ((group.name, group.figure(name)) for group in groups)
    return [(group, figure) for group, figure in found if figure is not None]
