"""A broker's end of a connection, in memory, that says whatever a test wants said."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from claudemesh_mcp.client import Client, Credentials
from claudemesh_mcp.connection import LinkClosed
from claudemesh_mcp.peer import Peer
from claudemesh_wire import canonical
from claudemesh_wire.errors import MeshError
from claudemesh_wire.exchange import Asked, Event, Exchange
from claudemesh_wire.handshake import Challenge, Claims, Facts, Hello, Mode, Session
from claudemesh_wire.keys import SigningKey, broker_id
from claudemesh_wire.message import Message, Notice
from tests.support.trusting import a_peer
from tests.wire.world import BOB, NOW, Log, seed

LIMIT_S: Final = 10
BROKER: Final = SigningKey(seed("broker"))
OTHER: Final = SigningKey(seed("other broker"))
TOKEN: Final = seed("token")
NONCE: Final = seed("nonce")


class Wire:
    """The client's end of a connection in memory."""

    def __init__(self) -> None:
        self.outbound, self.sent = anyio.create_memory_object_stream[str](10_000)
        self.arriving, self.inbound = anyio.create_memory_object_stream[str](10_000)

    async def send(self, text: str) -> None:
        """Send one text."""
        try:
            await self.outbound.send(text)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise LinkClosed("closed") from error

    async def receive(self) -> str:
        """Give the next text."""
        try:
            return await self.inbound.receive()
        except anyio.EndOfStream as error:
            raise LinkClosed("closed") from error

    def cut(self) -> None:
        """End it, as a network does."""
        self.arriving.close()
        self.sent.close()

    def close(self) -> None:
        """Let go of what was never read."""
        for stream in (self.outbound, self.sent, self.arriving, self.inbound):
            stream.close()


class Broker:
    """The broker's end; it says what a test wants said."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.exchange = Exchange()

    async def say(self, notice: Notice) -> None:
        """Send a notice."""
        await self.raw(self.exchange.notify(notice))

    async def raw(self, text: str) -> None:
        """Send any text."""
        await self.wire.arriving.send(text)

    async def hear(self) -> Event | None:
        """Give what the client says next."""
        with anyio.fail_after(LIMIT_S):
            return self.exchange.receive(await self.wire.sent.receive())

    async def asked(self) -> Asked:
        """Give what the client asks next."""
        event = await self.hear()
        assert isinstance(event, Asked)
        return event

    async def answer(self, number: int, outcome: Message | MeshError) -> None:
        """Answer a question."""
        await self.raw(self.exchange.answer(number, outcome))

    async def hello(self) -> tuple[int, Hello, Claims]:
        """Give the number of the hello, the hello, and its claims."""
        event = await self.asked()
        assert isinstance(event.request, Hello)
        claims = canonical.decode(event.request.claims, Claims, "claims")
        return event.number, event.request, claims

    async def silence(self) -> None:
        """Assert that nothing more was sent."""
        with pytest.raises(anyio.WouldBlock):
            self.wire.sent.receive_nowait()


@dataclass
class Pair:
    """A client and a broker that hold the two ends, and who the client is."""

    client: Client
    broker: Broker
    peer: Peer

    def credentials(self, **changes: Any) -> Credentials:
        """Say who the client is."""
        peer = self.peer
        shown = Credentials(
            broker=broker_id(BROKER.public),
            token=TOKEN,
            device=peer.device,
            certificate=peer.renew("ada"),
            trust=peer.trust,
            mode=Mode.ATTACH,
            session=Session(type="claude"),
            handles=("ada",),
        )
        return replace(shown, **changes)

    async def greet(self, **changes: Any) -> tuple[Facts, list[bytes]]:
        """Shake hands."""
        with anyio.fail_after(LIMIT_S):
            return await self.client.greet(self.credentials(**changes))


@asynccontextmanager
async def a_pair(folder: Path) -> AsyncGenerator[Pair]:
    """Connect ada's client to a broker that waits for its words."""
    async with a_peer(folder / "home", Log().bring(BOB)) as peer:
        wire = Wire()
        client = Client(wire)
        yield Pair(client, Broker(wire), peer)
        client.close()
        wire.close()


@asynccontextmanager
async def running(pair: Pair) -> AsyncGenerator[Broker]:
    """Let the client take in what arrives, for the length of a block."""
    with anyio.fail_after(LIMIT_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pair.client.run)
            yield pair.broker
            pair.broker.wire.cut()


def challenge(**changes: Any) -> Challenge:
    """Say the first words, honest but for the changes."""
    said: dict[str, Any] = {
        "broker": broker_id(BROKER.public),
        "key": BROKER.public.raw,
        "nonce": NONCE,
        "now_ms": NOW,
        "version": "1",
    }
    return Challenge(**{**said, **changes})


def facts(claims: Claims, **changes: Any) -> Facts:
    """Give the facts of a welcome, honest but for the changes."""
    said: dict[str, Any] = {
        "broker": claims.broker,
        "bn": claims.bn,
        "cn": claims.cn,
        "peer": claims.peer,
        "handle": "ada-2",
        "fence": 1,
        "head_seq": claims.head_seq,
        "head": claims.head,
        "now": NOW,
        "version": "1",
        "data_version": 1,
        "lease": 90_000,
        "credit": 100,
    }
    return Facts(**{**said, **changes})
