"""Idle threads give their core to others, unless the user has said how they are to wait."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("onnxruntime")
SAY = "import os, retrieval.threads as t; t.wait_briefly(); print(os.environ.get('GOMP_SPINCOUNT'))"
BLAS = SAY.replace("GOMP_SPINCOUNT", "OPENBLAS_THREAD_TIMEOUT")
CLI = "import sys, indexer.cli; print(sorted({'numpy', 'torch', 'faiss'} & set(sys.modules)))"


def said(code: str, **environment: str) -> str:
    ours = ("OMP_WAIT", "GOMP_", "OPENBLAS")
    chosen = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=chosen | environment, capture_output=True, text=True, check=True).stdout.strip()


def test_a_users_choice_stays() -> None:
    assert int(said(SAY)) > 0
    assert said(SAY, GOMP_SPINCOUNT="7") == "7"
    assert said(SAY, OMP_WAIT_POLICY="active") == "None"
    assert 4 <= int(said(BLAS)) <= 30, "the range that OpenBLAS knows"
    assert said(BLAS, OPENBLAS_THREAD_TIMEOUT="26") == "26"


def test_the_command_says_so_before_the_libraries_are_loaded() -> None:
    assert said(CLI) == "[]"


def test_onnx_runtime_is_told_the_same() -> None:
    from retrieval.encoders.onnx_options import session_options

    options = session_options()
    assert 0 < int(options.get_session_config_entry("session.intra_op.spin_duration_us")) <= 100
    assert options.get_session_config_entry("session.dynamic_block_base") == "4"
