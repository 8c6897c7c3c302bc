"""The in-memory twin: real ``Mesh`` peers of one home and a real broker, joined without a socket.

``a_mesh`` gives a ``Twin``; its ``join`` opens a peer, its ``admit`` a second home whose member an
entry has added. Everything but the transport is what runs in life: SQLite on both sides, keys on
disk, the same client and the same broker session. A ``Lie`` stands between them when a test wants a
broker that lies.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import anyio
import pytest

from claudemesh_mcp.attachment import Dialed
from claudemesh_mcp.config import Settings
from claudemesh_mcp.connection import Link
from claudemesh_mcp.connection import LinkClosed as ClientLinkClosed
from claudemesh_mcp.home import Home
from claudemesh_mcp.identity import Identity, open_identity
from claudemesh_mcp.peer import Setup
from claudemesh_mcp.results import RecipientStatus
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire import VERSION
from claudemesh_wire.errors import Invalid
from claudemesh_wire.handshake import Mode, Session
from claudemesh_wire.keys import b64, broker_id
from claudemesh_wire.membership import Chain, Entry, EntryFields, EntryKind
from claudemesh_wire.message import Role
from tests.support.broker import (
    BROKER_KEY,
    LIMIT_S,
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
        folder = more.pop("folder", "")
        return Setup(
            settings=settings,
            anchor=more.pop("anchor", f"claude:{name}"),
            session=Session(**{**_ABOUT, **more.pop("about", {}), **more}),
            handles=(name,),
            now_ms=self.clock,
            folder=str(folder),
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

    @cached_property
    def identity(self) -> Identity:
        """Who this home is: the founder of its mesh."""
        settings = self.setup("").settings
        return open_identity(Home.open(settings.paths()), settings)

    async def admit(self, name: str, role: Role = Role.MEMBER, **fields: Any) -> "Guest":
        """Make a second home, and add its member to this home's mesh."""
        guest = Guest(self, self.home.with_name(f"home-{name}"), name)
        key = guest.identity.key.public
        said = {"member": guest.identity.member, "key": b64(key.raw), "name": name, "role": role}
        await self.say(EntryKind.ADD, **said, **fields)
        return guest

    async def say(self, kind: EntryKind, **fields: Any) -> None:
        """Let the founder append an entry to the log, and the broker tell everybody."""
        parts, identity = self.broker.parts, self.identity
        known = await parts.roster.load(identity.mesh)
        chain = known or Chain(identity.mesh).extend([identity.founding])
        said = EntryFields(
            mesh=identity.mesh,
            seq=chain.head.seq + 1,
            prev=b64(chain.head.hash),
            at=self.clock.now_ms,
            kind=kind,
            by=identity.member,
            **fields,
        )
        await parts.append_log(chain.extend([Entry.issue(said, identity.key).blob]), known)

    async def cut(self) -> None:
        """Break every connection, as a network does."""
        links, self.links = self.links, []
        for link in links:
            await link.close()


@dataclass
class Guest:
    """Another home in the mesh of a twin, of another member."""

    twin: Twin
    home: Path
    name: str

    @cached_property
    def identity(self) -> Identity:
        """Who this home is in the mesh of the twin."""
        settings = self._settings()
        return self._identify(Home.open(settings.paths()), settings)

    @property
    def member(self) -> str:
        """The id of its member."""
        return self.identity.member

    def setup(self, name: str, **more: Any) -> Setup:
        """Say how a peer of this home is opened."""
        plain = self.twin.setup(name, **more)
        return replace(plain, settings=self._settings(), identify=self._identify)

    def open(self, name: str, mode: Mode = Mode.ATTACH, **more: Any) -> Any:
        """Give the context manager of a peer of this home."""
        return Mesh.over(self.setup(name, **more), self.twin.dial, mode)

    async def join(self, name: str, mode: Mode = Mode.ATTACH, **more: Any) -> Mesh:
        """Open a peer that stays until the end of the test, and wait until it is connected."""
        mesh = await self.twin.stack.enter_async_context(self.open(name, mode, **more))
        await mesh.ready()
        return mesh

    def _settings(self) -> Settings:
        return Settings.load({"home": self.home, "keyring": False}, environ={})

    def _identify(self, home: Home, settings: Settings) -> Identity:
        own, founder = open_identity(home, settings), self.twin.identity
        return replace(own, name=self.name, mesh=founder.mesh, founding=founder.founding)


@asynccontextmanager
async def a_mesh(folder: Path, **changed: Any) -> AsyncIterator[Twin]:
    """Start a twin in a folder; everything ends with the block."""
    clock = StandingClock()
    async with a_broker(folder / "broker", clock, **changed) as broker, AsyncExitStack() as stack:
        yield Twin(folder / "home", broker, clock, stack)


async def ended(twin: Twin, name: str, **more: Any) -> str:
    """Have a session that was here once and is gone for good; gives its peer's id."""
    async with twin.open(name, **more) as mesh:
        await mesh.ready()
        peer = mesh.peer.id
    await twin.end_leases()
    return peer


async def until(mesh: Mesh, message: str, wanted: str) -> RecipientStatus:
    """Wait until the one recipient of a message has got so far with it."""
    with anyio.fail_after(LIMIT_S):
        while True:
            (row,) = (await mesh.message_status(message)).recipients
            if row.status == wanted:
                return row
            await anyio.lowlevel.checkpoint()


@contextmanager
def dying_at(patcher: pytest.MonkeyPatch, module: ModuleType, step: str) -> Iterator[None]:
    """Have a function of a module stand for the end of the process, instead of doing its work."""

    def die(*_: object, **__: object) -> None:
        raise Invalid("The process was killed here.", code="killed")

    with patcher.context() as patch:
        patch.setattr(module, step, die)
        yield


class Tokens:
    """Keeps what a call hands out."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    def hands_out(self, tokens: Iterable[str]) -> None:
        """Take them."""
        self.taken += tokens
