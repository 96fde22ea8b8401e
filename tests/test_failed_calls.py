"""System calls that fail one after the other: the small version of ``benchmarks.reliability.failed_calls``.

In processes of their own: a process whose calls are filtered stays so.
"""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from benchmarks.reliability.failing_calls import Faults, Unavailable
from tests.processes import REPOSITORY


@pytest.fixture(scope="module", autouse=True)
def possible() -> None:
    try:
        Faults.make()
    except Unavailable as reason:
        pytest.skip(f"no system calls can be made to fail here: {reason}")


@pytest.mark.parametrize(
    ("step", "count"), [("commit", 3), ("rebuild exact", 8), ("backup", 3), ("restore", 3), ("HTTP upload", 3)]
)
def test_whatever_call_fails_nothing_is_acknowledged_falsely(step: str, count: int) -> None:
    command = [sys.executable, "-m", "benchmarks.reliability.failed_calls", "--only", step, "--count", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    points = re.search(r"^(\d+) points, 0 wrong$", done.stdout, re.MULTILINE)
    assert points and int(points[1]) == 4 * count
    refused = [int(line.split("|")[4]) for line in done.stdout.splitlines() if line.startswith(f"| {step}")]
    assert len(refused) == 4 and sum(refused) > 2 * count, "what failed was hardly ever noticed"
