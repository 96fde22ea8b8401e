"""Many at once on one store: the small version of ``benchmarks.reliability.concurrency``."""

from __future__ import annotations

from pathlib import Path

from benchmarks.reliability.concurrency import Terms, measure


def test_what_one_service_wrote_the_other_reads_while_a_command_rebuilds(tmp_path: Path) -> None:
    told, rebuilds = measure(Terms(cases=20, seconds=3, readers=3), tmp_path)
    assert told.faults == [] and rebuilds.faults == []
    assert told.done["reads"] > 10 and told.done["looks"] > 0 and rebuilds.done.total() > 0
