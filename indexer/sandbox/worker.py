"""The parent's end of a worker: ask it, hear its answers, tell how it died."""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from indexer.limits import Limits
from indexer.sandbox.control import STATUS
from indexer.sandbox.parcels import PARCEL_BYTES, Answer, unpacked
from indexer.sandbox.template import Template
from indexer.sandbox.wire import WireError, receive, send, wait_at_most

_STATUS_SECONDS = 10.0
_REMEMBERED = 256  # requests, about as many as a reader remembers headers of


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

    def __init__(self, template: Template, limits: Limits) -> None:
        self._template = template
        self._limits = limits
        self._channel, self._status, self.pid = template.fork()
        self._left = 0.0
        self._timed_out = False
        self._lend: Callable[[], None] | None = None
        self._seen: deque[object] = deque(maxlen=_REMEMBERED)
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

    def has_seen(self, path: str) -> bool:
        """Whether it was asked about this file lately, and may remember its header."""
        return path in self._seen

    def ask(self, requests: Sequence[dict[str, Any]]) -> None:
        """Begin a bunch of requests; ``limits.seconds`` of waiting for the first of them start to count."""
        self._left = self._limits.seconds
        self._seen.extend(request["path"] for request in requests)
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
