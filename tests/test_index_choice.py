"""``auto``: which index suits how many vectors and how much memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retrieval.errors import UsageError
from retrieval.indexes.choice import CODED_FROM, bytes_of_codes, chosen, memory_of
from retrieval.indexes.fastscan import FastScanIndex
from retrieval.manifest import MAPPED_FILE
from tests.vector_cases import unit_rows


@pytest.mark.parametrize(
    ("backend", "count", "expected"),
    [
        ("exact", 10**6, "exact"),
        ("faiss:SQ8", 10, "faiss:SQ8"),
        ("milvus://host:19530", 10**6, "milvus://host:19530"),
        ("auto", CODED_FROM - 1, "exact"),
        ("auto", CODED_FROM, "fastscan"),
        ("auto:1G", 10**6, "fastscan"),
        ("auto:200M", 10**6, "fastscan:dims=256"),
        ("auto:90M", 10**6, "fastscan:dims=64"),
    ],
)
def test_what_is_chosen(backend: str, count: int, expected: str) -> None:
    pytest.importorskip("faiss")
    assert chosen(backend, count, 1280) == expected


def test_too_little_memory_is_told_with_what_is_needed() -> None:
    pytest.importorskip("faiss")
    with pytest.raises(UsageError, match="1,000,000 vectors take at least 73 MB, more than the 20 MB allowed"):
        chosen("auto:20M", 10**6, 1280)


@pytest.mark.parametrize("size", ["", "8", "G", "-1G", "0G", "8X", "1e9"])
def test_sizes_that_are_none(size: str) -> None:
    with pytest.raises(UsageError, match="amount of memory"):
        memory_of(size)


def test_sizes() -> None:
    assert [memory_of(text) for text in ("500M", "8G", "1.5gb", "64 KiB")] == [
        500 * 2**20,
        8 * 2**30,
        3 * 2**29,
        64 * 2**10,
    ]


@pytest.mark.parametrize("options", ["dims=16,lists=8", "dims=16"])
def test_codes_take_no_more_than_is_stated(options: str, tmp_path: Path) -> None:
    count = CODED_FROM
    FastScanIndex.build(tmp_path, [(np.arange(1, count + 1), unit_rows(count))], 16, options)
    loaded = sum(path.stat().st_size for path in tmp_path.iterdir() if path.name != MAPPED_FILE)
    assert loaded / count <= bytes_of_codes(16) + 2  # and, once for all, what was learnt
