"""How FAISS keeps 4-bit codes: of 32 rows side by side, so that one instruction reads a number of each of them. Here
the codes of some rows are taken together as they are, which is many times sooner than to code the rows anew.

Byte j < 16 of a pair of numbers holds the first number's codes of rows ``_ROWS[j]`` (lower half) and ``_ROWS[j] + 16``,
byte 16 + j the second number's (André et al., "Quicker ADC", 2019; faiss/impl/pq4_fast_scan.cpp).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BLOCK = 32  # rows
_HALF = BLOCK // 2
_ROWS = np.array([0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15])
_AT = np.argsort(_ROWS)
_LOWER = np.uint8(15)
_UPPER = np.uint8(4)

Blocks = npt.NDArray[np.uint8]  # [blocks, pairs of numbers, 32]


def taken(blocks: Blocks, positions: npt.NDArray[np.intp]) -> Blocks:
    """The codes of the rows at these positions, in this order; the last block is filled up with zeros."""
    return _side_by_side(_apart(blocks, positions))


def _apart(blocks: Blocks, positions: npt.NDArray[np.intp]) -> npt.NDArray[np.uint8]:
    """[rows, pairs of numbers]: the first of a pair in the lower half of a byte."""
    block, row = np.divmod(positions, BLOCK)
    half, at = np.divmod(row, _HALF)
    shift = (4 * half).astype(np.uint8)[:, None]
    first = blocks[block, :, _AT[at]] >> shift & _LOWER
    second = blocks[block, :, _HALF + _AT[at]] >> shift & _LOWER
    codes: npt.NDArray[np.uint8] = first | second << _UPPER
    return codes


def _side_by_side(codes: npt.NDArray[np.uint8]) -> Blocks:
    count, pairs = codes.shape
    filled = np.zeros((-(-count // BLOCK) * BLOCK, pairs), np.uint8)
    filled[:count] = codes
    rows = filled.reshape(-1, 2, _HALF, pairs)[:, :, _ROWS]
    one, other = np.ascontiguousarray(rows.transpose(1, 0, 3, 2))  # [blocks, pairs, 16] twice
    first = one & _LOWER | other << _UPPER
    second = one >> _UPPER | other & ~_LOWER
    return np.concatenate([first, second], axis=2)
