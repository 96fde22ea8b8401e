"""Every error Precedent raises on purpose. Each message is a sentence: expected, got, what to do.

PrecedentError
├── UsageError              a wrong option, filter or argument (exit code 2, HTTP 400)
├── NotFoundError           no such case, job, encoder (exit code 2, HTTP 404)
├── SourceGone              a case's file has been moved, changed or removed since it was indexed (HTTP 410)
├── ConflictError           the same identity with other content (HTTP 409)
│   └── Unfinished          ... cases that an encoder has no vector of yet
├── RejectedInput           one file was refused; carries a stage and a reason (exit code 1, HTTP 422)
│   └── LimitExceeded       ... because it went past a stated limit (HTTP 413)
├── FingerprintMismatch     vectors of two encoders would have met (exit code 2, HTTP 409)
├── MissingExtra            an optional library is absent; names the extra to install (exit code 2, HTTP 501)
├── EndpointError           the endpoint that writes answers did not (exit code 2, HTTP 502)
│   ├── EndpointGarbled     ... it refused, or answered otherwise than its protocol says (HTTP 502)
│   ├── EndpointDown        ... it can't be reached, or broke off (HTTP 503)
│   └── EndpointSlow        ... it took too long (HTTP 504)
└── StoreError              the data directory or the database (exit code 2, HTTP 503)
    ├── DatabaseAway        its server can't be reached just now
    ├── EncoderChanged      the gallery was embedded anew since it was opened
    ├── CorruptIndex        an index file is not what its manifest says
    ├── OutOfMemory         there is not enough memory for this
    ├── StoreTooNew         written by a newer Precedent
    └── StorageFull         no space left (HTTP 507)

Messages never carry patient data. Paths may appear in what the command line prints, never in a log or an HTTP reply.
"""

from __future__ import annotations


class PrecedentError(Exception):
    """Base of all errors raised on purpose; ``str(error)`` is a sentence fit to show to a user."""


class UsageError(PrecedentError):
    """A wrong option, filter or argument."""


class NotFoundError(PrecedentError):
    """The named thing does not exist."""


class SourceGone(PrecedentError):
    """A case's file is no longer where, or what, it was when it was indexed."""


class ConflictError(PrecedentError):
    """The same identity arrived with different content."""


class Unfinished(ConflictError):
    """An encoder can't take over yet: cases have come that it has no vector of."""


class RejectedInput(PrecedentError):
    """One file was refused. ``stage``: sniff, open, scan, decode, assemble, embed or commit. ``reason``: a sentence."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(reason)
        self.stage = stage
        self.reason = reason

    def __reduce__(self) -> tuple[type[RejectedInput], tuple[str, str]]:
        return (type(self), (self.stage, self.reason))


class LimitExceeded(RejectedInput):
    """An input went past a stated limit (bytes, ratio, pixels, frames, nesting, memory or time)."""


class FingerprintMismatch(PrecedentError):
    """Vectors of two encoders would have met. Names both and the way out."""

    def __init__(self, stored: str, offered: str, fix: str) -> None:
        super().__init__(f"The gallery was embedded with {stored}, the encoder at hand is {offered}. {fix}")
        self.stored = stored
        self.offered = offered
        self.fix = fix

    def __reduce__(self) -> tuple[type[FingerprintMismatch], tuple[str, str, str]]:
        return (type(self), (self.stored, self.offered, self.fix))


class MissingExtra(PrecedentError):
    """An optional library is absent."""

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(f"This needs the library '{library}': install it with pip install 'precedent[{extra}]'.")
        self.library = library
        self.extra = extra

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str, str]]:
        return (type(self), (self.library, self.extra))


class EndpointError(PrecedentError):
    """The endpoint that writes answers did not write one."""


class EndpointGarbled(EndpointError):
    """It refused, or answered otherwise than its protocol says."""


class EndpointDown(EndpointError):
    """It can't be reached, or broke off."""


class EndpointSlow(EndpointError):
    """It took longer than the settings allow."""


class StoreError(PrecedentError):
    """The data directory or the database can't be used as it is."""


class DatabaseAway(StoreError):
    """The database server can't be reached just now. What was under way was not acknowledged, and may be repeated.

    A commit whose answer was lost may have been kept all the same; to commit it again is then answered "unchanged".
    """


class EncoderChanged(StoreError):
    """The gallery was embedded anew with another encoder since this process opened it: open it again."""


class CorruptIndex(StoreError):
    """An index file is not what its manifest says. The index is rebuilt from SQL; nothing is lost."""


class OutOfMemory(StoreError):
    """There is, or would be, not enough memory for this; nothing was changed."""


class StoreTooNew(StoreError):
    """The store was written by a newer Precedent."""


class StorageFull(StoreError):
    """No space left on the device; what was acknowledged before is safe."""
