"""How things are printed: people's text by rich, machines' by JSON, problems and progress to stderr."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from retrieval.errors import PrecedentError, UsageError
from retrieval.settings import Settings

DONE, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130

Home = Annotated[
    Path | None,
    typer.Option("--home", help="Data directory. Default: PRECEDENT_HOME, else .precedent here.", show_default=False),
]
BoundEncoder = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        help="The gallery's encoder, stated: its new place where weights have moved. Another one is refused.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def settings_of(home: Path | None, **given: Any) -> Settings:
    """Settings from the environment, with what the command line states put in their place; UsageError for a bad one."""
    stated = {name: value for name, value in given.items() if value is not None}
    if home is not None:
        stated["home"] = home
    try:
        return Settings(**stated)
    except ValidationError as error:
        raise UsageError(
            " ".join(_bad_setting(fault["loc"], fault["msg"], stated) for fault in error.errors())
        ) from error


def _bad_setting(place: tuple[int | str, ...], fault: str, stated: dict[str, Any]) -> str:
    """Which setting, where it was given, and what is expected; not its value, as that of a URL holds a password."""
    name = str(place[0]) if place else "settings"
    given = f"--{name.replace('_', '-')}" if name in stated else f"PRECEDENT_{name.upper()} of the environment"
    return f"The setting {given} can't be used: {fault[:1].lower()}{fault[1:]}."


WIDE = 240  # columns where nobody looks at a terminal: whole lines for pipes and files


def out() -> Console:
    """Where answers go."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)


def err() -> Console:
    """Where progress and problems go."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def problem(error: PrecedentError) -> None:
    """An error, as the sentence it is."""
    err().print(Text(f"precedent: {error}", style="red" if sys.stderr.isatty() else ""))


def progress_bar(unit: str, *, quiet: bool) -> Progress:
    """Done of total, a bar, the rate and the time left, on stderr; silent when it is no terminal."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(unit),
        TimeRemainingColumn(),
        console=err(),
        disable=quiet or not sys.stderr.isatty(),
        transient=True,
    )


class _Rate(ProgressColumn):
    """Units a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} {self._unit}/s" if task.speed else "", style="progress.data.speed")
