"""Requests and replies: forms with files, waiting for a busy service, and what went wrong as typed errors."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlencode

import httpx

from api.client.events import events
from api.client.problems import BUSY, Unreachable, not_understood, problem_of
from retrieval.errors import UsageError
from retrieval.reading import read

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
LONGEST_WAIT = 60.0  # seconds before one more try, whatever the service asks for

T = TypeVar("T")
Fields = Mapping[str, object]
Files = str | Path | Sequence[str | Path]


class Transport:
    """One service. Safe to use from several threads; ``tries`` counts the first one."""

    def __init__(self, address: str, *, key: str, timeout: float, tries: int) -> None:
        if tries < 1:
            raise ValueError(f"tries must be at least 1, got {tries}.")
        key = key.strip()  # as from a file that ends with a newline
        if not (key.isascii() and key.isprintable()):
            raise ValueError("The key holds characters that no key has: copy it anew.")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=address, headers=headers, timeout=timeout)
        self._tries = tries

    def close(self) -> None:
        self._http.close()

    def get(self, noun: type[T], path: str, parameters: Fields | None = None) -> T:
        """What is at a path, as the noun."""
        with self._reply("GET", f"{path}?{urlencode(stated(parameters))}" if parameters else path) as reply:
            return _read(noun, reply.status_code, reply.read())

    def delete(self, path: str) -> None:
        with self._reply("DELETE", path):
            return

    def ask(self, noun: type[T], path: str, fields: Fields, files: Files = ()) -> T:
        """The answer to a form, as the noun; fields that are None or "" are left to the service."""
        with self._reply("POST", path, stated(fields), files) as reply:
            return _read(noun, reply.status_code, reply.read())

    def stream(self, nouns: Mapping[str, type[T]], path: str, fields: Fields, files: Files = ()) -> Iterator[T]:
        """The events of an answer as they come, each as the noun of its name, until the one named ``done``.

        ``problem`` is raised, and so is an end without any of the two; an event that has no noun is passed over.
        """
        with self._reply("POST", path, stated(fields), files) as reply:
            for name, data in events(reply.iter_bytes()):
                if name == "problem":
                    raise problem_of(reply.status_code, data)
                if name in nouns:
                    yield _read(nouns[name], reply.status_code, data)
                if name == "done":
                    return
        raise Unreachable(0, "", "The answer broke off before its end: ask again.")

    @contextmanager
    def _reply(
        self, method: str, path: str, form: Mapping[str, str] | None = None, files: Files = ()
    ) -> Iterator[httpx.Response]:
        """A success, its body not read yet. The files are read anew at each try."""
        for left in range(self._tries - 1, -1, -1):
            with ExitStack() as stack, self._told():
                parts = [("files", (path.name, stack.enter_context(path.open("rb")))) for path in paths(files)]
                headers = FORM if form == {} and not parts else None  # an empty form is one as well
                reply = stack.enter_context(
                    self._http.stream(method, path, data=form, files=parts or None, headers=headers)
                )
                if reply.is_success:
                    yield reply
                    return
                body = reply.read()
            if reply.status_code not in BUSY or not left:
                raise problem_of(reply.status_code, body)
            time.sleep(wait(reply.headers.get("Retry-After", "")))

    @contextmanager
    def _told(self) -> Iterator[None]:
        address = self._http.base_url
        try:
            yield
        except httpx.TimeoutException as error:
            raise Unreachable(0, "", f"The service at {address} took too long: raise the timeout.") from error
        except (httpx.ConnectError, httpx.UnsupportedProtocol) as error:
            raise Unreachable(
                0, "", f"The service at {address} can't be reached: check its address, as http://127.0.0.1:8000."
            ) from error
        except httpx.TransportError as error:
            raise Unreachable(0, "", f"The connection to the service at {address} broke off: ask again.") from error


def stated(fields: Fields) -> dict[str, str]:
    """Fields as a form has them, without those that are None or ""."""
    return {
        name: json.dumps(value) if isinstance(value, Mapping | bool) else str(value)
        for name, value in fields.items()
        if value is not None and value != ""
    }


def paths(files: Files) -> list[Path]:
    return [Path(file) for file in ([files] if isinstance(files, str | Path) else files)]


def wait(told: str) -> float:
    """Seconds to wait by a Retry-After header (RFC 9110 10.2.3: seconds or a date); 1 where it says nothing."""
    try:
        seconds = float(told) if told.isdigit() else parsedate_to_datetime(told).timestamp() - time.time()
    except ValueError:
        seconds = 1.0
    return min(max(seconds, 0.0), LONGEST_WAIT)


def _read(noun: type[T], status: int, body: str | bytes) -> T:
    try:
        return read(noun, json.loads(body))
    except (ValueError, RecursionError) as error:
        raise not_understood(status, "it is no JSON.") from error
    except UsageError as error:
        raise not_understood(status, str(error)) from error
