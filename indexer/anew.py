"""A gallery embedded anew, blue and green: the old encoder serves until one commit puts the new in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from indexer.reembed import Reembedding, Target, Unembedded
from indexer.sandbox import Sandbox
from retrieval.catalog import Catalog
from retrieval.catalog.types import Binding
from retrieval.encoders import open_encoder
from retrieval.encoders.bound import pooling_anew
from retrieval.errors import UsageError
from retrieval.generations import embedding_anew, generations_folder
from retrieval.privacy import Secret
from retrieval.publish import Publication, Takeover, publish_compared
from retrieval.settings import Settings
from retrieval.shadow_figures import Gates

Progress = Callable[[int, int], None]  # cases done, cases in all


@dataclass(frozen=True, slots=True)
class Terms:
    """How a gallery is rebuilt. ``drop_missing``: cases that can't be embedded anew are deleted; else it is refused."""

    backend: str
    gates: Gates
    dry_run: bool = False
    drop_missing: bool = False


@dataclass(frozen=True, slots=True)
class Anew:
    """What came of it. ``publication`` is None where cases that can't be embedded kept it from being built.

    ``embedded``: in this run. What was embedded is kept for the next one, whatever the outcome.
    """

    fingerprint: str
    embedded: int
    missing: Unembedded
    publication: Publication | None
    refusal: str = ""


class _MissingCases(UsageError):
    """Cases that can't be embedded anew, and nobody said that they may be dropped."""


def target_of(bound: Binding, settings: Settings, spec: str) -> Target:
    """The encoder of that name ("" for the gallery's own), with the pooling the settings state, else the gallery's."""
    encoder = open_encoder(spec or bound.encoder)
    return Target(encoder, pooling_anew(bound, settings, encoder.card))


def embed_anew(
    catalog: Catalog,
    settings: Settings,
    secret: Secret,
    sandbox: Sandbox,
    target: Target,
    terms: Terms,
    *,
    embedded: Progress | None = None,
    built: Callable[[int], None] | None = None,
) -> Anew:
    """Embed every case with ``target``, build its index, compare it and let it take over, while searches go on.

    Killed at any moment, it is finished by the same call. A dry run, or one that is refused, keeps what was embedded,
    for a run that follows; ``Catalog.discard_others`` drops it. Raises as ``publish_compared`` does; ConflictError
    beside another run, or where one with another encoder was begun.
    """
    with embedding_anew(generations_folder(settings.home)):
        binding = target.binding
        catalog.begin_staging(binding)
        run = Reembedding(catalog, settings, secret, sandbox, target)
        if embedded:
            whole, tell = run.left, embedded
            run.listen(lambda done: tell(done, max(whole, done)))

        def catch_up() -> None:
            run.advance()
            if run.missing.keys and not terms.drop_missing:
                raise _MissingCases(_told(run.missing))

        try:
            catch_up()
            if not len(catalog.by(binding.fingerprint).sample(1)):
                raise UsageError(f"Not one case could be embedded with {binding.encoder}: the gallery stays as it is.")
            publication = publish_compared(
                catalog,
                settings.home,
                terms.backend,
                gates=terms.gates,
                dry_run=terms.dry_run,
                progress=built,
                takeover=Takeover(binding.fingerprint, run.dropping, catch_up),
            )
        except _MissingCases as error:
            return Anew(binding.fingerprint, run.done, run.missing, None, str(error))
        return Anew(binding.fingerprint, run.done, run.missing, publication, publication.refusal)


def _told(missing: Unembedded) -> str:
    reasons = "; ".join(f"{count:,}: {reason}" for reason, count in missing.reasons.most_common(5))
    return (
        f"{len(missing.keys):,} cases can't be embedded anew ({reasons}). The gallery stays as it is, and what was "
        "embedded is kept: put their files back and run this again, or have these cases deleted with --drop-missing "
        "(drop_missing over HTTP)."
    )
