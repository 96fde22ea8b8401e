"""Fixtures used by more than one test module."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Tests run side by side, one a core: more threads of arithmetic than cores wait for one another, thirty times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from indexer.limits import Limits
from indexer.sandbox import Sandbox
from tests.shared_data import shared_root

# In CI the same examples every time, so that a red run can be repeated; new ones are looked for on people's machines.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Modules and tests come and none goes: looking for garbage meanwhile took a quarter of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


pytest_plugins = ["tests.databases", "tests.milvus_server"]  # database_url, catalog, milvus_server


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared real data."""
    root = shared_root()
    if root is None:
        if os.environ.get("PRECEDENT_REQUIRE_SHARED"):
            pytest.fail("the shared data is required here: set PRECEDENT_SHARED to its folder")
        pytest.skip("the shared data is not here: set PRECEDENT_SHARED to its folder")
    return root


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """Two decoding workers with the default limits."""
    with Sandbox(2, Limits()) as opened:
        yield opened
