"""Shards handed from the driver to a Dataset as they come: an actor that holds them, and a source that draws on it.

Ray Data has no source that is fed while it runs. Here the source yields the numbers 0, 1, 2 ... each as soon as there
is a shard of that number. Drawn again after a loss, it yields the same numbers, as Ray's recovery of lost blocks needs;
the shards themselves stay on the driver's machine until they are answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

MOST_BEGUN = 4  # times a shard is begun, the first one and those after its actor ended without an answer


class Tray:
    """Run as an asynchronous actor: calls may wait for one another."""

    def __init__(self) -> None:
        self._shards: dict[int, bytes] = {}
        self._begun: dict[int, int] = {}
        self._offered = 0
        self._closed = False
        self._changed = asyncio.Condition()

    async def put(self, shard: bytes) -> int:
        """Its number."""
        async with self._changed:
            number = self._offered
            self._shards[number] = shard
            self._offered += 1
            self._changed.notify_all()
            return number

    async def close(self) -> None:
        """No shard comes any more."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()

    async def comes(self, number: int) -> bool:
        """Wait until there is, or was, a shard of that number; False when there will be none."""
        async with self._changed:
            await self._changed.wait_for(lambda: number < self._offered or self._closed)
            return number < self._offered

    async def begin(self, number: int) -> bytes | None:
        """The shard, or None when it has been begun ``MOST_BEGUN`` times or is done."""
        self._begun[number] = self._begun.get(number, 0) + 1
        return self._shards.get(number) if self._begun[number] <= MOST_BEGUN else None

    async def done(self, number: int) -> None:
        """Let go of a shard that is answered."""
        self._shards.pop(number, None)
        self._begun.pop(number, None)


def start_tray(node: str) -> Any:
    """The handle of a tray on that node."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(num_cpus=0, max_concurrency=1000, scheduling_strategy=here)(Tray).remote()


def drawn(_: Any, tray: Any) -> Iterator[Any]:
    """Tables of one row: ``number``, int64."""
    import pyarrow
    import ray

    number = 0
    while ray.get(tray.comes.remote(number)):
        yield pyarrow.table({"number": pyarrow.array([number], pyarrow.int64())})
        number += 1
