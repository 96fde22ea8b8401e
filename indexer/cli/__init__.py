"""The command line: the only code that prints. One module per command, registered in ``app``.

What is imported waits until ``wait_briefly`` was called: NumPy reads how its threads are to wait once.
"""

from __future__ import annotations

import gc

from retrieval.threads import wait_briefly

__all__ = ["main"]


def main() -> None:
    """Exit codes: 0 done, 1 some inputs failed, 2 wrong usage or refused, 130 interrupted."""
    wait_briefly()
    gc.disable()  # what is imported stays: nothing to collect, and looking for it is a fifth of the time
    from indexer.cli.app import main as run

    gc.enable()
    run()
