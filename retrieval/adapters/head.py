"""A metric head: a small map from an encoder's unit vectors to unit vectors in which like cases lie closer.

The same row gives the same bits, whatever else is in its batch, however many threads multiply and whatever the
processor. An index is compared with SQL bit by bit, so "nearly the same" would not do, and matrix libraries promise no
order of summation. Here no order matters: inputs and weights lie on grids so coarse that every product and every
partial sum is an exact float64.

Why that holds: a row in the unit ball is rounded to multiples of 2^-26, a column of weights of norm below 2^r to
multiples of 2^(r-26). By Cauchy and Schwarz a partial sum stays below the product of both norms, so it is an integer
below 2^53 times 2^(r-52), and those are exact.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from retrieval.encoders.base import unit_rows
from retrieval.errors import StoreError, UsageError
from retrieval.types import UnitRows

HeadKind = Literal["linear", "mlp"]
KINDS: tuple[HeadKind, ...] = ("linear", "mlp")
FORMAT = 1
_GRID = 26  # bits after the point of a row in the unit ball
_BLOCK = 2048  # rows mapped at a time
_SHAPES: dict[HeadKind, tuple[str, ...]] = {
    "linear": ("weight", "bias"),
    "mlp": ("weight", "bias", "inner", "offset", "outer"),
}

_Exact = npt.NDArray[np.float64]
Arrays = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class MetricHead:
    """``x -> unit(x W + b)``, and for "mlp" ``x -> unit(x W + b + relu(x U + c) V)``.

    ``base``: fingerprint of the vectors it was learned on. ``arrays``, all float32: ``weight`` W [dim_in, dim_out],
    ``bias`` b [dim_out], and for "mlp" ``inner`` U [dim_in, hidden], ``offset`` c [hidden], ``outer`` V [hidden,
    dim_out]. UsageError for arrays that do not fit together or are not finite.
    """

    kind: HeadKind
    base: str
    arrays: Arrays

    def __post_init__(self) -> None:
        if self.kind not in KINDS or set(self.arrays) != set(_SHAPES[self.kind]):
            raise UsageError(
                f"A metric head of kind '{self.kind}' can't have the arrays {', '.join(sorted(self.arrays))}."
            )
        shapes = {name: array.shape for name, array in self.arrays.items()}
        (dim_in, dim_out), hidden = _pair(shapes["weight"]), shapes.get("offset", (0,))[0]
        expected: dict[str, tuple[int, ...]] = {
            "weight": (dim_in, dim_out), "bias": (dim_out,), "inner": (dim_in, hidden), "offset": (hidden,),
            "outer": (hidden, dim_out),
        }  # fmt: skip
        for name, array in self.arrays.items():
            if array.shape != expected[name] or array.dtype != np.float32 or not np.isfinite(array).all():
                raise UsageError(
                    f"Expected '{name}' of a metric head as finite float32 {list(expected[name])}, got {array.dtype} "
                    f"{list(array.shape)}."
                )

    @property
    def dim_in(self) -> int:
        return int(self.arrays["weight"].shape[0])

    @property
    def dim_out(self) -> int:
        return int(self.arrays["weight"].shape[1])

    @property
    def hidden(self) -> int:
        """Width of the hidden layer, 0 for a linear head."""
        return len(self.arrays["offset"]) if self.kind == "mlp" else 0

    @cached_property
    def sha256(self) -> str:
        """Of ``to_bytes``: its identity."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @property
    def fingerprint(self) -> str:
        """That of the vectors it gives: the base's and 12 digits of its hash."""
        return f"{self.base}-adapter-{self.sha256[:12]}"

    def apply(self, rows: UnitRows) -> UnitRows:
        """Unit rows [n, dim_out] of unit rows [n, dim_in]; a row gives the same bits in every batch and process."""
        if rows.ndim != 2 or rows.shape[1] != self.dim_in:
            raise UsageError(
                f"Expected rows of {self.dim_in} numbers for this metric head, got shape {list(rows.shape)}."
            )
        out = np.empty((len(rows), self.dim_out), dtype=np.float32)
        for start in range(0, len(rows), _BLOCK):
            out[start : start + _BLOCK] = unit_rows(self._mapped(rows[start : start + _BLOCK]))
        return out

    def _mapped(self, rows: UnitRows) -> _Exact:
        outer, inner, last = self._layers
        onto = outer.of(_on_grid(rows.astype(np.float64)))
        if inner is None or last is None:
            return onto
        hidden = np.maximum(inner.of(_on_grid(rows.astype(np.float64))), 0.0)
        small = _on_grid(
            hidden / inner.reach
        )  # back into the unit ball; a power of two, so nothing is lost by dividing
        return onto + inner.reach * last.of(small)

    @cached_property
    def _layers(self) -> tuple[_Layer, _Layer | None, _Layer | None]:
        arrays = self.arrays
        straight = _Layer.on_grid(arrays["weight"], arrays["bias"])
        if self.kind == "linear":
            return straight, None, None
        nothing = np.zeros(self.dim_out, np.float32)
        return straight, _Layer.on_grid(arrays["inner"], arrays["offset"]), _Layer.on_grid(arrays["outer"], nothing)

    def to_bytes(self) -> bytes:
        """The safetensors form. Written out here because its identity is a hash: the same head, the same bytes."""
        facts = {"precedent": json.dumps({"format": FORMAT, "kind": self.kind, "base": self.base}, sort_keys=True)}
        header: dict[str, Any] = {"__metadata__": facts}
        blobs, at = [], 0
        for name in _SHAPES[self.kind]:
            blob = np.ascontiguousarray(self.arrays[name], dtype="<f4").tobytes()
            header[name] = {
                "dtype": "F32",
                "shape": list(self.arrays[name].shape),
                "data_offsets": [at, at + len(blob)],
            }
            blobs.append(blob)
            at += len(blob)
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return b"".join((struct.pack("<Q", len(text)), text, *blobs))

    @classmethod
    def parse(cls, data: bytes, sha256: str) -> MetricHead:
        """The head stored as ``data``; StoreError unless it has that hash and is one."""
        if hashlib.sha256(data).hexdigest() != sha256:
            raise StoreError("An adapter in the database does not have the SHA-256 it was stored with.")
        try:
            size = struct.unpack_from("<Q", data)[0]
            header = json.loads(data[8 : 8 + size])
            facts = json.loads(header.pop("__metadata__")["precedent"])
            if facts["format"] != FORMAT:
                raise StoreError(f"An adapter has format {facts['format']}, this Precedent knows {FORMAT}: upgrade it.")
            arrays = {name: _array(data, 8 + size, fact) for name, fact in header.items()}
            return cls(facts["kind"], facts["base"], arrays)
        except (ValueError, KeyError, TypeError, struct.error, UsageError) as error:
            raise StoreError("An adapter in the database can't be read as a metric head.") from error


