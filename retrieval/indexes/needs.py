"""How much memory of its own the building of an index takes, at most and roughly.

The stored rows are not in it: they are written as they come and mapped afterwards. Measured with
``benchmarks.reliability.memory``.
"""

from __future__ import annotations

WORK = 112 << 20  # vectors on their way, the comparison with the live index, threads, room for matrix products
LIBRARY = 160 << 20  # FAISS itself, with room for matrix products of its own
SAMPLE = 65_536  # rows that lists and codes are learnt from
BYTES_OF = {"Flat": 4, "SQfp16": 2, "SQ8": 1}  # of a number, in the codes of the faiss backend
GROWING = 2.5  # codes are moved when they grow: the old ones and room for more lie there side by side


def build_bytes(name: str, options: str, count: int, dim: int) -> int:
    """For ``count`` vectors of ``dim`` by a backend with these options (``split_backend``)."""
    if name in {"exact", "milvus"}:  # batch after batch, to a file or a server
        return WORK
    sample = 4 * dim * min(count, SAMPLE)
    if name != "faiss":  # codes of a fraction of a byte per number
        return WORK + LIBRARY + 2 * sample + count * dim // 2
    code = next((size for code, size in BYTES_OF.items() if code in options.split(",")), BYTES_OF["SQfp16"])
    learnt = sample if "IVF" in options else 0
    return WORK + LIBRARY + learnt + int(GROWING * code * count * dim)
