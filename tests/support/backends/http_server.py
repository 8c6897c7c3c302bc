"""A server by the official SDK, over Streamable HTTP: ``python http_server.py PORT``.

``test_http.py`` hosts it by its URL. It wants a header, as servers with a key do.
"""

import os
import sys

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from starlette.types import Receive, Scope, Send

server = MCPServer("by-url", instructions="Ask by URL.")


@server.tool()
def large() -> str:
    """Give five megabytes."""
    return "0123456789" * 500_000


@server.tool()
async def steps(context: Context) -> str:
    """Report progress."""
    for done in (1, 2):
        await context.report_progress(done, 2, "on the way")
    return "done"


@server.tool()
async def changed(context: Context) -> str:
    """Say that the tools are others now."""
    await context.notify_tools_changed()
    return "changed"


@server.tool()
def failing(why: str) -> str:
    """Fail."""
    raise ValueError(why)


@server.tool()
def dying() -> str:
    """End in the middle of it."""
    os._exit(3)


app = server.streamable_http_app()


async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
    """Let in whoever brings the key."""
    if scope["type"] == "http" and (b"x-key", b"open") not in scope["headers"]:
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        return
    await app(scope, receive, send)


if __name__ == "__main__":
    uvicorn.run(guarded, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
