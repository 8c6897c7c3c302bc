"""A session that offers a server to another member, as the host answers its callers."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import anyio

from claudemesh_mcp.calling.links import Hooks, Link, Links
from claudemesh_mcp.hosting.serving import Hosted, Serving
from claudemesh_mcp.sdk import Mesh
from tests.support.broker import LIMIT_S
from tests.support.offering import ADD, Words, register
from tests.support.twopeople import World as People

TYPED: Final = {**ADD, "inputSchema": {"type": "object", "required": ["a"]}}


@dataclass
class Backend:
    """A server that keeps what it was asked and does what the test says."""

    act: Callable[[str, Words, Hooks], Any] | None = None
    asked: list[tuple[str, Words]] = field(default_factory=list[tuple[str, Words]])
    cancelled: int = 0

    async def call(self, method: str, params: Words, hooks: Hooks) -> Words:
        """Keep what is asked, and answer it."""
        self.asked.append((method, params))
        if self.act is None:
            return {"result": {"content": [], "text": json.dumps(params.get("arguments"))}}
        try:
            return await self.act(method, params, hooks)
        except anyio.get_cancelled_exc_class():
            self.cancelled += 1
            raise


@dataclass
class World:
    """Ada, whose session offers sums, and bob, who calls it.

    Args:
        people: Them.
        backend: What runs.
        changed: What ada's session was told to have changed: server and tool.
    """

    people: People
    backend: Backend
    changed: list[tuple[str, str]]

    @property
    def ada(self) -> Mesh:
        """Whose session offers."""
        return self.people.ada

    @property
    def bob(self) -> Mesh:
        """Whose session calls."""
        return self.people.bob

    async def offer(self, tools: list[Words], *visible_to: str) -> None:
        """Have ada offer a server with these tools."""
        await self.offer_as(self.ada, tools, *visible_to)

    async def offer_as(self, mesh: Mesh, tools: Sequence[Words] = (ADD,), *visible_to: str) -> None:
        """Have a session offer a server with these tools."""
        made = await register(mesh, "sums", list(tools), visible_to or ("mesh",))
        serving = Serving(
            mesh.peer,
            {"sums": Hosted(made, self.backend)},
            mesh.ready,
            lambda server, tool, _: self.changed.append((server, tool)),
        )
        mesh.tunnels.taker = serving.take

    @asynccontextmanager
    async def link(self, caller: Mesh) -> AsyncIterator[Link]:
        """Give a line from a session to ada's."""
        links = Links(caller.tunnels)
        # Outside of the group, which would wrap a refusal in one of exceptions.
        link = await links.to(self.ada.peer.id)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(links.run)
            yield link
            tasks.cancel_scope.cancel()

    async def call(self, caller: Mesh, hooks: Hooks | None = None, **said: Any) -> Words:
        """Call by hand; gives what is said of its end."""
        call = {
            "server": "sums",
            "method": "tools/call",
            "params": {"name": "add", "arguments": {"a": 1}},
            "hops": 1,
        }
        async with self.link(caller) as link:
            return await link.call({**call, **said}, hooks or Hooks(), LIMIT_S)

    async def refused(self, caller: Mesh, **said: Any) -> str:
        """Call by hand; gives the code of the refusal."""
        return (await self.call(caller, **said))["refused"]["code"]
