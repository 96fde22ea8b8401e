"""Processes killed at random moments: the small version of ``benchmarks.reliability.kills``, on both databases."""

from __future__ import annotations

from pathlib import Path

from benchmarks.reliability.kills import Terms, fill, kill_all
from benchmarks.reliability.sessions import Place


def test_whatever_was_acknowledged_outlives_a_kill(database_url: str, tmp_path: Path) -> None:
    terms = Terms(count=8, seed=1, cases=300, dim=32, moving=200, batches=4, seconds=0.2, every=4)
    place = Place(tmp_path / "home", database_url)
    fill(place, terms)
    result = kill_all(place, terms)
    assert result.faults == []
    assert result.kills == 8 and result.verified == 3
    assert result.ledger.operations > 200, "hardly anything was done before the kills"
