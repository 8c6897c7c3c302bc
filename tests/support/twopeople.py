"""Ada, and bob of another member in a home of his own, for tests of what one lets the other do.

``two_people`` gives a ``World``; ada's human speaks through her command line's own peer.
"""

from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from claudemesh_mcp import granting, held
from claudemesh_mcp.granting import Change
from claudemesh_mcp.results import InboxMessage, RecipientStatus
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.errors import MeshError
from claudemesh_wire.handshake import Mode
from tests.support.twin import Guest, Twin, a_mesh

LIMIT_S: Final = 20


@dataclass
class World:
    """Ada; bob, who is another member in another home; and ada at her command line."""

    twin: Twin
    guest: Guest
    ada: Mesh
    bob: Mesh
    human: Mesh

    async def revoke(self, *capabilities: str) -> None:
        """Deny bob something."""
        await self.say(Change(deny=frozenset(capabilities)))

    async def grant(self, *capabilities: str) -> None:
        """Allow bob something."""
        await self.say(Change(allow=frozenset(capabilities)))

    async def say(self, change: Change) -> None:
        """Let ada's human sign a change for bob."""
        said = await granting.change(self.human.peer, self.human.ready, "bob", change)
        assert said.untold is None

    async def allow(self, what: str = "bob") -> list[str]:
        """Let bob, or one message, through; gives the texts that were released."""
        done = await granting.allow(self.human.peer, self.human.ready, what)
        return [one.text for one in done.messages]

    async def block(self, *, blocked: bool) -> None:
        """Block bob, or admit him again."""
        said = await granting.block(self.human.peer, self.human.ready, "bob", blocked=blocked)
        assert said.untold is None

    def held(self) -> list[str]:
        """Give the texts that are held in ada's home."""
        peer = self.human.peer
        return [one.text for one in held.find(peer.home).messages]

    async def at_broker(self, statement: str, *values: Any) -> None:
        """Change the broker's tables as no honest broker would."""
        store = self.twin.broker.parts.store
        await store.write(lambda sql: sql.execute(statement, *values))


@asynccontextmanager
async def two_people(folder: Path, **settings: Any) -> AsyncIterator[World]:
    """Open all of it in a folder, around a broker with these settings."""
    async with a_mesh(folder, **settings) as twin:
        ada = await twin.join("ada")
        guest = await twin.admit("bob")
        bob = await guest.join("bob")
        human = await twin.join("human", Mode.CALL)
        yield World(twin, guest, ada, bob, human)


async def got(mesh: Mesh) -> list[InboxMessage]:
    """Wait for messages and give them."""
    return (await mesh.inbox(wait_s=LIMIT_S)).messages


async def status_of(mesh: Mesh, message: str) -> RecipientStatus:
    """Give what is known of a message with its one recipient."""
    [one] = (await mesh.message_status(message)).recipients
    return one


async def reached(mesh: Mesh, message: str, status: str) -> RecipientStatus:
    """Wait until a message has come so far, proved."""
    with anyio.fail_after(LIMIT_S):
        while (found := await status_of(mesh, message)).status != status or not found.proved:
            await anyio.lowlevel.checkpoint()
    return found


async def kept(mesh: Mesh, count: int) -> list[tuple[str, str | None, int]]:
    """Wait until so many messages are in a peer's file; text, what holds it, whether it wakes."""
    with anyio.fail_after(LIMIT_S):
        while True:
            rows = await mesh.peer.file.read(
                lambda sql: sql.execute("SELECT * FROM inbox ORDER BY row").fetchall()
            )
            if len(rows) >= count:
                return [(row["text"], row["held"], row["wakes"]) for row in rows]
            await anyio.lowlevel.checkpoint()


async def code(act: Coroutine[Any, Any, object]) -> str:
    """Give the code with which something is refused."""
    with pytest.raises(MeshError) as caught:
        await act
    return caught.value.code
