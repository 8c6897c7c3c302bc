"""A session that calls what others offer, for tests of how a call goes.

Who is called is a ``Host`` of ``offering.py``.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from claudemesh_mcp.calling.directory import Directory, Offered, find
from claudemesh_mcp.calling.links import Hooks, Links
from claudemesh_mcp.calling.toolcalls import ToolCalls, Wanted
from claudemesh_mcp.line import Line
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.errors import MeshError
from tests.support.broker import LIMIT_S
from tests.support.offering import ADD, Host, Words, register
from tests.support.twin import Twin


@dataclass
class Caller:
    """A session that calls, and what it uses for that."""

    mesh: Mesh
    directory: Directory
    calls: ToolCalls

    async def offered(self, name: str = "sums") -> list[Offered]:
        return find(await self.directory.read(await self.mesh.ready()), name)

    async def call(self, hooks: Hooks | None = None, **wanted: Any) -> Words:
        asked = Wanted(**{"method": "tools/call", "params": {"name": "add"}, **wanted})
        with anyio.fail_after(LIMIT_S):
            return await self.calls.call(await self.offered(), asked, hooks or Hooks())

    async def refused(self, **wanted: Any) -> MeshError:
        with pytest.raises(MeshError) as caught:
            await self.call(**wanted)
        return caught.value


@asynccontextmanager
async def calling(mesh: Mesh) -> AsyncIterator[Caller]:
    links = Links(mesh.tunnels)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(links.run)
        yield Caller(mesh, Directory(mesh.peer), ToolCalls(mesh.peer, links))
        tasks.cancel_scope.cancel()


async def hosting(twin: Twin, name: str = "bob", host: Host | None = None) -> tuple[Mesh, Host]:
    mesh = await twin.join(name)
    taken = (host or Host()).at(mesh)
    await register(mesh, "sums", [ADD])
    return mesh, taken


async def hang_up(line: Line, _said: Words) -> None:
    await line.close()
