"""What was deleted is in no answer of any process, and compacted away in no file: a small part of
``benchmarks.reliability.deletions``."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.reliability.deletions import QUERIES, measure
from tests.databases import postgres_database

DELETIONS = 14


def check(folder: Path, url: str) -> None:
    outcome = measure(folder, url, DELETIONS, 0)
    assert outcome.returned == []
    assert len(outcome.deleted) == DELETIONS and outcome.unseen == 0
    assert sum(outcome.queries.values()) == DELETIONS * QUERIES
    assert outcome.unfound == 0 and outcome.traces == []


def test_deleted_means_gone(tmp_path: Path) -> None:
    check(tmp_path, "")


@pytest.mark.slow
def test_deleted_means_gone_on_a_server(tmp_path: Path, postgres_url: str) -> None:
    with postgres_database(postgres_url) as url:
        check(tmp_path, url)
