"""What an actor does: open the gallery's encoder once, then decode and encode one shard after the other."""

from __future__ import annotations

import os
import pickle
import socket
import traceback
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexer.cluster.shards import Answer, Drafts
from indexer.drafts import Draft
from indexer.embedder import Finished
from indexer.limits import Limits
from indexer.sandbox import Sandbox
from indexer.sources import Rejection, Scan
from indexer.volume_embedder import embedder_of
from retrieval.encoders import open_encoder
from retrieval.encoders.base import Encoder
from retrieval.encoders.paths.prepare import choose_while_encoding, follow_choice
from retrieval.encoders.pooling import Pooling, gallery_fingerprint
from retrieval.errors import FingerprintMismatch, PrecedentError
from retrieval.gallery import Gallery


@dataclass(frozen=True, slots=True)
class Work:
    """All that an actor needs to know of the gallery: neither its key nor its database.

    ``encoder``: its spec. ``workers``: decoding processes of one actor. ``home``: the data directory, whose choices of
    a fast path are followed and kept where the actor's machine has it; None runs networks in torch as they are.
    """

    encoder: str
    pooling: Pooling
    fingerprint: str
    limits: Limits
    workers: int
    volume_bytes: int
    home: Path | None

    @classmethod
    def of(cls, gallery: Gallery, cpus: int) -> Work:
        """That of a gallery, for actors of ``cpus`` CPUs each."""
        settings = gallery.settings
        return cls(
            encoder=gallery.encoder.card.spec,
            pooling=gallery.pooling,
            fingerprint=gallery.fingerprint,
            limits=Limits.of(settings),
            workers=settings.workers or max(1, cpus),
            volume_bytes=settings.volume_memory_mb << 20,
            home=settings.home.absolute() if settings.precision == "auto" else None,
        )


class EmbedShards:
    """What Ray Data calls: tables with a ``number`` in, tables with an ``answer`` (a pickled ``Answer``) out.

    Nothing is raised here. Ray writes what an actor raises into its logs, and what a library says of a file may quote
    it; so the driver gets a PrecedentError as an answer, or the place of a failure that nobody foresaw.
    """

    def __init__(self, work: Work, tray: Any) -> None:
        self._tray = tray
        self._trouble: PrecedentError | None = None
        try:
            self._embed = ShardEmbedder(work)
        except Exception as error:  # noqa: BLE001 - told with the first shard, see above
            self._trouble = _told(error)

    def __call__(self, batch: Any) -> Any:
        import pyarrow

        answers = [pickle.dumps(self._answer(number)) for number in batch["number"].to_pylist()]
        return pyarrow.table({"answer": pyarrow.array(answers, pyarrow.large_binary())})

    def _answer(self, number: int) -> Answer:
        import ray

        if self._trouble is not None:
            return Answer(number, trouble=self._trouble)
        shard = ray.get(self._tray.begin.remote(number))
        if shard is None:
            return Answer(number)
        try:
            return Answer(number, tuple(self._embed(pickle.loads(shard))))  # noqa: S301 - from the driver
        except Exception as error:  # noqa: BLE001 - see above
            return Answer(number, trouble=_told(error))


class ShardEmbedder:
    """An encoder and a sandbox, opened once. Safe to call from several threads: one shard is decoded while another is
    encoded."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._encoder = encoder_for(work)
        self._sandbox = Sandbox(work.workers, work.limits)

    def __call__(self, drafts: Drafts) -> Iterator[Finished]:
        """The cases of a shard, one for each draft, in order."""
        unseen = {n: refused for n, draft in enumerate(drafts) if (refused := unlike(draft))}
        work = self._work
        embedder = embedder_of(self._encoder, work.pooling, self._sandbox, volume_bytes=work.volume_bytes)
        with closing(embedder.run(draft for n, draft in enumerate(drafts) if n not in unseen)) as cases:
            for n, draft in enumerate(drafts):
                yield Finished(draft, None, unseen[n]) if n in unseen else next(cases)

    def close(self) -> None:
        """End the decoding processes."""
        self._sandbox.close()


def encoder_for(work: Work) -> Encoder:
    """The encoder of the gallery as this machine has it. FingerprintMismatch when that is another one."""
    encoder = open_encoder(work.encoder)
    offered = gallery_fingerprint(encoder.card, work.pooling)
    if offered != work.fingerprint:
        fix = (
            f"That is what the Ray node {socket.gethostname()} makes of '{work.encoder}': give every node the same "
            "weights and the same version of Precedent and its libraries."
        )
        raise FingerprintMismatch(work.fingerprint, offered, fix)
    if work.home is not None and os.access(work.home, os.W_OK):
        choose_while_encoding(encoder, work.home)
    elif work.home is not None:
        follow_choice(encoder, work.home)
    return encoder


def unlike(draft: Draft) -> tuple[Rejection, ...]:
    """Why this machine does not embed a case: a file of it is not here, or not the one that the driver scanned.

    Part of a series would make another vector, so then every file of the case is refused.
    """
    reasons = {scan.source: reason for scan in draft.scans if (reason := _unlike(scan))}
    if not reasons:
        return ()
    others = f"Another file of its case can't be read on the Ray node {socket.gethostname()}."
    return tuple(Rejection(scan.source, "open", reasons.get(scan.source, others), scan.sha256) for scan in draft.scans)


def _unlike(scan: Scan) -> str:
    node = f"the Ray node {socket.gethostname()}"
    mend = "every node must have the inputs under the same path as the machine that indexes them."
    try:
        with scan.source.path.open("rb") as file:
            found = os.fstat(file.fileno()).st_size
    except OSError as error:
        return f"It can't be read on {node} ({error.strerror}): {mend}"
    if not scan.source.member and found != scan.bytes:
        return f"It has {found} bytes on {node}, expected {scan.bytes}: {mend}"
    return ""


def _told(error: Exception) -> PrecedentError:
    """The error if it is one of ours; else its kind and the line it came from, without its words."""
    if isinstance(error, PrecedentError):
        return error
    place = traceback.extract_tb(error.__traceback__)[-1]
    return PrecedentError(
        f"Embedding failed on the Ray node {socket.gethostname()}: {type(error).__name__} at "
        f"{Path(place.filename).name}, line {place.lineno}. What was finished is kept."
    )
