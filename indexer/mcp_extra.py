"""The one door to the Model Context Protocol, whose SDK is optional and slow to import."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrieval.errors import MissingExtra

if TYPE_CHECKING:
    from mcp.server import MCPServer

    from indexer.mcp_server import Opened
    from indexer.sandbox import Sandbox


def tool_server(opened: Opened, sandbox: Sandbox | None = None) -> MCPServer:
    """``indexer.mcp_server.server_of``; MissingExtra when the SDK is not installed."""
    try:
        from indexer.mcp_server import server_of
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("mcp"):
            raise
        raise MissingExtra("mcp", "mcp") from error
    return server_of(opened, sandbox)
