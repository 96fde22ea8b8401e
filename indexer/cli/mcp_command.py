"""``precedent mcp``: the gallery as tools for a language model's program, over stdin and stdout."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext

from indexer.cli.console import BoundEncoder, Home, settings_of
from retrieval.gallery import Gallery


def mcp(encoder: BoundEncoder = None, home: Home = None) -> None:
    """Serve the tools of the Model Context Protocol on stdin and stdout: search, case, evidence, compare.

    Meant to be started by a program that speaks the protocol. It reads only, as the user who starts it.
    """
    from indexer.limits import Limits
    from indexer.mcp_extra import tool_server
    from indexer.sandbox import Sandbox
    from indexer.workers import worker_count

    settings = settings_of(home, encoder=encoder)
    with Gallery.open(settings) as gallery, Sandbox(worker_count(settings), Limits.of(settings)) as sandbox:
        asyncio.run(tool_server(lambda: nullcontext(gallery), sandbox).run_stdio_async())
