"""How many decoding processes there are when nobody says."""

from __future__ import annotations

import os

from retrieval.settings import Settings


def worker_count(settings: Settings) -> int:
    """``settings.workers``, else one per core this process may run on."""
    return settings.workers or len(os.sched_getaffinity(0))
