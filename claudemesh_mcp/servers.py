"""The MCP servers of a mesh, as one peer calls and offers them.

``sdk.py`` has one ``Servers`` for each ``Mesh``. What calls and what hosts is imported and begun by
the first that needs it: most sessions do neither, and it would take as long as all the rest.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread

from claudemesh_mcp.attachment import Attachment
from claudemesh_mcp.client import Client
from claudemesh_mcp.imports import Imports
from claudemesh_mcp.peer import Peer

if TYPE_CHECKING:
    from claudemesh_mcp.calling.desk import Desk
    from claudemesh_mcp.hosting.offering import Offering
    from claudemesh_mcp.hosting.restoring import Restoring
    from claudemesh_mcp.hosting.standing import Hosting, Registered
    from claudemesh_mcp.hosting.wishes import ServerWish

LOOK_S: Final = 1.0
Background = Callable[[], Coroutine[Any, Any, None]]


class Servers:
    """What one peer calls with, and what it offers.

    Args:
        peer: The peer.
        attachment: Its connection.
        ready: Gives the connection to the broker, waiting a little for one.
    """

    def __init__(
        self, peer: Peer, attachment: Attachment, ready: Callable[[], Awaitable[Client]]
    ) -> None:
        self.imports = Imports()
        """The tools of others that are this session's own by name; it outlives this connection."""
        self._peer = peer
        self._attachment = attachment
        self._ready = ready
        self._begun: list[Background] = []
        self._more = anyio.Event()

    async def run(self) -> None:
        """Run beside the connection what was begun, until cancelled."""
        async with anyio.create_task_group() as tasks:
            while True:
                while self._begun:
                    tasks.start_soon(self._begun.pop())
                self._more = anyio.Event()
                await self._more.wait()

    def _begin(self, background: Background) -> None:
        self._begun.append(background)
        self._more.set()

    @cached_property
    def desk(self) -> "Desk":
        """What calls the tools of others, reads their resources and gets their prompts."""
        from claudemesh_mcp.calling.desk import Desk

        desk = Desk(self._peer, self._attachment.tunnels, self._ready)
        self._begin(desk.run)
        return desk

    @cached_property
    def offering(self) -> "Offering":
        """What runs servers of this session, and offers them to the mesh."""
        from claudemesh_mcp.hosting.offering import Offering

        offering = Offering(self._peer, self._attachment, self._ready)
        self._begin(offering.run)
        return offering

    @cached_property
    def restoring(self) -> "Restoring":
        """What hosts the servers that come back."""
        from claudemesh_mcp.hosting.restoring import Restoring

        restoring = Restoring(self._peer, self.offering, self._attachment)
        self._begin(restoring.run)
        return restoring

    async def restore(self) -> None:
        """Host what comes back and fits this peer, from when this home keeps any such server."""
        identity = self._peer.identity
        kept = anyio.Path(identity.home.meshes / identity.mesh / "mcp-servers")
        while not await kept.is_dir():  # noqa: ASYNC110 - the system tells nobody
            await anyio.sleep(LOOK_S)
        # In a thread: what is imported would hold up the first calls of the session.
        await anyio.to_thread.run_sync(import_module, "claudemesh_mcp.hosting.restoring")
        _ = self.restoring

    async def register(self, wish: "ServerWish") -> "Registered":
        """Start a server and offer it; one that is to come back is kept as well.

        Raises:
            MeshError: as ``Offering.register`` and ``Restoring.register``; nothing stays.
        """
        # Before its first connection a peer has no handle that it could sign with.
        await self._ready()
        if wish.persistent:
            return await self.restoring.register(wish)
        return await self.offering.register(wish)

    async def unregister(self, name: str) -> None:
        """Offer a server no more, end it, and keep it no longer if it was to come back.

        Raises:
            NotFound: ``unknown_server``: this session offers none by that name.
            MeshError: the broker did not confirm it: then it is offered as before.
        """
        await self.offering.unregister(name)
        if "restoring" in self.__dict__:
            await self.restoring.forget(name)

    def hosted(self) -> "list[Hosting]":
        """Say how each server stands that this session offers."""
        return self.offering.hosted() if "offering" in self.__dict__ else []

    def renamed(self) -> None:
        """Have what this session offers known by its new handle."""
        if "offering" in self.__dict__:
            self.offering.say_again()

    @asynccontextmanager
    async def functions(
        self,
        name: str,
        *functions: Callable[..., Any],
        description: str = "",
        visible_to: Sequence[str] = ("own",),
        read_only: bool = False,
    ) -> "AsyncGenerator[Registered]":
        """Offer plain functions, async ones too, as tools of a server, as long as the block lasts.

        Annotations make the schema, the docstring is the description. A parameter named ``call``
        gets a ``FunctionCall``: who calls, and a way to tell progress. What one raises is the
        tool's error.

        Args:
            name: The server's short name.
            functions: Its tools.
            description: What it is for.
            visible_to: Whom it is for: ``own``, ``mesh``, a peer's id, ``@group``,
                ``@group:role``, ``role:admin``.
            read_only: None of them changes anything: other members need to approve none.

        Raises:
            Invalid: ``bad_function``, ``bad_server``, ``bad_viewer``.
            MeshError: as ``Offering.register``.
        """
        from claudemesh_mcp.hosting.functions import Functions

        made = Functions(
            name,
            functions,
            description=description,
            visible_to=visible_to,
            read_only=read_only,
        )
        registered = await self.offering.offer(made)
        try:
            yield registered
        finally:
            with anyio.CancelScope(shield=True):
                await self.offering.withdraw(name)

    async def call(
        self,
        server: str,
        tool: str,
        arguments: dict[str, Any] | None = None,
        *,
        progress: Callable[[dict[str, Any]], None] | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Call a tool of another session, for a program.

        Args:
            server: ``handle/name``, or the short name where that is one server.
            tool: The tool's name there.
            arguments: As the tool's schema wants them.
            progress: Takes ``{progress, total?, message?}`` whenever the server says how far it is.
            timeout_s: How long it may take; 300 if not given.

        Returns:
            The server's result: ``content``, perhaps ``structuredContent`` and ``isError``.

        Raises:
            BackendError: the server answered with an error of the protocol.
            MeshError: as ``Desk.call_tool``.
        """
        from claudemesh_mcp.calling.desk import Going
        from claudemesh_mcp.calling.links import Hooks
        from claudemesh_mcp.calling.toolcalls import TIMEOUT_S

        hooks = Hooks(progress) if progress is not None else Hooks()
        going = Going(hooks, timeout_s=TIMEOUT_S if timeout_s is None else timeout_s)
        return await self.desk.call_tool(server, tool, arguments or {}, going)
