"""A server of MCP's stateless era, by its SDK, that asks who calls before it goes on.

``python -m tests.support.backends.asks``; ``test_rounds.py`` calls it through the mesh.
"""

from typing import Annotated

from mcp.server.mcpserver import Context, Elicit, MCPServer, Resolve
from mcp_types import (
    CreateMessageRequest,
    CreateMessageRequestParams,
    InputRequiredResult,
    SamplingMessage,
    TextContent,
)
from pydantic import BaseModel

server = MCPServer("asks")


class City(BaseModel):
    """Where to."""

    city: str


class Days(BaseModel):
    """For how long."""

    days: int


async def where() -> Elicit[City]:
    """Ask for the city."""
    return Elicit("Where to?", City)


async def how_long(to: Annotated[City, Resolve(where)]) -> Elicit[Days]:
    """Ask for the days, once the city is known."""
    return Elicit(f"How many days in {to.city}?", Days)


@server.tool()
async def travel(
    name: str, to: Annotated[City, Resolve(where)], stay: Annotated[Days, Resolve(how_long)]
) -> str:
    """Plan a journey."""
    return f"{name} goes to {to.city} for {stay.days} days"


@server.tool()
async def endless(context: Context) -> str | InputRequiredResult:
    """Want to be asked again, whatever the answer."""
    return InputRequiredResult(request_state=f"{context.request_state or ''}x")


@server.tool()
async def model(text: str) -> str | InputRequiredResult:
    """Want a model of the caller's."""
    content = TextContent(type="text", text=text)
    params = CreateMessageRequestParams(
        messages=[SamplingMessage(role="user", content=content)], max_tokens=5
    )
    return InputRequiredResult(input_requests={"a": CreateMessageRequest(params=params)})


if __name__ == "__main__":
    server.run("stdio")
