"""``precedent mcp``: the gallery as tools for a language model's program, over stdin and stdout."""

from __future__ import annotations

import asyncio

from indexer.cli.console import BoundEncoder, Home, settings_of
from retrieval.errors import MissingExtra
from retrieval.gallery import Gallery


def mcp(encoder: BoundEncoder = None, home: Home = None) -> None:
    """Serve the tools of the Model Context Protocol on stdin and stdout: search, case, evidence, compare.

    Meant to be started by a program that speaks the protocol. It reads only, as the user who starts it.
    """
    try:
        from indexer.mcp_server import server_of
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("mcp"):
            raise
        raise MissingExtra("mcp", "mcp") from error
    from indexer.limits import Limits
    from indexer.sandbox import Sandbox
    from indexer.workers import worker_count

    settings = settings_of(home, encoder=encoder)
    with Gallery.open(settings) as gallery, Sandbox(worker_count(settings), Limits.of(settings)) as sandbox:
        asyncio.run(server_of(gallery, sandbox).run_stdio_async())
