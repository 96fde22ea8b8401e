"""Connecting to a Ray cluster, or starting one of this machine alone for as long as it is needed."""

from __future__ import annotations

import io
import logging
import os
import secrets
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from typing import Any, TextIO, cast

from retrieval.errors import MissingExtra, UsageError

EXTRA = "ray"
STORE_BYTES = 512 << 20  # of a local object store: shards and answers are few at a time, see ``engine``
_KNOCK_SECONDS = 10.0
_RAY_THREADS = "ray_"  # how the names of Ray's threads in this process begin
_LIBRARIES = ("ray", "pandas", "pyarrow")  # ray.data needs all three


@contextmanager
def connected(address: str | None = None) -> Iterator[None]:
    """Be connected inside. ``address``: the head of a cluster (HOST:PORT, or "auto" for the one on this machine).

    None starts a cluster of this machine's CPUs and GPUs that nobody else joins, with a folder of its own for its logs
    and sockets, both gone at the end. A plain ``ray.init`` would join whatever cluster runs here already.
    MissingExtra without Ray; UsageError when there is no cluster at the address.
    """
    ray = _library(address)
    own = None if address else tempfile.mkdtemp(prefix="precedent-ray-")
    try:
        with redirect_stdout(cast("TextIO", _OwnWords(sys.stdout))):  # Ray tells of lost machines there
            if own:
                _start(ray, own)
            else:
                _join(ray, str(address))
            try:
                yield
            finally:
                with redirect_stdout(io.StringIO()):  # where it says what it has held back
                    ray.shutdown()
    finally:
        if own:
            shutil.rmtree(own, ignore_errors=True)


def _library(address: str | None) -> Any:
    if missing := next((name for name in _LIBRARIES if find_spec(name) is None), None):
        raise MissingExtra(missing, EXTRA)
    if address and address.startswith("ray://"):
        raise UsageError(
            f"'{address}' is an address for Ray clients, which Ray Data can't be used through: run this command on a "
            "machine of the cluster and give the address of its head, such as HOST:6379, or auto."
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray starts: nothing is sent anywhere
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # of this process: no lines in the midst of a progress bar
    if address is None and "ray" not in sys.modules:  # it reads this once, when it is imported
        # Ray listens on every interface, and whoever it lets in can run what he likes: so only who has this token.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    import ray
    import ray.data

    if ray.is_initialized():
        raise UsageError("This process is connected to a Ray cluster already: call ray.shutdown() first.")
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what matters comes as an answer or an error of ours
    return ray


def _start(ray: Any, folder: str) -> None:
    ray.init(
        address="local",
        num_cpus=len(os.sched_getaffinity(0)),
        object_store_memory=STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=folder,
    )


def _join(ray: Any, address: str) -> None:
    try:
        if address != "auto":
            _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"There is no Ray cluster at '{address}' ({type(error).__name__}): expected the address of its head, such "
            "as HOST:6379, on a machine that has joined it with 'ray start'."
        ) from error


def _knock(address: str) -> None:
    """OSError or ValueError where nothing listens, which Ray would take minutes to find out."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_SECONDS):
        pass


class _OwnWords:
    """A text file without what Ray's own threads write to it."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        return len(text) if threading.current_thread().name.startswith(_RAY_THREADS) else self._file.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
