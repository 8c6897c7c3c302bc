"""All that one session needs to call what others offer: looks names up, asks the human, calls.

``sdk.py`` has one for each ``Mesh``; the tools of the model and the command line call it.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, cast

import anyio.to_thread

from claudemesh_mcp.calling.approving import Approving, Ask
from claudemesh_mcp.calling.arguments import check_arguments
from claudemesh_mcp.calling.directory import Definition, Directory, Offered, find, names
from claudemesh_mcp.calling.links import Hooks, Links, Params
from claudemesh_mcp.calling.listing import Service, listed, services
from claudemesh_mcp.calling.pins import Pins, Standing, Verdict
from claudemesh_mcp.calling.toolcalls import TIMEOUT_S, ToolCalls, Wanted, is_repeatable
from claudemesh_mcp.client import Client
from claudemesh_mcp.imports import Imported
from claudemesh_mcp.peer import Peer
from claudemesh_mcp.toolresults import ToolsResult
from claudemesh_mcp.tunnels import Tunnels
from claudemesh_wire.errors import Forbidden, MeshError, NotFound
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
        meta: What the request says besides: its ``_meta``, without what is between two ends.
    """

    hooks: Hooks = field(default_factory=Hooks)
    ask: Ask | None = None
    timeout_s: float = TIMEOUT_S
    hops: int = 0
    meta: Params = field(default_factory=dict[str, Any])


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

    async def tools(self, query: str, server: str | None, *, schemas: bool) -> ToolsResult:
        """List what is offered, and what a call of it meets.

        Args:
            query: Words that must all be there, or begin one that is; may be empty.
            server: Only this one: ``handle/name``, or a short name.
            schemas: Say too how each tool is called.

        Raises:
            NotFound: ``unknown_server``.
            MeshError: the broker did not answer, or the pins can't be read.
        """
        every = services(await self.offers())
        if server is not None:
            meant = [one for one in every if any(server in names(each) for each in one[1])]
            # The refusal that names the nearest.
            every = meant or [(server, find([each for _, one in every for each in one], server))]
        own, firsts = self._peer.identity.member, [one[0] for _, one in every]
        standings = await anyio.to_thread.run_sync(self.pins.standings, firsts)
        rows = [
            Service(name, one, one[0].member.id == own, standing)
            for (name, one), standing in zip(every, standings, strict=True)
        ]
        return listed(rows, query, schemas=schemas)

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
        return await self.call_one(find(await self.offers(), server), tool, arguments, going)

    async def call_one(
        self, providers: list[Offered], tool: str, arguments: Params, going: Going
    ) -> Params:
        """Call a tool of a server whose providers were looked up; as ``call_tool``."""
        definition = providers[0].tool(tool)
        await self._approve(providers[0], definition, going)
        check_arguments(definition.get("inputSchema"), arguments, tool)
        params = {"name": tool, "arguments": arguments}
        return await self._call(providers, "tools/call", params, going, definition)

    async def call_imported(self, imported: Imported, arguments: Params, going: Going) -> Params:
        """Call a tool that this session has imported; as ``call_tool``.

        Raises:
            NotFound: ``unknown_server``, ``unknown_tool``: it is offered no more.
            Forbidden: ``definition_changed`` too where it is another than was imported.
        """
        offers = await self.offers()
        meant = [
            replace(one, service_of=imported.member)
            for one in offers
            if imported.member in one.owners and one.name == imported.server
        ]
        # Two sessions of a member may offer different servers by one name.
        same = [one for one in meant if imported.definition in one.tools] or meant
        if not same:
            raise NotFound(
                f"{imported.full_name} is not offered any more.",
                f"Take it out of the list: drop_tools(server={imported.full_name!r}).",
                code="unknown_server",
            )
        providers = [one for one in same if one.service == same[0].service]
        providers.sort(key=lambda one: not one.online)
        definition = providers[0].tool(imported.tool)
        if definition != imported.definition:
            await self._approve(providers[0], definition, going)
            raise Forbidden(
                f"{imported.tool} of {imported.full_name} is not what was imported.",
                "Import it again, which shows it as it is now: import_tools.",
                code=_CHANGED,
            )
        return await self.call_one(providers, imported.tool, arguments, going)

    async def import_tools(self, server: str, tools: Sequence[str] | None) -> Offered:
        """Look up the server whose tools are to be imported, and pin those that need no approval.

        Raises:
            NotFound: ``unknown_server``, ``unknown_tool``.
            MeshError: the broker did not answer, or the pins can't be kept.
        """
        offered = find(await self.offers(), server)[0]
        wanted = offered.tools if tools is None else [offered.tool(name) for name in tools]
        for one in wanted:
            pin = partial(self.pins.standing, offered, one, self._peer.now_ms())
            await anyio.to_thread.run_sync(pin)
        return offered

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
            {**params, "_meta": going.meta} if going.meta else params,
            pin=definition_digest(definition) if definition else "",
            # What only reads may be read twice.
            is_repeatable=definition is None or is_repeatable(definition),
            hops=going.hops,
            timeout_s=going.timeout_s,
        )
        return await self._calls.call(providers, wanted, going.hooks)

    async def _approve(self, offered: Offered, definition: Definition, going: Going) -> None:
        try:
            await self._approving.check(offered, definition, going.ask)
        except MeshError as error:
            if error.code == _CHANGED:
                await self._tell_owner(offered, definition["name"])
            raise

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
        [standings] = self.pins.standings([offered])
        return Look(offered, definition, standings[tool], self.pins.diff(offered, definition))


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
