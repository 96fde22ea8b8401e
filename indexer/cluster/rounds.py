"""One Dataset: shards go in while it runs, answers come out as they are ready."""

from __future__ import annotations

import pickle
import queue
import threading
from types import TracebackType
from typing import Any, Self

from indexer.cluster.resources import Node, Pool
from indexer.cluster.shards import Answer, Slot, stripped
from indexer.cluster.tray import drawn, start_tray
from indexer.cluster.work import EmbedShards, Work
from indexer.embedder import Finished
from retrieval.errors import PrecedentError

CALLS_AN_ACTOR = 2  # shards an actor works on at a time: one is decoded while another is encoded
TASKS_AN_ACTOR = 4  # those, and as many sent ahead
_ENDING_SECONDS = 20.0  # for a Dataset that is given up


def living_nodes() -> tuple[Node, ...]:
    """The machines of the cluster this process is connected to."""
    import ray

    return tuple(
        Node(node["NodeID"], node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
        for node in ray.nodes()
        if node["Alive"]
    )


class Round:
    """A pool of actors from its start to its end. Leaving it gives up what is unanswered.

    ``close`` says that nothing more comes; it then ends by itself, and what was under way is still answered: an actor
    whose machine has gone is started anew once another has nothing left to do and leaves it its place.
    """

    def __init__(self, work: Work, pool: Pool) -> None:
        import ray

        self.pool = pool
        self._answers: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        self._offered: dict[int, Slot] = {}
        self._error: BaseException | None = None
        self._closed = False
        self.ended = False
        node = ray.get_runtime_context().get_node_id()
        self._tray = start_tray(node)
        self._dataset = _dataset(self._tray, node, work, pool)
        self._thread = threading.Thread(target=self._consume, name="precedent-ray", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import ray

        ray.kill(self._tray)  # whatever still draws on it fails, and with it the Dataset
        self._thread.join(_ENDING_SECONDS)

    def offer(self, slot: Slot) -> None:
        """Send out a shard, without what an actor has no use for."""
        import ray

        shard = pickle.dumps(tuple(stripped(draft) for draft in slot.drafts))
        self._offered[ray.get(self._tray.put.remote(shard))] = slot

    def close(self) -> None:
        """Offer nothing more; to be called as often as one likes."""
        import ray

        if not self._closed:
            self._closed = True
            ray.get(self._tray.close.remote())

    def answered(self, seconds: float) -> tuple[Slot, tuple[Finished, ...] | None] | None:
        """The next shard that is answered and its cases, None in their place when no actor survives it.

        None when there is no answer for so long or the Dataset has ended. Raises what keeps the actors from embedding,
        and PrecedentError when Ray has given up.
        """
        try:
            answer = self._answers.get(timeout=seconds)
        except queue.Empty:
            return None
        if answer is None:
            self._end()
            return None
        if answer.trouble is not None:
            raise answer.trouble
        slot = self._offered.pop(answer.number, None)
        if slot is None:  # answered before: Ray may do again what was lost on the way
            return None
        self._tray.done.remote(answer.number)
        return slot, answer.finished

    def _end(self) -> None:
        self.ended = True
        if self._error is not None:
            raise PrecedentError(
                f"Ray has given up embedding ({type(self._error).__name__}); what was finished is kept. See the "
                "cluster's logs, then run the same command again to go on."
            ) from self._error

    def _consume(self) -> None:
        try:
            for batch in self._dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for answer in batch["answer"]:
                    self._answers.put(pickle.loads(answer.as_py()))  # noqa: S301 - from our own actors
        except BaseException as error:  # noqa: BLE001 - raised where answers are taken
            self._error = error
        finally:
            self._answers.put(None)


def _dataset(tray: Any, node: str, work: Work, pool: Pool) -> Any:
    """The plan of a Dataset; it runs when it is iterated over."""
    import ray.data

    context = ray.data.DataContext.get_current().copy()
    context.target_max_block_size = 1  # a block a shard: none waits for others to fill a block with
    context.execution_no_progress_timeout_s = -1  # walking may find nothing new for hours
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    with ray.data.DataContext.current(context):
        numbers = ray.data.from_items([0]).map_batches(
            drawn,
            fn_kwargs={"tray": tray},
            batch_format="pyarrow",
            num_cpus=0,
            label_selector={"ray.io/node-id": node},  # a source on another machine could be lost with it
        )
        return numbers.map_batches(
            EmbedShards,
            fn_constructor_args=(work, tray),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                size=pool.actors,
                max_tasks_in_flight_per_actor=TASKS_AN_ACTOR,
                max_concurrent_calls_per_actor=CALLS_AN_ACTOR,
                enable_true_multi_threading=True,
            ),
            num_cpus=pool.cpus,
            num_gpus=pool.gpus,
        )
