"""The encoder as the service uses it for callers: in batches across requests, with the prompts of labels remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from starlette.requests import Request

from api.batching import Batcher, Bounds, Weight
from api.cache import ByteCache
from api.problems import client_gone
from retrieval.encoders.pooling import pool
from retrieval.encoders.text import text_encoder
from retrieval.errors import UsageError
from retrieval.gallery import Gallery
from retrieval.types import Image, UnitRows

Vector = npt.NDArray[np.float32]  # [dim], of length 1
Frames = tuple[Image, ...]  # of one image, volume or loop
R = TypeVar("R")

PROMPT_CACHE_BYTES = 16 << 20


class Encoding:
    """Answers to come, from one thread for images and one for texts. Safe to use from several threads."""

    def __init__(self, gallery: Gallery, bounds: Bounds) -> None:
        self._gallery = gallery
        self._images: Batcher[Frames, Vector] = Batcher(self._encode_images, _weigh_frames, bounds, "encode-images")
        self._texts: Batcher[str, Vector] = Batcher(self._encode_texts, _weigh_text, bounds, "encode-texts")
        self._prompts: ByteCache[str, Vector] = ByteCache(PROMPT_CACHE_BYTES)

    def images(self, cases: Sequence[Frames]) -> list[Future[Vector]]:
        """The pooled vector of each case's frames, as the gallery would store it."""
        return self._images.submit(cases)

    def check_room(self, cases: Sequence[Frames]) -> None:
        """A 413 problem when these are more than ``images`` ever takes at a time."""
        self._images.check(cases)

    def texts(self, texts: Sequence[str]) -> list[Future[Vector]]:
        """The vector of each text."""
        return self._texts.submit(texts)

    def prompts(self, prompts: Sequence[str]) -> list[Future[Vector]]:
        """As ``texts``, remembered: the same labels are asked of image after image."""
        known = {prompt: self._prompts.get(prompt) for prompt in prompts}
        new = [prompt for prompt, vector in known.items() if vector is None]
        coming = dict(zip(new, self._texts.submit(new), strict=True))
        for prompt, answer in coming.items():
            answer.add_done_callback(lambda done, prompt=prompt: self._remember(prompt, done))  # type: ignore[misc]
        return [coming[prompt] if vector is None else _at_hand(vector) for prompt, vector in known.items()]

    def close(self) -> None:
        """End both threads; who waits is told."""
        self._images.close()
        self._texts.close()

    def _remember(self, prompt: str, done: Future[Vector]) -> None:
        if not done.cancelled() and done.exception() is None:
            vector = done.result()
            self._prompts.put(prompt, vector, vector.nbytes + 4 * len(prompt))

    def _encode_images(self, cases: Sequence[Frames]) -> list[Vector]:
        rows = self._gallery.encoder.encode([image for frames in cases for image in frames])
        ends = np.cumsum([len(frames) for frames in cases])[:-1]
        return [pool(part, self._gallery.pooling) for part in np.split(rows, ends)]

    def _encode_texts(self, texts: Sequence[str]) -> list[Vector]:
        return list(text_encoder(self._gallery.encoder).encode_text(texts))


def check_images(gallery: Gallery) -> None:
    """UsageError when the gallery's encoder takes volumes only."""
    card = gallery.encoder.card
    if card.volume is not None:
        raise UsageError(f"The encoder '{card.name}' takes whole volumes, not images: search with POST /v1/search.")


async def answered(request: Request, futures: Sequence[Future[R]]) -> list[R]:
    """The answers, in order. When the client goes away meanwhile, what has not begun is not encoded any more."""
    all_of = asyncio.create_task(_all(futures))
    gone = asyncio.create_task(_disconnected(request))
    either: set[asyncio.Future[Any]] = {all_of, gone}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not all_of.done():
            raise client_gone()
        return all_of.result()
    finally:
        gone.cancel()
        all_of.cancel()
        for future in futures:  # after the first that failed the others would still be encoded
            future.cancel()


async def _all(futures: Sequence[Future[R]]) -> list[R]:
    return await asyncio.gather(*(asyncio.wrap_future(future) for future in futures))


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue


def _at_hand(vector: Vector) -> Future[Vector]:
    answer: Future[Vector] = Future()
    answer.set_result(vector)
    return answer


def _weigh_frames(frames: Frames) -> Weight:
    return Weight(len(frames), sum(image.pixels.nbytes for image in frames))


def _weigh_text(text: str) -> Weight:
    return Weight(1, 4 * len(text))


def stacked(vectors: Sequence[Vector], dim: int) -> UnitRows:
    """Rows [n, dim], also of none."""
    return np.stack(vectors) if vectors else np.empty((0, dim), np.float32)
