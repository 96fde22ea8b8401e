"""What a power cut could take: files written but not synced, names made but whose directory was not synced.

Follows the calls of ``system_calls`` and holds them to the order that makes an acknowledgement survive:
sync the file, rename it, sync its directory, commit in SQL, and only then say so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from benchmarks.reliability.system_calls import Call

WRITING = {"write", "pwrite64", "writev", "pwritev", "sendfile", "copy_file_range", "ftruncate", "fallocate"}
SYNCING = {"fsync", "fdatasync"}
SAYING = {"write", "writev", "sendto", "sendmsg"}
# Nobody depends on them after a power cut: scratch, locks, shared memory, what is only being built.
PASSING = ("uploads", ".lock", ".embedding-lock")
UNFINISHED = (".building-", ".precedent-unfinished-", ".secret.key.")
NAMED_BY_SQL = ("generations", "kept")


@dataclass(slots=True)
class Order:
    """``top``: only files below it count. ``words``: how a line or a reply that acknowledges begins."""

    top: str
    words: tuple[str, ...]
    acked: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    renamed: int = 0  # generations and kept files that got their names
    _written: dict[str, int] = field(default_factory=dict)  # file -> when it was written last
    _named: dict[str, int] = field(default_factory=dict)  # path -> when it got its name
    _seen: set[str] = field(default_factory=set)  # paths that are there
    _empty: set[str] = field(default_factory=set)  # of them, files that were made and never written

    def __post_init__(self) -> None:
        self._seen |= {str(path) for path in Path(self.top).rglob("*")}

    def follow(self, call: Call) -> None:
        if call.name in SYNCING:
            self._synced(call)
        elif call.name in WRITING and self._counts(call.descriptor()):
            self._wrote(call)
        elif call.name in {"open", "openat", "creat"}:
            if "O_CREAT" in call.arguments or call.name == "creat":
                self._make(call, _paths(call)[0])
                self._empty |= {_paths(call)[0]} & set(self._named)
        elif call.name.startswith("mkdir"):
            self._make(call, _paths(call)[0])
        elif call.name.startswith(("rename", "link")):
            self._rename(call)
        elif call.name in {"unlink", "unlinkat", "rmdir"}:
            self._remove(call)
        if call.name in SAYING:
            self._said(call)

    # what happened

    def _wrote(self, call: Call) -> None:
        path = call.descriptor()
        if path.endswith("-wal"):
            for name in self._lost_names():
                if set(PurePosixPath(name).parts) & set(NAMED_BY_SQL):
                    self._violated(call, f"the database is written before the name of {self._short(name)} is synced")
            if call.arguments.endswith(", 0") and path.removesuffix("-wal") in self._written:
                self._violated(call, "the log begins anew before the database file is synced")
        self._written[path] = call.ended
        self._empty.discard(path)

    def _synced(self, call: Call) -> None:
        path = call.descriptor()
        if self._written.get(path, call.begun) < call.begun:
            del self._written[path]
        for name in [each for each, at in self._named.items() if at < call.begun and _folder(each) == path]:
            del self._named[name]

    def _make(self, call: Call, path: str) -> None:
        """Called for every opening that may make a file: only the first one can have made it."""
        if self._counts(path) and path not in self._seen:
            self._named[path] = call.ended
        self._seen.add(path)

    def _rename(self, call: Call) -> None:
        old, new = _paths(call)[:2]
        if not self._counts(new) and not self._counts(old):
            return
        if _is_final(new):
            lost = [path for path in (*self._written, *self._named) if path != old and _below(path, old)]
            if old in self._written or lost:
                self._violated(call, f"{self._short(new)} gets its name before what is in it is synced")
            self.renamed += bool(set(PurePosixPath(new).parts) & set(NAMED_BY_SQL))
        elif _is_generation(old) and any(path.endswith("-wal") for path in self._written):
            self._violated(call, f"{self._short(old)} goes before the database says so for good")
        for places in (self._written, self._named):
            for path in [each for each in places if _below(each, old)]:
                places[new + path[len(old) :]] = places.pop(path)
        if self._counts(new):
            self._named[new] = call.ended
        self._seen.add(new)

    def _remove(self, call: Call) -> None:
        path = _paths(call)[0]
        for places in (self._written, self._named):
            places.pop(path, None)
        self._seen.discard(path)

    def _said(self, call: Call) -> None:
        said = call.names[0] if call.names else ""
        if call.descriptor().startswith("/") or not said.startswith(self.words):
            return
        word = next(each for each in self.words if said.startswith(each))
        self.acked.append(word)
        if lost := [path for path in self._written if self._matters(path)]:
            self._violated(call, f"'{word}' is said before {', '.join(map(self._short, lost))} is synced")
        if lost := self._lost_names():
            self._violated(call, f"'{word}' is said before the name of {', '.join(map(self._short, lost))} is synced")

    # small ones

    def _lost_names(self) -> list[str]:
        return [path for path in self._named if self._matters(path) and path not in self._empty]

    def _counts(self, path: str) -> bool:
        return path.startswith(self.top) and not path.endswith("-shm")

    @staticmethod
    def _matters(path: str) -> bool:
        return _is_final(path) and not set(PurePosixPath(path).parts) & set(PASSING)

    def _violated(self, call: Call, sentence: str) -> None:
        self.violations.append(f"line {call.begun + 1}: {sentence}")

    def _short(self, path: str) -> str:
        return path.removeprefix(self.top).lstrip("/")


def _paths(call: Call) -> list[str]:
    """The paths of a call's names, in order: those of the ``at`` calls are relative to a descriptor's directory."""
    found = []
    for n, name in enumerate(call.names):
        found.append(name if name.startswith("/") else f"{call.descriptor(n)}/{name}")
    return found


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def _is_final(path: str) -> bool:
    return not any(part.startswith(UNFINISHED) for part in PurePosixPath(path).parts)


def _is_generation(path: str) -> bool:
    return PurePosixPath(path).parent.name == "generations" and PurePosixPath(path).name.startswith("g")
