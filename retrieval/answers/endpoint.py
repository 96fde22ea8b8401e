"""A server of a language model that speaks the chat protocol of OpenAI, asked through its own client library."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from retrieval.errors import EndpointDown, EndpointGarbled, EndpointSlow, MissingExtra, UsageError
from retrieval.settings import Settings

MOST_CHARACTERS = 20_000  # of one answer; what comes after is not read


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
        return urlsplit(self.url).netloc.rpartition("@")[2]

    def pieces(self, messages: list[dict[str, Any]]) -> Iterator[str]:
        """The model's answer as it comes. EndpointDown, EndpointSlow or EndpointGarbled, which never quote it."""
        try:
            import openai
        except ImportError as error:
            raise MissingExtra("openai", "answers") from error
        deadline = time.monotonic() + self.seconds
        try:
            with openai.OpenAI(
                base_url=self.url, api_key=self.key or "none", timeout=self.seconds, max_retries=0
            ) as client:
                yield from self._read(client, messages, deadline)
        except openai.APITimeoutError as error:
            raise self._slow() from error
        except openai.APIStatusError as error:
            raise EndpointGarbled(
                f"The answer endpoint {self.host} refused with status {error.status_code}: check model and key."
            ) from error
        except openai.APIConnectionError as error:
            raise EndpointDown(
                f"The answer endpoint {self.host} can't be reached: check that it runs and PRECEDENT_ANSWER_URL."
            ) from error
        except (openai.OpenAIError, ValueError, AttributeError, TypeError) as error:
            raise self._garbled() from error

    def _read(self, client: Any, messages: list[dict[str, Any]], deadline: float) -> Iterator[str]:
        import httpx

        read = 0
        try:
            with client.chat.completions.create(
                model=self.model, messages=messages, stream=True, temperature=0
            ) as stream:
                finished = False
                for chunk in stream:
                    if time.monotonic() > deadline:
                        raise self._slow()
                    for choice in chunk.choices[:1]:
                        finished = finished or bool(choice.finish_reason)
                        if text := choice.delta.content:
                            if not isinstance(text, str):
                                raise self._garbled()
                            read += len(text)
                            yield text
                    if read > MOST_CHARACTERS:
                        return
                if not finished:
                    raise self._garbled()
        except httpx.TimeoutException as error:
            raise self._slow() from error
        except httpx.HTTPError as error:
            raise EndpointDown(f"The answer endpoint {self.host} broke off: ask again.") from error

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
    if urlsplit(settings.answer_url).scheme not in ("http", "https"):
        raise UsageError("PRECEDENT_ANSWER_URL must begin with http:// or https://.")
    return Endpoint(
        settings.answer_url, settings.answer_model, settings.answer_seconds, settings.answer_key.get_secret_value()
    )
