"""Every case on file embedded anew with another encoder, beside the vectors that are searched.

Nothing about progress is stored but the vectors themselves: what is still to do is the cases that have none by the new
encoder, in the order of their keys. So a run that was killed at any moment is finished by the same command, and no case
is embedded twice. Cases that come meanwhile have greater keys and are met in the same order.

A case must still be what it was: its frames have the digests they had, or else its files the hashes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np

from indexer.embedder import Finished
from indexer.on_file import Original, draft_on_file, scanned, still_the_same
from indexer.originals import unseal
from indexer.sandbox import Sandbox
from indexer.volume_embedder import embedder_of
from retrieval.catalog import Catalog
from retrieval.catalog.types import Binding
from retrieval.encoders.base import Encoder
from retrieval.encoders.bound import binding_of
from retrieval.encoders.pooling import Pooling, choose_slices, most_frames
from retrieval.errors import SourceGone
from retrieval.privacy import Secret
from retrieval.settings import Settings
from retrieval.types import Case, Embedding, Keys

PAGE = 256  # cases drafted together
STORED = 32  # cases committed together: what a killed run may have embedded in vain
LISTED = 1000  # cases that can't be embedded that are told one by one; all are counted

Embedded = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Target:
    """What the gallery is embedded with anew."""

    encoder: Encoder
    pooling: Pooling

    @property
    def binding(self) -> Binding:
        return binding_of(self.encoder.card, self.pooling)


@dataclass(frozen=True, slots=True)
class Missing:
    """A case that can't be embedded anew. ``path``: of its first file, for the command line only; "" when unknown."""

    case_id: str
    reason: str
    path: str = ""


@dataclass(slots=True)
class Unembedded:
    """The cases that can't be embedded anew: all keys, how many for each reason, and the first of them in full."""

    keys: list[int] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    listed: list[Missing] = field(default_factory=list)

    def note(self, key: int, missing: Missing) -> None:
        self.keys.append(key)
        self.reasons[missing.reason] += 1
        if len(self.listed) < LISTED:
            self.listed.append(missing)


def _silent(done: int) -> None:
    pass


class Reembedding:
    """One run. ``advance`` may be called again and again: it goes on where it was.

    ``left``: cases without a vector when it began; ``done``: those embedded since. Memory: the frames and rows of the
    cases in work, and one number for each case that can't be embedded.
    """

    def __init__(
        self,
        catalog: Catalog,
        settings: Settings,
        secret: Secret,
        sandbox: Sandbox,
        target: Target,
    ) -> None:
        self._settings = settings
        self._secret = secret
        self._sandbox = sandbox
        self._target = target
        self._told: Embedded = _silent
        self._fingerprint = target.binding.fingerprint
        self._catalog = catalog
        self._view = catalog.by(self._fingerprint)
        self._before = catalog.embedded_with()
        self._engine = embedder_of(
            target.encoder, target.pooling, sandbox, volume_bytes=settings.volume_memory_mb << 20
        )
        self._after = 0
        self._waiting: list[tuple[int, Embedding]] = []
        self.left = self._view.count_lacking()
        self.done = 0
        self.missing = Unembedded()

    def listen(self, told: Embedded) -> None:
        """Tell how many cases are done, those that can't be embedded among them."""
        self._told = told

    def advance(self) -> None:
        """Embed every case that has no vector by the new encoder yet; on return those that could be are durable."""
        while len(keys := self._view.lacking(self._after, PAGE)):
            self._page(keys)
            self._after = int(keys[-1])

    def dropping(self) -> Keys:
        """Keys of the cases that could not be embedded."""
        return np.array(self.missing.keys, np.int64)

    def _page(self, keys: Keys) -> None:
        originals = list(self._originals(keys))
        doubtful: list[tuple[Original, Embedding]] = []
        with closing(self._engine.run(original.draft for original in originals)) as cases:
            for original, finished in zip(originals, cases, strict=True):
                embedding = self._embedding(original, finished)
                if embedding is None:
                    continue
                if self._has_its_pixels(original.case, finished):
                    self._take(original.case, embedding)
                else:
                    doubtful.append((original, embedding))
        for original, embedding in doubtful:
            if still_the_same(self._sandbox, original):
                self._take(original.case, embedding)
            else:
                self._miss(original.case, "A file of it has changed since it was indexed.", original.path)
        self._store()

    def _originals(self, keys: Keys) -> Iterator[Original]:
        """What the cases were made of, where that is still there; volumes with the geometry of their headers."""
        card = self._target.encoder.card
        frames = most_frames(card, self._target.pooling)
        for case in self._catalog.cases(keys).values():
            files = self._catalog.files(case.case_id)
            try:
                original = draft_on_file(case, files, frames, self._secret, self._settings.home)
                yield original if card.volume is None else scanned(self._sandbox, original)
            except SourceGone as error:
                self._miss(case, str(error), str(unseal(files[0].sealed_path, self._secret)[0]) if files else "")

    def _embedding(self, original: Original, finished: Finished) -> Embedding | None:
        if finished.embedded is not None and not finished.failed:
            return finished.embedded.embedding
        reason = finished.failed[0].reason if finished.failed else "No frame of it could be decoded."
        self._miss(original.case, reason, original.path)
        return None

    def _has_its_pixels(self, case: Case, finished: Finished) -> bool:
        """Whether its frames have the digests they had; only told where the same frames were chosen before."""
        old = Pooling.parse(self._before.pooling)
        if finished.embedded is None or finished.draft.chosen != choose_slices(len(case.frames), old.max_slices):
            return False
        return finished.embedded.case.pixel_sha256 == case.pixel_sha256

    def _take(self, case: Case, embedding: Embedding) -> None:
        self._waiting.append((case.key, embedding))
        if len(self._waiting) >= STORED:
            self._store()

    def _store(self) -> None:
        if self._waiting:
            self._catalog.stage(self._waiting, self._fingerprint)
            self.done += len(self._waiting)
            self._waiting = []
        self._told(self.done + len(self.missing.keys))

    def _miss(self, case: Case, reason: str, path: str = "") -> None:
        self.missing.note(case.key, Missing(case.case_id, reason, path))
