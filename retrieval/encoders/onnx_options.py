"""How ONNX Runtime's threads wait: briefly, since decoding and searches want the same cores."""

from __future__ import annotations

from typing import Any

_SPIN_MICROSECONDS = "20"  # by default a waiting thread spins for far longer, which took a tenth off bulk indexing
_BLOCKS = "4"  # work is handed out in ever smaller pieces: a thread that lost its core does not hold up the others


def session_options() -> Any:
    """``onnxruntime.SessionOptions`` for a machine that is doing other things too. What a version does not know of
    these settings it ignores. Measured in ``benchmarks.bench_indexing``; a single image takes as long as before."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_MICROSECONDS)
    options.add_session_config_entry("session.dynamic_block_base", _BLOCKS)
    return options
