"""``precedent rebuild --encoder`` on the command line: progress, the cases that could not be embedded, the outcome."""

from __future__ import annotations

from indexer.anew import Anew, Terms, embed_anew
from indexer.cli.console import err, print_json, progress_bar
from indexer.cli.shadow_table import as_plain, tell
from indexer.limits import Limits
from indexer.reembed import Target, Unembedded
from indexer.report import brief
from indexer.sandbox import Sandbox
from indexer.workers import worker_count
from retrieval.catalog import Catalog
from retrieval.encoders.paths.prepare import choose_while_encoding
from retrieval.errors import UsageError
from retrieval.privacy import Secret
from retrieval.settings import Settings

SHOWN = 20  # cases printed; the rest is counted


def rebuild_anew(settings: Settings, target: Target, terms: Terms, as_json: bool) -> None:
    """UsageError when the new encoder may not take over: cases are missing, or a gate was not met."""
    if settings.precision == "auto":
        choose_while_encoding(target.encoder, settings.home)
    with (
        Catalog.open(settings.url) as catalog,
        Sandbox(worker_count(settings), Limits.of(settings)) as sandbox,
        progress_bar("cases", quiet=as_json) as bar,
    ):
        embedding = bar.add_task("Embedding", total=None)
        building = bar.add_task("Building", total=None, visible=False)
        done = embed_anew(
            catalog,
            settings,
            Secret.open(settings.home / "secret.key", create=False),
            sandbox,
            target,
            terms,
            embedded=lambda cases, whole: bar.update(embedding, completed=cases, total=whole),
            built=lambda vectors: bar.update(building, completed=vectors, visible=True),
        )
    _print_missing(done.missing)
    if as_json:
        print_json(_plain(done, terms))
    elif done.publication:
        tell(done.publication, terms)
    if done.refusal and not terms.dry_run:
        raise UsageError(done.refusal)


def _plain(done: Anew, terms: Terms) -> dict[str, object]:
    nothing = {"generation": "", "live": False, "dry_run": terms.dry_run, "refused": done.refusal, "report": None}
    return {
        **(as_plain(done.publication, terms) if done.publication else nothing),
        "fingerprint": done.fingerprint,
        "embedded": done.embedded,
        "missing": len(done.missing.keys),
        "missing_cases": [
            {"case_id": case.case_id, "reason": case.reason, "path": case.path} for case in done.missing.listed
        ],
    }


def _print_missing(missing: Unembedded) -> None:
    """Each case with its file and the reason, on stderr."""
    console = err()
    for case in missing.listed[:SHOWN]:
        console.print(f"missing {case.case_id} {case.path}: {brief(case.reason)}", markup=False)
    if (hidden := len(missing.keys) - SHOWN) > 0:
        console.print(f"... and {hidden:,} more; --json lists more of them.")
