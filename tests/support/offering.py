"""A session that offers a server made of plain Python functions, for tests of who calls it.

``Host`` registers it as any session does, and answers what is said on the lines to it by hand: what
a test needs to see or to hold up is in its hands.
"""

import json
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import anyio

from claudemesh_mcp.line import Line
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.keys import b64
from claudemesh_wire.mcp_servers import RegisterServer, Registration, RegistrationFields

Words = dict[str, Any]
Act = Callable[[Line, Words], Coroutine[Any, Any, None]]
ADD: Words = {"name": "add", "inputSchema": {"type": "object"}}


async def register(
    mesh: Mesh,
    name: str,
    tools: list[Words],
    visible_to: tuple[str, ...] = ("mesh",),
    *,
    persistent: bool = False,
    more: Mapping[str, list[Words]] | None = None,
) -> Registration:
    """Offer a server with these tools, and what it has besides of other kinds."""
    peer = mesh.peer
    certificate = peer.certified()
    fields = RegistrationFields(
        mesh=peer.trust.mesh,
        peer=peer.id,
        cert=b64(certificate.hash),
        name=name,
        at=peer.now_ms(),
        visible_to=list(visible_to),
        persistent=persistent,
        definitions=json.dumps({"tools": tools, **(more or {})}),
    )
    made = Registration.make(fields, peer.device.sign.sign)
    client = await mesh.ready()
    await client.call(RegisterServer(registration=made.blob, certificate=certificate.blob))
    return made


class Host:
    """What is on the other end of a caller's lines.

    Args:
        act: Answers one call; by default with what was said, as the result.
    """

    def __init__(self, act: Act | None = None) -> None:
        self.act = act or _echo
        self.heard: list[Words] = []
        self.lines: list[Line] = []
        self._more = anyio.Event()

    def at(self, mesh: Mesh) -> "Host":
        """Take the lines of a session."""
        mesh.tunnels.taker = self.take
        return self

    async def take(self, line: Line) -> None:
        """Serve one line."""
        self.lines.append(line)
        async with anyio.create_task_group() as tasks:
            async for said in line.messages():
                self.heard.append(said)
                self._more.set()
                self._more = anyio.Event()
                if "call" in said:
                    tasks.start_soon(self.act, line, said)
            tasks.cancel_scope.cancel()

    async def until(self, holds: Callable[[list[Words]], bool]) -> None:
        """Wait until what was heard is so."""
        while not holds(self.heard):
            await self._more.wait()


async def _echo(line: Line, said: Words) -> None:
    await line.send({"done": said["call"], "result": {"content": [], "said": said["params"]}})
