"""The in-memory twin: real ``Mesh`` peers of one home and a real broker, joined without a socket.

``a_mesh`` gives a ``Twin``; its ``join`` opens a peer. Everything but the transport is what runs in
life: SQLite on both sides, keys on disk, the same client and the same broker session. A ``Lie``
stands between them when a test wants a broker that lies.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from claudemesh_mcp.attachment import Dialed
from claudemesh_mcp.config import Settings
from claudemesh_mcp.connection import Link
from claudemesh_mcp.connection import LinkClosed as ClientLinkClosed
from claudemesh_mcp.peer import Setup
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire import VERSION
from claudemesh_wire.handshake import Mode, Session
from claudemesh_wire.keys import broker_id
from tests.support.broker import (
    BROKER_KEY,
    TOKEN,
    LinkClosed,
    MemoryBroker,
    MemoryLink,
    StandingClock,
    a_broker,
)

Lie = Callable[[str], str | None]
_ABOUT: Final = {"type": "claude", "project": "shop", "cwd": "/work/shop", "host": "desk"}


class ClientLink:
    """A client's end of a memory link, as the client knows links.

    Args:
        link: The broker's kind of link.
        lie: Changes what the broker says, or swallows it by giving ``None``.
    """

    def __init__(self, link: MemoryLink, lie: Lie | None) -> None:
        self._link = link
        self._lie = lie

    async def send(self, text: str) -> None:
        """Send one text."""
        try:
            await self._link.send(text)
        except LinkClosed as error:
            raise ClientLinkClosed from error

    async def receive(self) -> str:
        """Give the next text that the lie lets through."""
        while True:
            try:
                text = await self._link.receive()
            except LinkClosed as error:
                raise ClientLinkClosed from error
            told = self._lie(text) if self._lie else text
            if told is not None:
                return told


@dataclass
class Twin:
    """A home, its broker, and the peers that were opened."""

    home: Path
    broker: MemoryBroker
    clock: StandingClock
    stack: AsyncExitStack
    lie: Lie | None = None
    links: list[MemoryLink] = field(default_factory=list)
    online: bool = True

    @asynccontextmanager
    async def dial(self) -> AsyncIterator[Dialed]:
        """Open a connection as a client's dialling does."""
        if not self.online:
            raise OSError("the broker is away")
        link = self.broker.dial()
        self.links.append(link)
        told: Link = ClientLink(link, self._lied)
        try:
            yield Dialed(told, broker_id(BROKER_KEY.public), "memory:", TOKEN, VERSION)
        finally:
            await link.close()

    def _lied(self, text: str) -> str | None:
        return self.lie(text) if self.lie else text

    def setup(self, name: str, **more: Any) -> Setup:
        """Say how a peer is opened."""
        settings = Settings.load({"home": self.home, "keyring": False}, environ={})
        return Setup(
            settings=settings,
            anchor=more.pop("anchor", f"claude:{name}"),
            session=Session(**{**_ABOUT, **more.pop("about", {}), **more}),
            handles=(name,),
            now_ms=self.clock,
        )

    def open(self, name: str, mode: Mode = Mode.ATTACH, **more: Any) -> Any:
        """Give the context manager of a peer."""
        return Mesh.over(self.setup(name, **more), self.dial, mode)

    async def join(self, name: str, mode: Mode = Mode.ATTACH, **more: Any) -> Mesh:
        """Open a peer that stays until the end of the test, and wait until it is connected."""
        mesh = await self.stack.enter_async_context(self.open(name, mode, **more))
        await mesh.ready()
        return mesh

    async def end_leases(self, lease_ms: int = 90_000) -> None:
        """Let the leases of all run out who have gone."""
        for link in self.links:
            if link._is_closed:
                await link.served.wait()
        self.clock.pass_ms(lease_ms)
        await self.broker.run_due()

    async def cut(self) -> None:
        """Break every connection, as a network does."""
        links, self.links = self.links, []
        for link in links:
            await link.close()


@asynccontextmanager
async def a_mesh(folder: Path, **changed: Any) -> AsyncIterator[Twin]:
    """Start a twin in a folder; everything ends with the block."""
    clock = StandingClock()
    async with a_broker(folder / "broker", clock, **changed) as broker, AsyncExitStack() as stack:
        yield Twin(folder / "home", broker, clock, stack)
