"""Learning an adapter on a gallery's stored vectors, keeping it, and searching through it. No pixel is read.

What is stored stays: SQL keeps the encoder's vectors, an adapter is kept beside them, and using one publishes a
generation of what it makes of them. Until that one commit, searches go on as before; a process killed at any moment
leaves either the old state or the new one, and at worst an adapter on file that nobody uses yet.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from retrieval.adapters.choice import Tried, choose, plans
from retrieval.adapters.head import HeadKind, MetricHead
from retrieval.adapters.label_values import learnable
from retrieval.adapters.report import AdaptReport, report_of
from retrieval.adapters.split import Linked, cohort_of, drawn, groups_of, split
from retrieval.adapters.training import LossKind
from retrieval.building import Progress
from retrieval.catalog import AdapterRow
from retrieval.errors import ConflictError, NotFoundError, UsageError
from retrieval.gallery import Gallery
from retrieval.manifest import Manifest
from retrieval.publish import publish
from retrieval.types import Keys, UnitRows

NONE = "none"  # the name of no adapter
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MAX_CASES = 20_000  # learned from; beyond that more of them cost time and change little


@dataclass(frozen=True, slots=True)
class Lesson:
    """What to learn. None for ``head`` or ``loss``: both are tried. ``bins``: parts to cut a numeric label into."""

    label: str
    head: HeadKind | None = None
    loss: LossKind | None = None
    bins: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Adaptation:
    """A head that was learned, and what it is worth."""

    head: MetricHead
    report: AdaptReport


@dataclass(frozen=True, slots=True)
class _Gathered:
    rows: UnitRows
    links: list[Linked]
    values: list[tuple[str, ...]]
    notes: list[str]


def learn_adapter(gallery: Gallery, lesson: Lesson, told: Callable[[Tried], None] | None = None) -> Adaptation:
    """Learn a head for a label and measure it; nothing is written. ``told`` hears of every way that was tried.

    UsageError, with the numbers, when the label is unknown or has too few values or patients.
    """
    started = time.perf_counter()
    gathered = _gather(gallery, lesson)
    cohort = cohort_of(gathered.links, gathered.values, lesson.label)
    rows = gathered.rows[cohort.chosen]
    parts = split(cohort, lesson.seed)
    ways = plans(lesson.head, lesson.loss)
    choice = choose(rows, cohort, parts, gallery.fingerprint, ways, lesson.seed, told)
    seconds = time.perf_counter() - started
    report = report_of(
        lesson.label, rows, cohort, parts, choice, gallery.fingerprint, lesson.seed, seconds, gathered.notes
    )
    return Adaptation(choice.head, report)


def keep(gallery: Gallery, adaptation: Adaptation, name: str = "") -> str:
    """Put a head on file, under a name made of label and hash by default; returns the name it is on file under.

    UsageError for a name that is none, ConflictError for one that another head has.
    """
    report = adaptation.report
    if name:
        check_name(name)
    else:
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", report.label).strip("-._")[:40] or "adapter"
        name = f"{slug}-{adaptation.head.sha256[:6]}"
    told = json.dumps(report.to_json(), sort_keys=True)
    return gallery.catalog.save_adapter(name, adaptation.head, report.label, told)


def check_name(name: str) -> None:
    """UsageError unless an adapter may be called so."""
    if NAME.fullmatch(name) is None or name == NONE:
        raise UsageError(f"Expected an adapter's name of 1 to 64 letters, digits or . _ - that is not '{NONE}'.")


def use(gallery: Gallery, name: str, progress: Progress | None = None) -> Manifest | None:
    """Search through the adapter of that name from now on, or with ``none`` as the encoder has it.

    Publishes a generation, with the index in use now; None when it is so already. NotFoundError for an unknown name,
    otherwise as ``retrieval.publish.publish``.
    """
    row = None if name == NONE else adapter_of(gallery, name)
    wanted = row.sha256 if row else ""
    if gallery.catalog.heads().adapter == wanted:
        return None
    live = next((each.backend for each in gallery.catalog.generations() if each.state == "live"), "")
    try:
        return publish(
            gallery.catalog, gallery.settings.home, live or gallery.settings.index, adapter=wanted, progress=progress
        )
    except ConflictError as error:
        raise ConflictError(f"{error} Then run precedent adapt --use {name}.") from error


def adapter_of(gallery: Gallery, name: str) -> AdapterRow:
    """The adapter of that name; NotFoundError, naming those there are."""
    rows = gallery.catalog.adapters()
    for row in rows:
        if row.name == name:
            return row
    known = ", ".join(row.name for row in rows) or "there are none yet"
    raise NotFoundError(f"There is no adapter '{name}' in this gallery ({known}).")


def _gather(gallery: Gallery, lesson: Lesson) -> _Gathered:
    """What the catalog knows of the cases that carry the label, in the order of their keys."""
    catalog = gallery.catalog
    labelled = catalog.labelled(lesson.label)
    if not len(labelled.keys):
        known = ", ".join(sorted(each.name for each in catalog.counts().labels)) or "none"
        raise UsageError(f"No case on file has the label '{lesson.label}'; labels on file: {known}.")
    values = learnable(lesson.label, labelled.values, labelled.numbers, lesson.bins)
    links = catalog.links(labelled.keys)
    notes = _notes(links)
    taken = _sampled(labelled.keys, links, lesson.seed)
    if len(taken) < len(labelled.keys):
        notes.append(f"Learned from {len(taken):,} of {len(labelled.keys):,} labelled cases, drawn patient by patient.")
    held, rows = catalog.vectors_of(labelled.keys[taken])
    kept = taken[np.isin(labelled.keys[taken], held)]
    return _Gathered(rows, [links[n] for n in kept], [values[n] for n in kept], notes)


def _notes(links: list[Linked]) -> list[str]:
    alone = sum(not link.patient for link in links)
    if not alone:
        return []
    return [
        f"{alone} of {len(links)} cases have no patient id: they are kept together by study, else each alone, and "
        "near-copies of one patient, if there are any, raise the figures."
    ]


def _sampled(keys: Keys, links: list[Linked], seed: int) -> Keys:
    """Positions, ascending, of at most ``MAX_CASES`` cases."""
    if len(keys) <= MAX_CASES:
        return np.arange(len(keys))
    return drawn(groups_of(links), MAX_CASES, seed)
