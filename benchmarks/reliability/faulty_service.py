"""``precedent serve`` whose system calls can be made to fail from outside.

    python -m benchmarks.reliability.faulty_service ORDERS serve ...

``ORDERS`` is a file that ``Faults.make`` wrote. The calls are filtered from the moment a file of the same name with
``.go`` is there, and ``.obeyed`` says so: after the decoding processes have been started, because a program started
later would not know what to do with the filter that it inherits.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from benchmarks.reliability.failing_calls import Faults
from indexer.cli import main


def go(orders: Path) -> Path:
    return orders.with_suffix(".go")


def obeyed(orders: Path) -> Path:
    return orders.with_suffix(".obeyed")


def _obey(orders: Path) -> None:
    faults = Faults.at(orders)
    while not go(orders).exists():
        time.sleep(0.02)
    faults.obey()
    obeyed(orders).touch()


if __name__ == "__main__":
    threading.Thread(target=_obey, args=(Path(sys.argv.pop(1)),), daemon=True).start()
    main()
