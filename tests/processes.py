"""The product as its users run it: the command and the service as processes of their own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.forked_commands import FORKS, REPOSITORY

COMMAND = [sys.executable, "-c", "from indexer.cli import main; main()"]
STARTED_WITH = dict(os.environ)


def light(home: Path) -> dict[str, str]:
    """The setting under which a new gallery takes the encoder without a network: quicker where it does not matter.

    A gallery that is there already keeps what it was made with.
    """
    return {} if (home / "catalog.sqlite3").exists() else {"encoder": "classical"}


def environment(home: Path | None = None, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of the tests with one data directory (or none) and one thread of arithmetic.

    As it was at first: libraries imported here leave settings in it that a user's shell does not have.
    """
    kept = {name: value for name, value in STARTED_WITH.items() if not name.startswith("PRECEDENT_")}
    path = os.pathsep.join(filter(None, [str(REPOSITORY), kept.get("PYTHONPATH", "")]))
    place = {} if home is None else {"home": str(home), **light(home)}
    settings = {f"PRECEDENT_{name.upper()}": value for name, value in place.items()}
    return {**kept, **settings, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **(extra or {})}


def start(*arguments: object, home: Path, extra: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """A command that runs meanwhile."""
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(home, extra), start_new_session=True,
    )  # fmt: skip


def run(
    *arguments: object,
    home: Path | None = None,
    code: int | None = 0,
    extra: Mapping[str, str] | None = None,
    seconds: float = 120,
    anew: bool = False,
) -> subprocess.CompletedProcess[str]:
    """A command to its end. It never shows a traceback; ``code`` is the exit code it must have (None: any).

    A process of its own: forked from one that has the imports behind it, or with ``anew`` started from nothing.
    """
    told, words = environment(home, extra), [str(argument) for argument in arguments]
    if not anew and FORKS.can_run(told):
        done = FORKS.run(words, told, seconds)
    else:
        done = subprocess.run(
            [*COMMAND, *words], capture_output=True, text=True, env=told, timeout=seconds, check=False
        )
    assert "Traceback" not in done.stderr, done.stderr
    assert code is None or done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def answer(
    *arguments: object, home: Path, code: int | None = 0, extra: Mapping[str, str] | None = None, seconds: float = 120
) -> Any:
    """The JSON a command prints."""
    return json.loads(run(*arguments, "--json", home=home, code=code, extra=extra, seconds=seconds).stdout)


@dataclass(frozen=True)
class Served:
    """A running ``precedent serve`` and a client of it; ``log`` is its stderr."""

    process: subprocess.Popen[bytes]
    client: httpx.Client
    log: Path

    def kill(self) -> None:
        """End it and its workers without a word of warning."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def serving(
    home: Path, log: Path, extra: Mapping[str, str] | None = None, command: Sequence[str] = (*COMMAND, "serve")
) -> Iterator[Served]:
    """``precedent serve`` on a free port, stopped at the end by SIGTERM (unless it is gone already)."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            stdout=errors, stderr=errors, env=environment(home, extra), start_new_session=True,
        )  # fmt: skip
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            _wait(process, client, log)
            yield Served(process, client, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _wait(process: subprocess.Popen[bytes], client: httpx.Client, log: Path) -> None:
    """Until it answers at all; whether it is ready is the caller's question."""
    for _ in range(600):
        if process.poll() is not None:
            raise AssertionError(f"the service ended with {process.returncode}: {log.read_text()}")
        try:
            client.get("/livez")
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the service did not answer in 30 s")
