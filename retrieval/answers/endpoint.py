"""A server of a language model that speaks the chat protocol of OpenAI, asked through its own client library."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from retrieval.answers.checking import CutOff
from retrieval.answers.reply import Bounds, bounded_client
from retrieval.errors import EndpointDown, EndpointError, EndpointGarbled, EndpointSlow, MissingExtra, UsageError
from retrieval.settings import Settings

MOST_CHARACTERS = 20_000  # of one answer; what comes after is not read
_WHOLE = "stop"  # why a model ends when it has said all
_BUSY = frozenset({429, 503})
_ADVICE = {
    400: "check PRECEDENT_ANSWER_MODEL, or ask with a smaller max_tokens and max_images",
    401: "check PRECEDENT_ANSWER_KEY",
    403: "check PRECEDENT_ANSWER_KEY",
    404: "check PRECEDENT_ANSWER_URL and PRECEDENT_ANSWER_MODEL",
    413: "ask with a smaller max_tokens and max_images",
    422: "check PRECEDENT_ANSWER_MODEL, or ask with a smaller max_tokens and max_images",
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where answers are made. ``key`` is never shown. ``seconds``: for the whole of one answer."""

    url: str
    model: str
    seconds: float
    key: str = field(default="", repr=False)

    @property
    def host(self) -> str:
        """Its host and port, without any user and password."""
        return _host(urlsplit(self.url))

    def pieces(self, messages: list[dict[str, Any]]) -> Iterator[str | CutOff]:
        """The model's answer as it comes, then ``CutOff`` when that is not all it would have said.

        EndpointDown, EndpointSlow or EndpointGarbled, which never quote what the server said.
        """
        try:
            import openai
        except ImportError as error:
            raise MissingExtra("openai", "answers") from error
        try:
            yield from self._read(messages)
        except openai.APITimeoutError as error:
            raise self._slow() from error
        except openai.APIStatusError as error:
            raise self._refused(error.status_code) from error
        except openai.APIConnectionError as error:
            raise EndpointDown(
                f"The answer endpoint {self.host} can't be reached, or broke off: check that it runs and "
                "PRECEDENT_ANSWER_URL."
            ) from error
        except (openai.OpenAIError, ValueError, AttributeError, TypeError, LookupError, RecursionError) as error:
            raise self._garbled() from error

    def _read(self, messages: list[dict[str, Any]]) -> Iterator[str | CutOff]:
        import httpx2
        import openai

        bounds = Bounds(time.monotonic() + self.seconds, self._slow, self._garbled)
        parts = urlsplit(self.url)
        login = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
        address = parts._replace(netloc=_host(parts)).geturl()
        try:
            with (
                bounded_client(bounds, self.seconds, login) as http,
                openai.OpenAI(base_url=address, api_key=self.key or "none", max_retries=0, http_client=http) as client,
            ):
                yield from self._said(client, messages, bounds)
        except httpx2.TimeoutException as error:
            raise self._slow() from error
        except httpx2.HTTPError as error:
            raise EndpointDown(f"The answer endpoint {self.host} broke off: ask again.") from error

    def _said(self, client: Any, messages: list[dict[str, Any]], bounds: Bounds) -> Iterator[str | CutOff]:
        read, ended = 0, ""
        asked = {"model": self.model, "messages": messages, "stream": True, "temperature": 0}
        with client.chat.completions.create(**asked) as stream:
            for chunk in stream:
                bounds.check()
                for choice in chunk.choices[:1]:
                    ended = ended or choice.finish_reason or ""
                    if text := choice.delta.content:
                        if not isinstance(text, str):
                            raise self._garbled()
                        read += len(text)
                        yield text
                if read > MOST_CHARACTERS:
                    yield CutOff()
                    return
        if not ended:
            raise self._garbled()
        if ended != _WHOLE:
            yield CutOff()

    def _refused(self, status: int) -> EndpointError:
        refusal = f"The answer endpoint {self.host} refused with status {status}"
        if status in _BUSY:
            return EndpointDown(f"{refusal}: it has too much to do, ask again later.")
        if status in (408, 504):
            return EndpointSlow(f"{refusal}: it took too long, ask again later.")
        return EndpointGarbled(f"{refusal}: {_ADVICE.get(status, 'look into its log')}.")

    def _slow(self) -> EndpointSlow:
        return EndpointSlow(f"The answer endpoint {self.host} took longer than {self.seconds:g} s: ask again later.")

    def _garbled(self) -> EndpointGarbled:
        return EndpointGarbled(f"The answer endpoint {self.host} did not answer as the chat protocol says.")


def endpoint_of(settings: Settings) -> Endpoint:
    """The one that is configured; UsageError when there is none, which is the default."""
    if not (settings.answer_url and settings.answer_model):
        raise UsageError(
            "Answers are off: set PRECEDENT_ANSWER_URL and PRECEDENT_ANSWER_MODEL to an OpenAI-compatible endpoint. "
            "Reports and images of cases are then sent to it."
        )
    if not _is_address(settings.answer_url):
        raise UsageError("PRECEDENT_ANSWER_URL must begin with http:// or https:// and name a host.")
    key = settings.answer_key.get_secret_value()
    if not (key.isascii() and key.isprintable() and key == key.strip()):
        raise UsageError("PRECEDENT_ANSWER_KEY holds a space, a line break or another character that no key may have.")
    return Endpoint(settings.answer_url, settings.answer_model, settings.answer_seconds, key)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port  # ValueError for one that is no number
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _host(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]
