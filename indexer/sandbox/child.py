"""The child side of the sandbox: a template process that has imported the readers, and the workers it forks.

Run as ``python -m indexer.sandbox.child FD LIMITS``. Forking a warm template costs a few milliseconds, so a worker
killed by a hostile file is replaced at once, and all workers share the libraries' memory. The template never opens an
input. Everything here is single-threaded, which is what makes forking safe.
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import json
import logging
import os
import resource
import selectors
import signal
import socket
import sys
import warnings
from pathlib import Path
from typing import Any

from indexer.limits import Limits
from indexer.pixels import thumbnail
from indexer.readers import open_reader, reader_named, readers
from indexer.readers.bytes import digest
from indexer.sandbox.control import COMMAND, READY, REPLY, STATUS
from indexer.sandbox.parcels import Outbox
from indexer.sandbox.wire import WireError, frame_message, pixel_digest, plain, receive
from indexer.sources import Source
from retrieval.errors import LimitExceeded, RejectedInput
from retrieval.types import Image

FILES_PER_WORKER = 2000  # then it is replaced, so that no leak of a codec adds up
RSS_GROWTH = 256 << 20  # likewise when it holds on to this much more than at its start
NICE = 5  # decoding yields to the encoder and to searches: they set the pace, and a few decoded frames are always ahead
_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT_BLOCK = 16 << 20  # bytes: a larger block goes back to the system when it is freed
_KEPT_FREE = 64 << 20  # bytes at most that are free at the top of the heap and kept


def main(arguments: list[str]) -> None:
    """Serve the control socket until the parent is gone."""
    control = socket.socket(fileno=int(arguments[0]))
    limits = Limits(**json.loads(arguments[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business; its end is ours
    _keep_freed_memory()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    readers()
    gc.collect()
    gc.freeze()  # the garbage collector would touch, and so unshare, every page of the libraries
    control.sendall(READY)
    _Template(control, limits).serve()


class _Template:
    def __init__(self, control: socket.socket, limits: Limits) -> None:
        self._control = control
        self._limits = limits
        self._status_of: dict[int, socket.socket] = {}

    def serve(self) -> None:
        wake, woken = socket.socketpair()
        for end in (wake, woken):
            end.setblocking(False)
        signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(wake, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                if wake in ready:
                    wake.recv(4096)
                    self._reap()
                if self._control in ready and not self._obey():
                    os._exit(0)  # the workers follow: they asked to die with their parent

    def _obey(self) -> bool:
        message, descriptors, _, _ = socket.recv_fds(self._control, COMMAND.size, 2)
        if len(message) != COMMAND.size:
            return False
        command, pid = COMMAND.unpack(message)
        if command == b"F":
            self._fork(*(socket.socket(fileno=descriptor) for descriptor in descriptors))
        elif pid in self._status_of:  # not reaped yet, so the pid is still that worker's
            os.kill(pid, signal.SIGKILL)
        return True

    def _fork(self, channel: socket.socket, status: socket.socket) -> None:
        template = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for inherited in (self._control, status, *self._status_of.values()):
                    inherited.close()
                _confine(self._limits, template)
                _Worker(channel, self._limits).serve()
            finally:
                os._exit(0)
        channel.close()
        self._status_of[pid] = status
        self._control.sendall(REPLY.pack(pid))

    def _reap(self) -> None:
        while self._status_of:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            with self._status_of.pop(pid) as told:
                try:
                    told.sendall(STATUS.pack(os.waitstatus_to_exitcode(status)))
                except OSError:
                    continue  # the parent has already let go of this worker


def _keep_freed_memory() -> None:
    """Tells glibc to use the memory of one frame for the next: handing it back and asking anew, page by page, costs
    more than decoding a plain frame does. What a worker may hold on to is bounded by ``RSS_GROWTH``."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BLOCK)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_FREE)


