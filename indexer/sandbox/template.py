"""The parent's end of the template: a warm process that has imported the readers and forks workers."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

from indexer.limits import Limits
from indexer.sandbox.control import COMMAND, READY, REPLY
from retrieval.errors import PrecedentError

_START_SECONDS = 120.0  # importing the readers on a busy machine
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SYSTEMROOT", "VIRTUAL_ENV")
_SINGLE_THREADED = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)


class Template:
    """The process that forks workers. It ends when our end of the control socket closes, even by our own death."""

    def __init__(self, limits: Limits) -> None:
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair()
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        environment |= dict.fromkeys(_SINGLE_THREADED, "1") | {"PYTHONPATH": path}
        command = [sys.executable, "-P", "-m", "indexer.sandbox.child"]
        with theirs:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno()), json.dumps(dataclasses.asdict(limits))],
                pass_fds=[theirs.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self._control.settimeout(_START_SECONDS)
        try:
            ready = self._control.recv(len(READY))
        except OSError:
            ready = b""
        if ready != READY:
            self.close()
            raise PrecedentError(
                "The decoding processes can't start: run 'python -m indexer.sandbox.child' to see what is missing."
            )

    def fork(self) -> tuple[socket.socket, socket.socket, int]:
        """A new worker: its channel, the socket its exit code will come by, its pid; OSError without a template."""
        channel, its_channel = socket.socketpair()
        status, its_status = socket.socketpair()
        with its_channel, its_status, self._lock:
            try:
                socket.send_fds(self._control, [COMMAND.pack(b"F", 0)], [its_channel.fileno(), its_status.fileno()])
                reply = self._control.recv(REPLY.size)
                if len(reply) != REPLY.size:
                    raise ConnectionError("the template is gone")
            except OSError:
                channel.close()
                status.close()
                raise
        return channel, status, REPLY.unpack(reply)[0]

    def kill(self, pid: int) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._control.sendall(COMMAND.pack(b"K", pid))

    def close(self) -> None:
        with self._lock:
            self._control.close()
        self._process.kill()
        self._process.wait()
