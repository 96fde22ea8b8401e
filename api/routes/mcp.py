"""The tools of the Model Context Protocol, for programs that have a language model."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from api.access import Reader
from api.mcp import ToolTransport
from api.problems import responses

router = APIRouter(tags=["mcp"])

MESSAGE = {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}


@router.post(
    "/mcp",
    response_class=Response,
    openapi_extra={"requestBody": MESSAGE},
    responses={
        200: {"content": {"application/json": {"schema": {"type": "object"}}}},
        202: {"description": "A notification was taken"},
        **responses(400, 408, 413, 501),
    },
)
async def mcp(request: Request, caller: Reader) -> Response:
    """One message of the Model Context Protocol (streamable HTTP): search, case, evidence and comparison as tools.

    Every message stands by itself, there are no sessions and no streams. 501 where the extra ``mcp`` is not installed.
    """
    transport: ToolTransport = request.app.state.mcp
    return transport.reply()
