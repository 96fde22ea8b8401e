"""The system calls of a process and of all it starts, in order, as ``strace`` (https://strace.io) writes them down."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CHANGING = (
    *("write", "pwrite64", "writev", "pwritev", "sendfile", "copy_file_range", "ftruncate", "truncate", "fallocate"),
    *("fsync", "fdatasync", "sync_file_range", "openat", "open", "creat"),
    *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat"),
    *("mkdir", "mkdirat", "unlink", "unlinkat", "rmdir"),
    *("sendto", "sendmsg"),
)
_LINE = re.compile(r"(\d+) +(.*)")
_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+|\?)(.*)")
_RESUMED = re.compile(r"<\.\.\. (\w+) resumed>(.*)")
_UNFINISHED = " <unfinished ...>"


@dataclass(frozen=True, slots=True)
class Call:
    """One call that was made. ``begun`` and ``ended``: lines of the trace. ``arguments``: as strace shows them."""

    begun: int
    ended: int
    name: str
    arguments: str
    answer: int  # negative when it failed

    def descriptor(self, nth: int = 0) -> str:
        """The path, or the kind, of the ``nth`` descriptor in the arguments; "" when there is none."""
        found = re.findall(r"(?:AT_FDCWD|\d+)<((?:[^<>]|<[^<>]*>)*)>", self.arguments)
        return found[nth] if nth < len(found) else ""

    @property
    def names(self) -> list[str]:
        """The quoted strings in the arguments."""
        return re.findall(r'"((?:[^"\\]|\\.)*)"', self.arguments)


@cache
def why_not() -> str:
    """Why calls can't be traced on this machine, or ""."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    done = subprocess.run(["strace", "-f", "-qq", "--seccomp-bpf", "true"], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"strace can't run here: {done.stderr.strip()[-200:]}"


def traced(trace: Path) -> list[str]:
    """What to put before a command so that its calls are written to ``trace``."""
    chosen = ",".join(CHANGING)
    return ["strace", "-f", "-qq", "-y", "-s", "64", "--seccomp-bpf", "-e", f"trace={chosen}", "-o", str(trace)]


def calls_of(trace: Path) -> Iterator[Call]:
    """The calls that succeeded, in the order in which they ended."""
    begun: dict[str, tuple[int, str]] = {}
    with trace.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines):
            if not (parts := _LINE.match(line.rstrip("\n"))):
                continue
            thread, text = parts.groups()
            if text.endswith(_UNFINISHED):
                begun[thread] = number, text.removesuffix(_UNFINISHED)
                continue
            start = number
            if resumed := _RESUMED.match(text):
                start, first = begun.pop(thread, (number, f"{resumed[1]}("))
                text = first + resumed[2].lstrip()
            found = _CALL.match(text)
            if found and found[3] != "?" and int(found[3]) >= 0:
                yield Call(start, number, found[1], found[2], int(found[3]))


def scratch() -> tempfile.TemporaryDirectory[str]:
    """Where what is traced works: the folder has no link in its path, since strace shows paths as they are."""
    return tempfile.TemporaryDirectory(prefix="precedent-cut-", dir=Path(tempfile.gettempdir()).resolve())
