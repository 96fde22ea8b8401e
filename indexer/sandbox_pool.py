"""The parent side of the workers: start the template, hand out workers, tell how one died."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from indexer.limits import Limits
from indexer.sandbox_parcels import PARCEL_BYTES, Answer, unpacked
from indexer.sandbox_wire import WireError, receive, send, wait_at_most
from indexer.sandbox_worker import COMMAND, READY, REPLY, STATUS
from retrieval.errors import PrecedentError

_START_SECONDS = 120.0  # importing the readers on a busy machine
_STATUS_SECONDS = 10.0
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SYSTEMROOT", "VIRTUAL_ENV")
_SINGLE_THREADED = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)


class WorkerDiedError(Exception):
    """The worker is gone. ``reason`` is a sentence; ``limit`` when it was a limit that ended it.

    ``outside``: what ended it may have had nothing to do with what it was asked.
    """

    def __init__(self, reason: str, *, limit: bool, outside: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.limit = limit
        self.outside = outside


class Worker:
    """One decoding process, used by one thread at a time."""

    def __init__(self, template: _Template, limits: Limits) -> None:
        self._template = template
        self._limits = limits
        self._channel, self._status, self.pid = template.fork()
        self._left = 0.0
        self._timed_out = False
        self._lend: Callable[[], None] | None = None
        self.paused = False
        self.usable = True

    def serve(self, lend: Callable[[], None]) -> None:
        """Begin to serve one caller; ``lend`` is called once if that caller makes it pause."""
        self._lend, self.paused = lend, False

    def pause(self) -> None:
        """Say that the caller is not taking answers for now: another worker may run instead."""
        if self._lend is not None and not self.paused:
            self.paused = True
            self._lend()

    def ask(self, requests: Sequence[dict[str, Any]]) -> None:
        """Begin a bunch of requests; ``limits.seconds`` of waiting for the first of them start to count."""
        self._left = self._limits.seconds
        try:
            wait_at_most(self._channel, self._left)
            send(self._channel, {"asked": requests})
        except BlockingIOError as error:
            self._timed_out = True
            raise self._died() from error
        except OSError as error:
            raise self._died() from error

    def answers(self) -> list[Answer]:
        """The next answers to the requests. Only the time spent waiting here counts, not the caller's own, and it
        counts anew when a request has been answered to its end."""
        began = time.monotonic()
        try:
            most = max(self._limits.frame_pixels * 4, PARCEL_BYTES) + PARCEL_BYTES
            header, blob = receive(self._channel, most, self._left)
            answers = unpacked(header, blob)
        except TimeoutError as error:
            self._timed_out = True
            raise self._died() from error
        except (EOFError, OSError) as error:
            raise self._died() from error
        except WireError as error:
            self.discard()
            raise WorkerDiedError(
                "Decoding ended in a reply that is not valid: the file has upset its decoder.", limit=False
            ) from error
        self._left -= time.monotonic() - began
        if any(answer.last for answer in answers):
            self._left = self._limits.seconds
        if header.get("retire") is not False:
            self.discard()
        return answers

    def kill(self) -> None:
        """End it at once; safe from another thread, and when it is already dead."""
        self._template.kill(self.pid)

    def discard(self) -> None:
        """Give it up: it is killed if it still lives, and not handed out again."""
        self.usable = False
        self.kill()
        self._channel.close()
        self._status.close()

    def _died(self) -> WorkerDiedError:
        if self._timed_out:
            self.discard()
            return WorkerDiedError(
                f"Decoding took longer than {self._limits.seconds:g} s (task_seconds) and was stopped.", limit=True
            )
        code = self._exit_code()
        self.discard()
        if code is None or code >= 0:
            return WorkerDiedError("The decoding process ended without an answer.", limit=False, outside=True)
        name = signal.Signals(-code).name
        if -code == signal.SIGKILL:
            return WorkerDiedError(
                "Decoding was killed by SIGKILL: the machine ran out of memory, or someone ended it.",
                limit=True,
                outside=True,
            )
        return WorkerDiedError(f"Decoding was killed by {name}: the file crashes its decoder.", limit=False)

    def _exit_code(self) -> int | None:
        self._status.settimeout(_STATUS_SECONDS)
        try:
            told = self._status.recv(STATUS.size)
        except OSError:
            return None
        return int(STATUS.unpack(told)[0]) if len(told) == STATUS.size else None


class _Template:
    """The process that forks workers. It ends when our end of the control socket closes, even by our own death."""

    def __init__(self, limits: Limits) -> None:
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair()
        root = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        environment |= dict.fromkeys(_SINGLE_THREADED, "1") | {"PYTHONPATH": path}
        command = [sys.executable, "-P", "-m", "indexer.sandbox_worker"]
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
                "The decoding processes can't start: run 'python -m indexer.sandbox_worker' to see what is missing."
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


class Pool:
    """At most ``size`` workers, started when first needed, handed out first come first served."""

    def __init__(self, size: int, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._starting = threading.Lock()
        self._template: _Template | None = None
        self._idle: list[Worker | None] = [None] * size  # the most recently used one is at the end
        self._waiting: deque[Future[Worker | None]] = deque()
        self._closed = False

    @contextlib.contextmanager
    def worker(self) -> Iterator[Worker]:
        """An idle worker, or the next one to be given back. After an error inside, it is not handed out again."""
        slot = self._take()
        worker = None
        try:
            worker = slot if slot is not None and slot.usable else self._start()
            worker.serve(self._lend)
            yield worker
        except BaseException:
            if worker is not None:
                worker.discard()
            raise
        finally:
            slot = worker if worker is not None and worker.usable else None
            if worker is not None and worker.paused:
                self._take_back(slot)
            else:
                self._give_back(slot)

    def close(self) -> None:
        """End every worker, busy or not; whoever waits for one gets a PrecedentError."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            waiting, self._waiting = self._waiting, deque()
        for worker in idle:
            if worker is not None:
                worker.discard()
        for future in waiting:
            future.set_exception(_closed())
        with self._starting:
            if self._template is not None:
                self._template.close()

    def _take(self) -> Worker | None:
        with self._lock:
            if self._closed:
                raise _closed()
            if self._idle:
                return self._idle.pop()
            future: Future[Worker | None] = Future()
            self._waiting.append(future)
        try:
            return future.result()
        except BaseException:  # Ctrl-C while waiting: the slot that may have come meanwhile goes to the next
            with self._lock:
                came = future not in self._waiting
                if not came:
                    self._waiting.remove(future)
            if came and future.done() and future.exception() is None:
                self._give_back(future.result())
            raise

    def _lend(self) -> None:
        """A worker pauses: let another run meanwhile, or a caller that reads one thing while it scans the next would
        wait for ever for a worker that waits for that caller."""
        with self._lock:
            if self._closed:
                return
            if self._waiting:
                self._waiting.popleft().set_result(None)
            else:
                self._idle.insert(0, None)

    def _take_back(self, slot: Worker | None) -> None:
        """End the loan of a worker that paused: one slot goes, an empty one if there is one, else its own."""
        with self._lock:
            kept = None in self._idle
            if kept:
                self._idle.remove(None)
        if kept:
            self._give_back(slot)
        elif slot is not None:
            slot.discard()

    def _give_back(self, slot: Worker | None) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set_result(slot)
                return
            if not self._closed:
                self._idle.insert(0 if slot is None else len(self._idle), slot)
                return
        if slot is not None:
            slot.discard()

    def _start(self) -> Worker:
        with self._starting:
            if self._closed:
                raise _closed()
            if self._template is not None:
                try:
                    return Worker(self._template, self._limits)
                except OSError:
                    self._template.close()  # killed from outside: start over
            self._template = _Template(self._limits)
            return Worker(self._template, self._limits)


def _closed() -> PrecedentError:
    return PrecedentError("The decoding processes have been closed: open a new Sandbox.")
