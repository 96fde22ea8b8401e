"""Too little memory, told in a sentence before it is too late: small version of ``benchmarks.reliability.memory``."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.reliability.memory import REFUSED, measure
from retrieval.errors import OutOfMemory
from retrieval.indexes.needs import build_bytes
from retrieval.memory import available_bytes, check_memory, telling_of_memory
from tests.processes import REPOSITORY

LIMITED = """
import resource
from retrieval.errors import OutOfMemory
from retrieval.memory import available_bytes, check_memory
before = available_bytes()
resource.setrlimit(resource.RLIMIT_DATA, (400 << 20, 400 << 20))
left = available_bytes()
held = bytearray(100 << 20)
print(before > left > available_bytes() + (90 << 20), left < 400 << 20)
check_memory(left // 2, "A small index")
try:
    check_memory(left, "An index of 5 vectors")
except OutOfMemory as error:
    print(error)
"""


def test_what_a_limit_leaves_is_known() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED], capture_output=True, text=True, cwd=REPOSITORY, check=True
    ).stdout.splitlines()  # fmt: skip
    assert done[0] == "True True"
    assert done[1].startswith("An index of 5 vectors needs about") and "MB are left to this process" in done[1]


def test_without_a_limit_the_machine_says_what_is_left() -> None:
    check_memory(1 << 20, "A small index")
    with pytest.raises(OutOfMemory, match="choose an index that takes less"):
        check_memory(available_bytes() + (64 << 30), "A huge index")


def test_an_allocation_that_fails_is_told() -> None:
    refused = pytest.raises(OutOfMemory, match=r"^The index can't be built: there is not enough memory\.")
    with refused, telling_of_memory("The index can't be built"):
        bytearray(1 << 60)


@pytest.mark.parametrize("options", ["", "SQ8", "IVF256,Flat,nprobe=8"])
def test_codes_take_memory_and_stored_rows_do_not(options: str) -> None:
    for few, many in ((10**5, 10**6), (10**6, 10**7)):
        assert build_bytes("exact", "", few, 512) == build_bytes("exact", "", many, 512)
        more = build_bytes("faiss", options, many, 512) - build_bytes("faiss", options, few, 512)
        assert more >= (many - few) * 512 * (1 if options == "SQ8" else 2)


def test_a_rebuild_with_too_little_memory_fails_clean_and_can_be_repeated() -> None:
    free, short, again = measure(2000, ["faiss"], shares=(0.5,))
    assert [run.wrong for run in (free, short, again)] == ["", "", ""]
    assert (free.code, short.code, again.code) == (0, REFUSED, 0)
    assert short.told.startswith("precedent: ") and "memory" in short.told
