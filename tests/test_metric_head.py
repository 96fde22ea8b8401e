"""A head gives the same bits whatever the batch, the threads and the order of summation; its bytes are its identity."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load

from retrieval.adapters.head import KINDS, MetricHead, _Layer, _on_grid
from retrieval.encoders.base import unit_rows
from retrieval.errors import FingerprintMismatch, StoreError, UsageError
from retrieval.space import Space
from tests.adapter_cases import random_head

BASE = "test-000000000001-mean-256"


def head_of(kind: str, dim: int = 40, out: int = 30, seed: int = 0, scale: float = 1.0) -> MetricHead:
    rng = np.random.default_rng(seed)
    shapes = {"weight": (dim, out), "bias": (out,)}
    if kind == "mlp":
        shapes |= {"inner": (dim, 50), "offset": (50,), "outer": (50, out)}
    return MetricHead(kind, BASE, {n: (scale * rng.standard_normal(s)).astype(np.float32) for n, s in shapes.items()})


def rows_of(count: int, dim: int = 40, seed: int = 1) -> np.ndarray:
    return unit_rows(np.random.default_rng(seed).standard_normal((count, dim)))


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_row_gives_the_same_bits_in_every_batch(kind: str, data: st.DataObject) -> None:
    head, rows = head_of(kind, scale=data.draw(st.sampled_from([1e-3, 1.0, 50.0]))), rows_of(97)
    whole = head.apply(rows)
    chosen = data.draw(st.lists(st.integers(0, 96), min_size=1, max_size=97))
    assert np.array_equal(head.apply(rows[chosen]), whole[chosen])
    assert np.allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-6)


def test_across_the_border_of_a_block_too() -> None:
    head, rows = head_of("mlp"), rows_of(4100)
    whole = head.apply(rows)
    assert np.array_equal(whole[::-1], head.apply(np.ascontiguousarray(rows[::-1])))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_sums_are_exact_fractions(scale: float) -> None:
    rng = np.random.default_rng(3)
    layer = _Layer.on_grid((scale * rng.standard_normal((300, 2))).astype(np.float32), np.float32([scale, -scale]))
    rows = _on_grid(rows_of(3, 300).astype(np.float64))
    got = layer.of(rows)
    for n in range(3):
        for column in range(2):
            weights = [Fraction(w) for w in layer.weights[:, column].tolist()]
            exact = sum((Fraction(x) * w for x, w in zip(rows[n].tolist(), weights[:-1], strict=True)), weights[-1])
            assert Fraction(float(got[n, column])) == exact


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_formula_to_float32(kind: str) -> None:
    head, rows = head_of(kind), rows_of(20)
    a = {name: array.astype(np.float64) for name, array in head.arrays.items()}
    plain = rows @ a["weight"] + a["bias"]
    if kind == "mlp":
        plain = plain + np.maximum(rows @ a["inner"] + a["offset"], 0) @ a["outer"]
    assert np.allclose(head.apply(rows), plain / np.linalg.norm(plain, axis=1, keepdims=True), atol=3e-7)


SCRIPT = """
import sys, hashlib
from tests.test_metric_head import head_of, rows_of
print(hashlib.sha256(head_of("mlp", 256, 256).apply(rows_of(3000, 256)).tobytes()).hexdigest())
"""


def test_other_processes_and_numbers_of_threads_agree() -> None:
    def digest(threads: str, kernel: str) -> str:
        extra = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "OPENBLAS_CORETYPE": kernel}
        environment = {**os.environ, **{name: value for name, value in extra.items() if value}}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=environment
        )
        return done.stdout

    assert len({digest("1", ""), digest("3", ""), digest("1", "Haswell"), digest("2", "Nehalem")}) == 1


def test_its_bytes_are_safetensors_and_come_back() -> None:
    head = head_of("mlp")
    data = head.to_bytes()
    assert {name: array.tobytes() for name, array in load(data).items()} == {
        n: a.tobytes() for n, a in head.arrays.items()
    }
    again = MetricHead.parse(data, head.sha256)
    assert (again.sha256, again.fingerprint, again.kind) == (head.sha256, head.fingerprint, "mlp")
    assert np.array_equal(again.apply(rows_of(5)), head.apply(rows_of(5)))
    assert head.fingerprint.startswith(f"{BASE}-adapter-") and head.fingerprint.endswith(head.sha256[:12])


def test_every_part_of_a_head_changes_its_fingerprint() -> None:
    one = head_of("linear")
    nudged = {**one.arrays, "bias": one.arrays["bias"] + np.float32(1e-3)}
    others = [
        head_of("linear", seed=1),
        MetricHead("linear", "other-mean-256", one.arrays),
        MetricHead("linear", BASE, nudged),
    ]
    assert len({head.fingerprint for head in [one, *others]}) == 4


def test_damaged_bytes_are_refused() -> None:
    head = head_of("linear", 6, 5)
    data = head.to_bytes()
    for at in range(0, len(data), 3):
        broken = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(StoreError, match="SHA-256"):
            MetricHead.parse(broken, head.sha256)


@pytest.mark.parametrize("data", [b"", b"12345678", struct.pack("<Q", 2) + b"{}", struct.pack("<Q", 9) + b"[]"])
def test_what_is_no_head_is_refused_even_with_its_hash(data: bytes) -> None:
    import hashlib

    with pytest.raises(StoreError, match="can't be read"):
        MetricHead.parse(data, hashlib.sha256(data).hexdigest())


def test_a_later_format_is_told() -> None:
    import hashlib

    data = head_of("linear", 6, 5).to_bytes()
    size = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"]["precedent"] = header["__metadata__"]["precedent"].replace('"format": 1', '"format": 2')
    text = json.dumps(header).encode()
    later = struct.pack("<Q", len(text)) + text + data[8 + size :]
    with pytest.raises(StoreError, match="format 2, this Precedent knows 1"):
        MetricHead.parse(later, hashlib.sha256(later).hexdigest())


def test_arrays_that_do_not_fit_are_refused() -> None:
    good = head_of("linear", 6, 5).arrays
    bad = [
        {"weight": good["weight"]},
        {**good, "bias": good["bias"][:-1]},
        {**good, "bias": good["bias"].astype(np.float64)},
        {**good, "weight": good["weight"] * np.float32(np.nan)},
        {**good, "weight": good["bias"]},
    ]
    for arrays in bad:
        with pytest.raises(UsageError):
            MetricHead("linear", BASE, arrays)
    with pytest.raises(UsageError, match="Expected rows of 6 numbers"):
        head_of("linear", 6, 5).apply(rows_of(2, 7))


def test_a_head_of_other_vectors_is_refused_and_both_are_named() -> None:
    space = Space(BASE, 24)
    for head in (random_head("other-mean-256", 0), random_head(BASE, 0, dim=25)):
        with pytest.raises(FingerprintMismatch, match=BASE) as told:
            space.adapted(head)
        assert head.base in str(told.value)
    adapted = space.adapted(random_head(BASE, 0, dim_out=7))
    assert (adapted.dim, adapted.fingerprint) == (7, random_head(BASE, 0, dim_out=7).fingerprint)
    with pytest.raises(FingerprintMismatch):
        adapted.adapted(random_head(BASE, 0))
    assert space.adapted(None) is space
