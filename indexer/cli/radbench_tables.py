"""RadBench's figures as tables."""

from __future__ import annotations

import math

from rich.table import Table

from indexer.cli.console import out
from indexer.radbench.run import RadBenchReport


def print_radbench(report: RadBenchReport) -> None:
    """One table for all tasks, and what was left out."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("task", "figure", "value", "95 % interval", "most frequent", "random case", "questions"):
        table.add_column(column)
    for task in report.tasks:
        for score in task.scores:
            interval = f"{_number(score.low)} to {_number(score.high)}"
            figures = (_number(score.value), interval, _number(score.majority), _number(score.random_case))
            table.add_row(task.task.value, score.name, *figures, f"{score.questions:,}")
    console = out()
    console.print(table)
    console.print(
        f"Answered from {report.gallery_size - report.left_out:,} cases; {report.left_out:,} of the gallery were left "
        "out, as they are images of the questions or of their patients.",
        markup=False,
    )
    if report.unreadable:
        console.print(f"{report.unreadable:,} images could not be read; their questions were left out.")
    for task in report.tasks:
        if task.unanswered:
            console.print(f"{task.unanswered:,} of {task.questions:,} questions of {task.task} had no answer.")


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "-"
