"""Commands of the product, each a process of its own, forked from one that has imported what they need.

Starting Python and importing take most of a short command's time. A fork has its own settings, folder, output, signals
and exit code as any other process. What it does not do itself is import, so a command whose
environment differs from the first one's by more than settings of Precedent must start from scratch (``can_run``), and
so must a test of what starting does.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

REPOSITORY = Path(__file__).resolve().parents[1]


class Forks:
    """A handle on the process that is forked from. It is started for the first command and ends with this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._imported_with: dict[str, str] = {}
        self._asking: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None  # it ends when our end of the pair is closed

    def can_run(self, environment: Mapping[str, str]) -> bool:
        """Whether libraries, when imported, would have seen the same environment."""
        with self._lock:
            if self._asking is None:
                self._asking = self._start(environment)
        return _seen_by_imports(environment) == self._imported_with

    def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], seconds: float
    ) -> subprocess.CompletedProcess[str]:
        """As ``subprocess.run`` with captured text, in the folder that this process is in."""
        assert self._asking is not None, "ask can_run first"
        told = json.dumps({"arguments": list(arguments), "environment": dict(environment), "folder": str(Path.cwd())})
        ours, theirs = socket.socketpair()
        with ours, theirs, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            socket.send_fds(self._asking, [b"!"], [out.fileno(), err.fileno(), theirs.fileno()])
            theirs.close()
            ours.settimeout(seconds)
            with ours.makefile("rw") as stream:
                stream.write(f"{told}\n")
                stream.flush()
                process = int(stream.readline())
                try:
                    code = int(stream.readline())
                except TimeoutError:
                    os.kill(process, signal.SIGKILL)
                    raise subprocess.TimeoutExpired(list(arguments), seconds) from None
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(list(arguments), code, out.read().decode(), err.read().decode())

    def _end(self) -> None:
        assert self._asking is not None and self._process is not None
        self._asking.close()
        self._process.wait()

    def _start(self, environment: Mapping[str, str]) -> socket.socket:
        self._imported_with = _seen_by_imports(environment)
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL, env=self._imported_with, cwd=REPOSITORY, pass_fds=[theirs.fileno()],
                start_new_session=True,
            )  # fmt: skip
        atexit.register(self._end)
        return ours


def _seen_by_imports(environment: Mapping[str, str]) -> dict[str, str]:
    """Settings are read by each command, and by nothing that is imported; pytest notes there which test is running."""
    return {name: value for name, value in environment.items() if not name.startswith(("PRECEDENT_", "PYTEST_"))}


def _import() -> None:
    """What most commands need. Nothing that starts a thread, which a fork would lack."""
    from retrieval.threads import wait_briefly

    wait_briefly()
    import cv2  # noqa: F401
    import pydicom  # noqa: F401
    import scipy.special  # noqa: F401
    import timm  # noqa: F401
    import torch  # noqa: F401

    import indexer.cli.app  # noqa: F401
    import retrieval.encoders.compact_network  # noqa: F401


def _await_command(asked: socket.socket) -> None:
    """Fork for every command that is asked for; returns in the fork, with all that the command is to find in place."""
    while True:
        told, (*files,), _, _ = socket.recv_fds(asked, 1, 3)
        if not told:
            sys.exit()  # whoever asked is gone
        if os.fork() == 0:
            asked.close()
            _attend(*files)
            return
        for file in files:
            os.close(file)


def _attend(out: int, err: int, stream: int) -> None:
    """Fork once more, so that somebody waits for the command and tells how it ended; returns in the command's."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with socket.socket(fileno=stream) as connection, connection.makefile("rw") as lines:
        told = json.loads(lines.readline())
        process = os.fork()
        if process:
            lines.write(f"{process}\n")
            lines.flush()
            code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            lines.write(f"{code}\n")
            lines.flush()
            os._exit(0)
    _become(told, out, err)


def _become(told: dict[str, Any], out: int, err: int) -> None:
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)
    os.environ.clear()
    os.environ.update(told["environment"])
    os.chdir(told["folder"])
    sys.argv = ["-c", *told["arguments"]]


def _run() -> NoReturn:
    """The command, and what the interpreter does as it ends.

    But for taking apart what was imported, which takes longer than most commands.
    """
    from indexer.cli import main

    code: object = None
    try:
        main()
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 (as the interpreter does)
        traceback.print_exc()
        code = 1
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


FORKS = Forks()

if __name__ == "__main__":
    _import()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that attend
    with socket.socket(fileno=int(sys.argv[1])) as _asked:
        _await_command(_asked)
    _run()
