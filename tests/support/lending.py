"""A session that runs a real server for the mesh, and clients that see what it lends them.

``lending`` offers a server as a session does; ``at_desk`` opens a session behind the real front,
over memory, and ``Client`` of ``mcp_client.py`` drives it.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.abc import TaskGroup

from claudemesh_mcp.config import Settings
from claudemesh_mcp.hosting.keeping import Kept
from claudemesh_mcp.hosting.launch import Launch
from claudemesh_mcp.hosting.serving import Hosted, Serving
from claudemesh_mcp.offer import Offer
from claudemesh_mcp.sdk import Mesh
from claudemesh_mcp.session import MeshSession
from claudemesh_wire.mcp_servers import UnregisterServer
from tests.support.mcp_client import Client, connected
from tests.support.offering import Words, register

PROVIDER = "claudemesh/provider"
FORMS = {"elicitation": {"form": {}}}


@dataclass
class Lender:
    """What one session offers.

    Args:
        mesh: The session.
        tasks: Where its servers run.
    """

    mesh: Mesh
    tasks: TaskGroup
    changed: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    _hosted: dict[str, Hosted] = field(default_factory=dict[str, Hosted])

    def __post_init__(self) -> None:
        """Take the lines of callers."""
        mesh = self.mesh
        serving = Serving(mesh.peer, self._hosted, mesh.ready, self._note)
        mesh.tunnels.taker = serving.take

    def _note(self, server: str, tool: str, _caller: object) -> None:
        self.changed.append((server, tool))

    async def lend(self, name: str, launch: Launch, **changed: Words) -> None:
        """Run a server and offer it; ``changed`` says what some of its tools say besides."""
        kept = Kept(name, launch)
        await self.tasks.start(kept.run)
        found = await kept.backend.definitions()
        tools = [{**one, **changed.get(one["name"], {})} for one in found["tools"]]
        rest = {kind: found[kind] for kind in found if kind != "tools"}
        made = await register(self.mesh, name, tools, ("mesh",), more=rest)
        self._hosted[name] = Hosted(made, kept)

    async def change(self, name: str, change: Callable[[Words], Words]) -> None:
        """Offer the same server with other definitions, as one that was updated."""
        hosted = self._hosted[name]
        await (await self.mesh.ready()).call(UnregisterServer(name=name))
        tools = [change(one) for one in hosted.registration.definitions["tools"]]
        made = await register(self.mesh, name, tools)
        self._hosted[name] = Hosted(made, hosted.server)


@asynccontextmanager
async def lending(mesh: Mesh) -> AsyncIterator[Lender]:
    """Have a session that can lend servers, until the block ends."""
    async with anyio.create_task_group() as tasks:
        yield Lender(mesh, tasks)
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def at_desk(opening: Callable[[], Any], **changed: Any) -> AsyncIterator[Client]:
    """Give the client of a session; ``changed`` is what it says at `initialize`."""
    session = MeshSession(Settings(), lambda _: opening())
    async with connected(session, offer=Offer(), **changed) as client:
        yield client


def without_provider(result: Words) -> Words:
    """Give a result as its server gave it: without the mark of who did."""
    meta = {key: one for key, one in result.get("_meta", {}).items() if key != PROVIDER}
    rest = {key: one for key, one in result.items() if key != "_meta"}
    return {**rest, **({"_meta": meta} if meta else {})}


async def answering(client: Client, answer: Words, times: int = 1) -> list[Words]:
    """Answer the next questions of the session; gives their parameters."""
    asked: list[Words] = []
    for number in range(1, times + 1):
        question = await client.told("elicitation/create", number)
        asked.append(question["params"])
        client.write({"jsonrpc": "2.0", "id": question["id"], **answer})
    return asked