@dataclass(frozen=True, slots=True)
class _Layer:
    """Weights and bias on a grid, [dim_in + 1, dim_out] as float64; ``reach``: a power of two that no output's norm
    exceeds."""

    weights: _Exact
    reach: float

    @classmethod
    def on_grid(cls, weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]) -> _Layer:
        stacked = np.vstack([weight, bias[None, :]]).astype(np.float64)
        step = 2.0 ** (_power_above(np.linalg.norm(stacked, axis=0).max(initial=0.0)) - _GRID)
        # the input with its 1 for the bias has a norm of at most 1.42: 2 leaves room for the rounding as well
        return cls(np.rint(stacked / step) * step, 2.0 ** (_power_above(float(np.linalg.norm(stacked))) + 1))

    def of(self, rows: _Exact) -> _Exact:
        """Exact [n, dim_out] of rows on the grid."""
        return np.asarray(rows @ self.weights[:-1] + self.weights[-1], dtype=np.float64)


def _power_above(value: float) -> int:
    """The least r with 2^r above 1.001 times the value (rounding to the grid may lengthen a column a little)."""
    return int(np.frexp(value * 1.001)[1]) if value > 0 else 0


def _on_grid(rows: _Exact) -> _Exact:
    return np.asarray(np.rint(rows * 2.0**_GRID) * 2.0**-_GRID, dtype=np.float64)


def _pair(shape: tuple[int, ...]) -> tuple[int, int]:
    if len(shape) != 2:
        raise UsageError(f"Expected the weight of a metric head as [dim in, dim out], got shape {list(shape)}.")
    return shape[0], shape[1]


def _array(data: bytes, start: int, fact: dict[str, Any]) -> npt.NDArray[np.float32]:
    first, last = fact["data_offsets"]
    if fact["dtype"] != "F32" or not 0 <= first <= last <= len(data) - start:
        raise ValueError("array")
    return np.frombuffer(data[start + first : start + last], dtype="<f4").reshape(fact["shape"]).astype(np.float32)
