"""All that one session needs to call what others offer: looks names up, asks the human, calls.

``sdk.py`` has one for each ``Mesh``; the tools of the model and the command line call it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, cast

from claudemesh_mcp.calling.approving import Approving, Ask
from claudemesh_mcp.calling.arguments import check_arguments
from claudemesh_mcp.calling.directory import Definition, Directory, Offered, find
from claudemesh_mcp.calling.links import Hooks, Links, Params
from claudemesh_mcp.calling.pins import Pins, Standing, Verdict
from claudemesh_mcp.calling.toolcalls import TIMEOUT_S, ToolCalls, Wanted, is_repeatable
from claudemesh_mcp.client import Client
from claudemesh_mcp.peer import Peer
from claudemesh_mcp.tunnels import Tunnels
from claudemesh_wire.errors import MeshError
from claudemesh_wire.mcp_servers import definition_digest

_CHANGED: Final = "definition_changed"


@dataclass(frozen=True)
class Going:
    """How a call goes on.

    Args:
        hooks: Hear what the server says meanwhile.
        ask: The way to the human of this session; ``None`` where there is none.
        timeout_s: How long it may take.
        hops: How many sessions it has gone through.
    """

    hooks: Hooks = field(default_factory=Hooks)
    ask: Ask | None = None
    timeout_s: float = TIMEOUT_S
    hops: int = 0


@dataclass(frozen=True)
class Look:
    """What a human sees of a tool before deciding.

    Args:
        offered: Whose it is.
        definition: Its definition as it is now.
        standing: What a call of it meets.
        diff: How the definition differs from the one that was used or decided on last.
    """

    offered: Offered
    definition: Definition
    standing: Standing
    diff: str


class Desk:
    """What one peer calls with.

    Args:
        peer: The peer.
        tunnels: Its lines.
        ready: Gives the connection to the broker.
    """

    def __init__(
        self, peer: Peer, tunnels: Tunnels, ready: Callable[[], Awaitable[Client]]
    ) -> None:
        self.pins = Pins(peer.identity)
        self._ready = ready
        self._links = Links(tunnels)
        self._calls = ToolCalls(peer, self._links)
        self._directory = Directory(peer)
        self._approving = Approving(self.pins, peer.now_ms)
        self._peer = peer

    async def run(self) -> None:
        """Take what comes back, until cancelled."""
        await self._links.run()

    async def offers(self) -> list[Offered]:
        """Give what is offered to this session now; raises ``MeshError``."""
        return await self._directory.read(await self._ready())

    async def call_tool(self, server: str, tool: str, arguments: Params, going: Going) -> Params:
        """Call a tool, and give the server's result as it came.

        Args:
            server: ``handle/name``, or the short name where that is one server.
            tool: The tool's name there.
            arguments: As the tool's schema wants them.
            going: How the call goes on.

        Raises:
            BackendError: the server answered with an error of the protocol.
            Forbidden: ``needs_approval``, ``definition_changed``, ``denied``, ``not_granted`` …
            MeshError: as ``ToolCalls.call``; ``unknown_server``, ``unknown_tool``,
                ``bad_arguments``.
        """
        providers = find(await self.offers(), server)
        definition = providers[0].tool(tool)
        try:
            await self._approving.check(providers[0], definition, going.ask)
        except MeshError as error:
            if error.code == _CHANGED:
                await self._tell_owner(providers[0], tool)
            raise
        check_arguments(definition.get("inputSchema"), arguments, tool)
        params = {"name": tool, "arguments": arguments}
        return await self._call(providers, "tools/call", params, going, definition)

    async def read_resource(self, server: str, uri: str, going: Going) -> Params:
        """Read a resource of a server; raises as ``call_tool``."""
        providers = find(await self.offers(), server, by_grant=False)
        return await self._call(providers, "resources/read", {"uri": uri}, going)

    async def get_prompt(self, server: str, name: str, arguments: Params, going: Going) -> Params:
        """Give a prompt of a server, filled in; raises as ``call_tool``."""
        providers = find(await self.offers(), server, by_grant=False)
        params = {"name": name, "arguments": arguments}
        return await self._call(providers, "prompts/get", params, going)

    async def _call(
        self,
        providers: list[Offered],
        method: str,
        params: Params,
        going: Going,
        definition: Definition | None = None,
    ) -> Params:
        wanted = Wanted(
            method,
            params,
            pin=definition_digest(definition) if definition else "",
            # What only reads may be read twice.
            is_repeatable=definition is None or is_repeatable(definition),
            hops=going.hops,
            timeout_s=going.timeout_s,
        )
        return await self._calls.call(providers, wanted, going.hooks)

    async def _tell_owner(self, offered: Offered, tool: str) -> None:
        """Let whoever offers a tool know that it is called no more until somebody looks at it."""
        try:
            link = await self._links.to(offered.peer)
        except MeshError:
            return
        await link.tell({"changed": offered.name, "tool": tool})

    async def decide(self, server: str, tool: str, verdict: Verdict) -> Offered:
        """Approve or deny a tool as it is now: what a human does, and never a model.

        Raises:
            NotFound: ``unknown_server``, ``unknown_tool``.
            MeshError: the file can't be written.
        """
        offered = find(await self.offers(), server)[0]
        self.pins.note(offered, offered.tool(tool), verdict, self._peer.now_ms())
        return offered

    async def look(self, server: str, tool: str) -> Look:
        """Look at a tool, and pin nothing; raises as ``decide``."""
        offered = find(await self.offers(), server)[0]
        definition = offered.tool(tool)
        standing = self.pins.standings(offered)[tool]
        return Look(offered, definition, standing, self.pins.diff(offered, definition))


def hooks_of(progress: Callable[[Params], None], log: Callable[[Params], None], ask: Ask) -> Hooks:
    """Give hooks that hand on to a client, whose refusals the server gets as errors."""

    async def asked(method: str, params: Params) -> Params:
        try:
            return {"result": await ask(method, params)}
        except MeshError as error:
            told: Any = error.details.get("error")
            known = cast("Params", told) if isinstance(told, dict) else None
            return {"error": known or {"code": -32603, "message": str(error)}}

    return Hooks(progress, log, asked)