def _confine(limits: Limits, template: int) -> None:
    """Limits for the rest of this process's life.

    RLIMIT_DATA bounds what is allocated (heap and private writable mappings) without counting files mapped for reading
    or the libraries' code, so it bounds real memory more closely than RLIMIT_AS and lets a large file be mapped.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != template:  # it died before we asked
            os._exit(0)
    for kind, most in (
        (resource.RLIMIT_DATA, limits.memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        resource.setrlimit(kind, (most, most))
    os.nice(NICE)


class _Worker:
    """Answers one bunch of requests after another; every request ends with an ``end`` answer."""

    def __init__(self, channel: socket.socket, limits: Limits) -> None:
        self._channel = channel
        self._limits = limits
        self._outbox = Outbox(channel)
        self._rss = _resident_bytes()
        self._served = 0

    def serve(self) -> None:
        retire = False
        while not retire:
            try:
                bunch, _ = receive(self._channel, 0)
            except (EOFError, OSError, WireError):
                return
            for number, request in enumerate(bunch["asked"]):
                if number:
                    self._send_if_due()
                rejected = self._answer(request, Source(Path(request["path"]), request["member"]))
                self._outbox.put({"kind": "end", "rejected": rejected})
            self._served += len(bunch["asked"])
            retire = self._served >= FILES_PER_WORKER or _resident_bytes() > self._rss + RSS_GROWTH
            self._outbox.send(retire=retire)

    def _answer(self, request: dict[str, Any], source: Source) -> dict[str, Any] | None:
        """Do what is asked; None, or why the file was refused."""
        stage = "decode" if request["do"] == "read" else "scan"
        reader = "file"
        try:
            if request["do"] == "digest":
                self._outbox.put({"kind": "digest", "sha256": digest(source, self._limits)[0]})
            elif request["do"] == "scan":
                found = open_reader(source, self._limits)
                reader = found.format
                scan = found.scan(source, self._limits)
                self._outbox.put({"kind": "scan", "scan": plain(dataclasses.replace(scan, source=source))})
            else:
                reader = request["format"]
                for index, image in reader_named(reader).read(source, request["frames"], self._limits):
                    single = request["frames"] is not None and len(request["frames"]) == 1
                    self._put_frame(index, image, request["preview"], single=single)
        except (BrokenPipeError, ConnectionResetError):
            os._exit(0)
        except RejectedInput as error:
            return self._refusal(source, error)
        except MemoryError:
            most = self._limits.memory_bytes >> 20
            reason = f"Decoding needs more than the {most} MB of memory a worker may take (worker_memory_mb)."
            return self._refusal(source, LimitExceeded(stage, reason))
        except RecursionError:
            return self._refusal(source, LimitExceeded(stage, "The file nests structures too deeply."))
        except Exception as error:  # noqa: BLE001 - whatever a library raises on hostile bytes is a refusal
            # Its message may quote a header value, so only its kind is passed on.
            reason = f"The {reader} reader can't make sense of the file ({type(error).__name__}): it may be damaged."
            return self._refusal(source, RejectedInput(stage, reason))
        return None

    def _put_frame(self, index: int, image: Image, preview: int | None, *, single: bool) -> None:
        small = thumbnail(image) if index == preview else b""
        header, blob = frame_message(index, image, len(small))
        sha256 = pixel_digest(image.pixels).hex()  # here, since the parent has an encoder to feed
        self._outbox.put({"kind": "frame", "frame": header, "digest": sha256}, blob, small, lasting=single)
        self._send_if_due()

    def _send_if_due(self) -> None:
        if self._outbox.due:
            self._outbox.send()

    def _refusal(self, source: Source, error: RejectedInput) -> dict[str, Any]:
        try:
            sha256 = digest(source, self._limits)[0]
        except (RejectedInput, MemoryError, OSError):
            sha256 = ""  # what can't be read has no digest
        limit = isinstance(error, LimitExceeded)
        return {"stage": error.stage, "reason": error.reason, "sha256": sha256, "limit": limit}


def _resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * resource.getpagesize()
    except OSError:  # no procfs: the count of files alone decides
        return 0


if __name__ == "__main__":
    main(sys.argv[1:])
