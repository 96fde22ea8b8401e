"""The command line: the only code that prints. One module per command, registered here."""

from __future__ import annotations

from indexer.cli.app import app, main

__all__ = ["app", "main"]
