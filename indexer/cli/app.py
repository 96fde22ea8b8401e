"""The ``precedent`` command: its commands by name, and what every one of them does with an error."""

from __future__ import annotations

import signal
import sys

import typer

from indexer.cli import (
    adapt_command,
    backup_command,
    classify_command,
    demo_command,
    drift_command,
    encoders_command,
    erase_command,
    estimate_command,
    evaluate_command,
    evidence_command,
    index_command,
    keys_command,
    mcp_command,
    rebuild_command,
    search_command,
    serve_command,
    stats_command,
    vectors_command,
    verify_command,
)
from indexer.cli.console import FAILED, INTERRUPTED, REFUSED, problem
from retrieval.errors import OutOfMemory, PrecedentError, RejectedInput
from retrieval.storage import storage_error

app = typer.Typer(
    name="precedent",
    help="Similar-case retrieval for medical imaging. For research and education; not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("demo")(demo_command.demo)
app.command("index")(index_command.index)
app.command("search")(search_command.search)
app.command("classify")(classify_command.classify)
app.command("estimate")(estimate_command.estimate)
app.command("evidence")(evidence_command.evidence)
app.command("answer")(evidence_command.answer)
app.command("mcp")(mcp_command.mcp)
app.command("serve")(serve_command.serve)
app.command("rebuild")(rebuild_command.rebuild)
app.command("verify")(verify_command.verify)
app.command("stats")(stats_command.stats)
app.command("backup")(backup_command.backup)
app.command("restore")(backup_command.restore)
app.command("export")(vectors_command.export)
app.command("import")(vectors_command.import_)
app.command("erase")(erase_command.erase)
app.command("evaluate")(evaluate_command.evaluate)
app.command("drift")(drift_command.drift)
app.command("adapt")(adapt_command.adapt)
app.add_typer(encoders_command.encoders, name="encoders")
app.add_typer(keys_command.keys, name="keys")


def main() -> None:
    """Exit codes: 0 done, 1 some inputs failed, 2 wrong usage or refused, 130 interrupted."""
    try:
        app()
    except RejectedInput as error:
        problem(error)
        sys.exit(FAILED)
    except PrecedentError as error:
        problem(error)
        sys.exit(REFUSED)
    except BrokenPipeError:  # the reader of a pipe has gone (| head): not an error of ours
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:  # a disk that is full or gone, a file that may not be written: not a fault to trace
        problem(storage_error(error, f"'{error.filename}' can't be used" if error.filename else "The disk failed"))
        sys.exit(REFUSED)
    except MemoryError:
        problem(OutOfMemory("There is not enough memory for this: give this process more, then try again."))
        sys.exit(REFUSED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # everything is done and said: a late Ctrl-C has nothing to stop
