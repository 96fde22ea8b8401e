"""Where the catalog stands: the one small read that tells a process whether it is up to date."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Heads:
    """One consistent read of the catalog's counters.

    ``last_key`` and ``last_tombstone`` are the largest embedding key and tombstone sequence number that are visible.
    Both must become visible in ascending order: once a reader has seen n, nothing <= n may appear later. (On PostgreSQL
    a bare sequence does not give that; a counter row locked until commit does.) Without it a replaying process would
    step over a case for ever. ``generation`` is the live index directory, "" for none; ``manifest_sha256`` is the hash
    its ``manifest.json`` must have. ``adapter`` is the hash of the metric head that the live generation's vectors went
    through, "" for none: generation and head are named by one row, so no reader can meet one without the other.
    ``encoder`` is the fingerprint of the vectors that are searched now, "" where the source does not tell.
    ``last_edit`` counts changes to what is told of cases on file (labels, attributes, patients): where it, ``last_key``
    and ``last_tombstone`` are the same, a filter selects the same cases.
    """

    last_key: int = 0
    last_tombstone: int = 0
    generation: str = ""
    manifest_sha256: str = ""
    adapter: str = ""
    encoder: str = ""
    last_edit: int = 0
