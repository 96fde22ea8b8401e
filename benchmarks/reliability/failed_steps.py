"""What is done while calls fail: commits, publications of an index, backups and restores. See ``failed_calls``.

Each prepares a data directory once, acts on a copy of it while calls fail, and then judges from what it was told and
what is on file. Nothing here opens an encoder, so that a point takes milliseconds.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from benchmarks.reliability import backups
from benchmarks.reliability.backups import DIM, FINGERPRINT, case_of, vector_of
from benchmarks.reliability.failing_calls import Fault
from indexer.kept_names import kept_files
from retrieval.backups import backup, restore
from retrieval.catalog import Catalog
from retrieval.errors import PrecedentError, StorageFull, StoreError
from retrieval.live import LiveIndex
from retrieval.privacy import Secret
from retrieval.publish import publish
from retrieval.types import Label
from retrieval.verify import verify

T = TypeVar("T")
STILL = 40  # cases on file before
Armed = Callable[[], AbstractContextManager[None]]


def url_of(home: Path) -> str:
    return f"sqlite:///{home / 'catalog.sqlite3'}"


def still_ids(count: int) -> list[str]:
    return [f"still{n:011d}" for n in range(count)]


@dataclass(frozen=True, slots=True)
class Point:
    """One call that failed. ``refused``: how many actions were; ``wrong``: "" or why the point does not count."""

    step: str
    fault: Fault
    nth: int
    refused: int
    wrong: str


@dataclass(slots=True)
class Told:
    """What the process that met the failing calls was told. ``broken``: what must never happen, in words."""

    fault: Fault
    acked: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def attempt(self, name: str, act: Callable[[], T]) -> T | None:
        """Acknowledged when it returns, refused when it raises an error of ours; any other error is broken."""
        try:
            found = act()
        except PrecedentError as error:
            self.refused.append(name)
            if self.fault.error != errno.ENOSPC and isinstance(error, StorageFull) and "failed" not in str(error):
                self.broken.append(f"{name}: of a disk that failed it only says: {error}")
            if self.fault.error == errno.ENOSPC and "space" not in str(error):
                self.broken.append(f"{name}: of a full disk it only says: {error}")
            return None
        except Exception as error:  # noqa: BLE001 - it is to be told, whatever it is
            self.broken.append(f"{name}: {type(error).__name__} instead of a sentence: {error}")
            return None
        self.acked.append(name)
        return found


class Step(Protocol):
    name: str

    def prepare(self, home: Path) -> None:
        """The state before, made once."""

    def act(self, home: Path, armed: Armed, told: Told) -> None:
        """In a process of its own: work within ``armed()``, and after it, when all is well again."""

    def judge(self, home: Path, told: Told) -> str:
        """Afterwards, in another process: what is wrong, or ""."""


class Commits:
    """Cases added, changed and deleted, in one process that goes on after each refusal."""

    name = "commit"

    def prepare(self, home: Path) -> None:
        backups.fill(home, url_of(home), STILL)

    def act(self, home: Path, armed: Armed, told: Told) -> None:
        with Catalog.open(url_of(home)) as catalog:
            live = LiveIndex(catalog, home, DIM, FINGERPRINT)
            live.refresh()
            with armed():
                for n in range(3):
                    told.attempt(f"add {n}", lambda n=n: self._add(catalog, n))
                    told.broken += wrong_answers(live, STILL)
                told.attempt("label", lambda: catalog.update(still_ids(1)[0], labels=[Label("finding", "changed")]))
                told.attempt("delete", lambda: catalog.delete(still_ids(STILL)[-2:]))
            self._add(catalog, 3)  # without being opened anew
            told.acked.append("add 3")
            told.broken += wrong_answers(live, STILL - 2)

    def judge(self, home: Path, told: Told) -> str:
        with Catalog.open(url_of(home)) as catalog:
            found = {case.case_id: case for case in catalog.list_cases(limit=10_000)}
            for n in range(4):
                there = [case_id in found for case_id in backups.batch_ids(n, 1)]
                if all(there) != any(there) or all(there) != (f"add {n}" in told.acked):
                    return f"batch {n}: {sum(there)} of {len(there)} cases are on file, told {told}"
            changed = found[still_ids(1)[0]].labels == (Label("finding", "changed"),)
            gone = [case_id not in found for case_id in still_ids(STILL)[-2:]]
            if changed != ("label" in told.acked) or gone != ["delete" in told.acked] * 2:
                return f"labels changed: {changed}, deleted: {gone}, told {told}"
            return findings(catalog, home)

    @staticmethod
    def _add(catalog: Catalog, batch: int) -> None:
        catalog.commit([case_of(each) for each in backups.batch_ids(batch, 1)], fingerprint=FINGERPRINT)


@dataclass(frozen=True, slots=True)
class Publications:
    """An index built anew beside a live one."""

    backend: str
    cases: int = STILL

    @property
    def name(self) -> str:
        return f"rebuild {self.backend}"

    def prepare(self, home: Path) -> None:
        backups.fill(home, url_of(home), self.cases)
        with Catalog.open(url_of(home)) as catalog:
            publish(catalog, home, "exact")

    def act(self, home: Path, armed: Armed, told: Told) -> None:
        with Catalog.open(url_of(home)) as catalog:
            live = LiveIndex(catalog, home, DIM, FINGERPRINT)
            before = live.refresh().generation
            with armed():
                made = told.attempt("publish", lambda: publish(catalog, home, self.backend).name)
                told.broken += wrong_answers(live, self.cases)
                if live.generation != (made or before):
                    told.broken.append(f"{live.generation} is live; {before} was, and made was {made}")
            if publish(catalog, home, self.backend).name != live.refresh().generation:
                told.broken.append("afterwards a new generation did not become live")

    def judge(self, home: Path, told: Told) -> str:
        with Catalog.open(url_of(home)) as catalog:
            left = {path.name for path in (home / "generations").iterdir() if not path.name.startswith(".l")}
            named = {row.name for row in catalog.generations()}
            if left != named:
                return f"generations {sorted(named)} are on file, in the folder are {sorted(left)}"
            return findings(catalog, home)


class Backups:
    """A backup of a gallery with kept files, beside the gallery."""

    name = "backup"

    def prepare(self, home: Path) -> None:
        home.mkdir()
        backups.fill(home / "home", url_of(home / "home"), STILL)
        with Catalog.open(url_of(home / "home")) as catalog:
            backups.add_batch(catalog, home / "home", Secret.open(home / "home" / "secret.key"), 0, 1)

    def act(self, home: Path, armed: Armed, told: Told) -> None:
        with armed():
            told.attempt("backup", lambda: self.make(home, "backup"))
        if told.refused and (home / "backup").exists() and not told.fault.hopeless:
            told.broken.append("a backup that was refused is there")
        self.make(home, "another")

    def judge(self, home: Path, told: Told) -> str:
        if left := [path.name for place in (home, home / "home") for path in place.glob(".precedent-unfinished-*")]:
            return f"left behind: {left}"
        made = [name for name in ("backup", "another") if (home / name).exists()]
        if len(made) < 1 + len(told.acked):
            return f"only {made} are there"
        found = [restore(home / name, home / f"of {name}").report.findings for name in made]
        return "; ".join(check.sentence for checks in found for check in checks)

    @staticmethod
    def make(home: Path, name: str) -> None:
        secret = Secret.open(home / "home" / "secret.key")
        with Catalog.open(url_of(home / "home")) as catalog:
            backup(catalog, home / "home", home / name, secret, kept_files(secret), with_key=True)


class Restores:
    """A backup put back into an empty data directory."""

    name = "restore"

    def prepare(self, home: Path) -> None:
        Backups().prepare(home)
        Backups.make(home, "backup")

    def act(self, home: Path, armed: Armed, told: Told) -> None:
        with armed():
            told.attempt("restore", lambda: restore(home / "backup", home / "restored"))
        if told.refused and (home / "restored").exists() and not told.fault.hopeless:
            told.broken.append("a restore that was refused has left something")
        restore(home / "backup", home / "again")

    def judge(self, home: Path, told: Told) -> str:
        made = [name for name in ("restored", "again") if (home / name / "secret.key").exists()]
        if len(made) < 1 + len(told.acked):
            return f"only {made} are there"
        for name in made:
            with Catalog.open(url_of(home / name)) as catalog:
                if catalog.count() != STILL + backups.BATCH:
                    return f"{catalog.count()} cases were restored"
                if found := findings(catalog, home / name):
                    return found
        return ""


def wrong_answers(live: LiveIndex, count: int) -> list[str]:
    """Searches for the first of the cases that nobody touches must go on, whatever fails."""
    try:
        snapshot = live.refresh()
        queries = np.stack([vector_of(case_id) for case_id in still_ids(min(count, 4))])
        keys, similarities, _ = snapshot.search(queries, 1)
    except (PrecedentError, OSError) as error:
        return [f"a search failed: {error}"]
    right = keys[:, 0].tolist() == list(range(1, len(queries) + 1)) and (similarities > 0.9999).all()
    return [] if right and not live.damaged else [f"a search answered {keys[:, 0].tolist()}, damaged: {live.damaged}"]


def findings(catalog: Catalog, home: Path) -> str:
    """What ``verify`` finds, in one sentence, or ""."""
    try:
        return "; ".join(check.sentence for check in verify(catalog, home).findings)
    except StoreError as error:
        return str(error)


def steps(coded_cases: int) -> list[Step]:
    return [
        Commits(),
        Publications("exact"),
        Publications("faiss:SQfp16"),
        Publications("fastscan:dims=32,wide=64", coded_cases),
        Backups(),
        Restores(),
    ]
