"""What the MCP front of a client needs of what stands behind it: the protocol of a session.

``server.py`` and ``opencalls.py`` call it; ``front.py`` and ``session.py`` have the sessions.
"""

from collections.abc import Iterable
from typing import Protocol

from claudemesh_mcp.answers import Raw
from claudemesh_mcp.calls import CallContext, Notify
from claudemesh_mcp.jsonrpc import Json


class Session(Protocol):
    """What stands behind the front: the mesh, as one client uses it."""

    async def start(self) -> None:
        """Connect. Called once `initialize` has been answered; may last as long as the session."""
        ...

    def extra_tools(self) -> list[Json]:
        """Give the definitions of the tools that this session has besides those of the offer.

        Whoever changes them notifies the client by ``offer.LIST_CHANGED``; a name that the offer
        has is passed over.
        """
        ...

    async def call(self, name: str, arguments: Json, context: CallContext) -> Json | Raw:
        """Run a tool; a call that the client cancels ends with ``asyncio.CancelledError``.

        Returns:
            What the tool found, or the result as the client is to get it.

        Raises:
            MeshError: it was refused.
        """
        ...

    def initialized(self, notify: Notify) -> None:
        """Learn that the client takes notifications from now on, and how it gets them; once."""
        ...

    async def footer(self, name: str) -> Json:
        """Give what the result of a tool says besides, of messages that wait; nothing if none do.

        Args:
            name: The tool.
        """
        ...

    def evidence(self, tokens: Iterable[str]) -> None:
        """Learn that the results which handed out these rows arrived; each token comes once."""
        ...

    def withdrawn(self, tokens: Iterable[str]) -> None:
        """Learn that these rows may not have been read: their call was cancelled or failed."""
        ...

    async def close(self) -> None:
        """Disconnect; called once, also when ``start`` still runs or never began."""
        ...
