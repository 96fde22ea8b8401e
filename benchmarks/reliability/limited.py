"""A command of ours in a process that may hold only so much memory of its own, and that tells how much it held.

    python -m benchmarks.reliability.limited FIGURES BYTES rebuild --index faiss ...

``BYTES`` bounds what the process can't share and can't give back (RLIMIT_DATA: heap, stacks, private writable
mappings); 0 for no bound. The files of an index are mapped for reading and don't count, as they don't press on a
machine: the kernel drops their pages when it needs them. ``FIGURES`` becomes a JSON file.
"""

from __future__ import annotations

import atexit
import json
import resource
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

_EVERY = 0.002  # seconds
_KEYS = {"VmData": "data", "VmHWM": "resident"}


@dataclass(slots=True)
class Held:
    """The most there was, in bytes. ``data``: what the limit counts. ``resident``: with the pages of mapped files."""

    data: int = 0
    resident: int = 0

    def look(self) -> None:
        for line in Path("/proc/self/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in _KEYS:
                setattr(self, _KEYS[name], max(getattr(self, _KEYS[name]), int(value.split()[0]) * 1024))


def _watch(held: Held, ended: threading.Event) -> None:
    while not ended.wait(_EVERY):
        held.look()


def main() -> None:
    figures, limit = Path(sys.argv.pop(1)), int(sys.argv.pop(1))
    held, ended = Held(), threading.Event()
    figures.write_text(json.dumps(asdict(held)))
    watch = threading.Thread(target=_watch, args=(held, ended), daemon=True)
    watch.start()

    def tell() -> None:
        ended.set()
        watch.join()
        held.look()
        figures.write_text(json.dumps(asdict(held)))

    atexit.register(tell)
    from indexer.cli import main as command

    if limit:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    command()


if __name__ == "__main__":
    main()
