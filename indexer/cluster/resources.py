"""How many actors a cluster is asked for, and what each may use. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from retrieval.errors import UsageError

CPUS_AN_ACTOR = 4  # without GPUs: an encoder gains little from more threads, and each actor holds a model


@dataclass(frozen=True, slots=True)
class Node:
    """A living machine of the cluster and what Ray says it has in all. ``id`` is Ray's."""

    id: str
    cpus: float
    gpus: float = 0.0


@dataclass(frozen=True, slots=True)
class Pool:
    """``cpus`` and ``gpus`` are of one actor; ``gpus`` below 1 is a share of one."""

    actors: int
    cpus: int
    gpus: float = 0.0


def pool_of(nodes: Sequence[Node], asked: int | None = None) -> Pool:
    """An actor per GPU where there are GPUs, else one per ``CPUS_AN_ACTOR`` CPUs of each node; or as many as asked.

    More actors than GPUs share them evenly. UsageError when there is no room for one actor, or for those asked.
    """
    gpus = sum(int(node.gpus) for node in nodes)
    if gpus:
        actors = asked or gpus
        share = 1.0 if actors <= gpus else 1.0 / -(-actors // gpus)
        room = [(int(node.cpus), int(node.gpus) * round(1 / share)) for node in nodes if int(node.gpus)]
        return Pool(actors, max(1, min(cpus // slots for cpus, slots in room)), share)
    actors = asked or sum(max(1, int(node.cpus) // CPUS_AN_ACTOR) for node in nodes if node.cpus >= 1)
    for cpus in range(CPUS_AN_ACTOR, 0, -1):
        if actors and sum(int(node.cpus) // cpus for node in nodes) >= actors:
            return Pool(actors, cpus)
    whole = sum(int(node.cpus) for node in nodes)
    raise UsageError(
        f"The Ray cluster has {whole} CPUs and no GPU: expected one CPU at least for each of {actors or 1}."
    )
