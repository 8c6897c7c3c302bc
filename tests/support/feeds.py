"""A store whose answers the test lets through, and a socket that keeps what it is given."""

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from claudemesh_broker.delivery import (
    Attachment,
    Feed,
)
from claudemesh_broker.queues import Waiting
from claudemesh_wire.exchange import Exchange, Noticed
from claudemesh_wire.handshake import Closing
from claudemesh_wire.message import Notice
from claudemesh_wire.messages import Deliver

MESH = "mesh_" + "a" * 26
ADA, BOB, CAROL = (f"p_{letter * 26}" for letter in "abc")
LIMIT_S = 5
Answer = tuple[list[Waiting], bool]


@dataclass
class GatedStore:
    """The queue of one peer, read when the test says so."""

    rows: list[Waiting] = field(default_factory=list[Waiting])
    open: bool = True
    reads: int = 0
    gate: anyio.Event = field(default_factory=anyio.Event)

    def read(self, query: Any) -> Awaitable[Any]:
        """Take the snapshot now, give it when the gate opens."""
        after, (most, most_bytes) = query.keywords["after"], query.keywords["bounds"]
        waiting = [row for row in self.rows if row.seq > after]
        chosen: list[Waiting] = []
        for row in waiting[:most]:
            most_bytes -= len(row.envelope)
            if chosen and most_bytes < 0:
                break
            chosen.append(row)
        return self._answer((chosen, len(chosen) < len(waiting)))

    async def _answer(self, answer: Answer) -> Answer:
        self.reads += 1
        if not self.open:
            await self.gate.wait()
            self.gate = anyio.Event()
        await checkpoint()
        return answer

    def let_through(self) -> None:
        """Answer the read that waits."""
        self.gate.set()

    def commit(self, *numbers: int, size: int = 100, name: bytes = b"n") -> list[Waiting]:
        """Put rows into the queue."""
        rows = [Waiting(seq, bytes(size), seq, name, b"certificate") for seq in numbers]
        self.rows += rows
        return rows

    def ack(self, *numbers: int) -> None:
        """Take rows off the queue."""
        self.rows = [row for row in self.rows if row.seq not in numbers]


@dataclass
class Socket:
    """An outlet that keeps what it is given."""

    feed: Feed | None = None
    texts: list[str] = field(default_factory=list[str])
    closing: Closing | None = None
    woken: anyio.Event = field(default_factory=anyio.Event)

    def put(self, text: str) -> None:
        self.texts.append(text)

    def wake(self) -> None:
        self.woken.set()
        self.woken = anyio.Event()

    async def room(self) -> None:
        """Take everything at once."""

    def end(self, closing: Closing) -> None:
        self.closing = closing

    def frames(self) -> list[Notice]:
        """Take everything from the feed."""
        assert self.feed is not None
        notices: list[Notice] = []
        while (text := self.feed.take()) is not None:
            notices.append(read(text))
        return notices

    def rows(self) -> list[int]:
        """Take everything from the feed, as the numbers of its rows."""
        deliveries = [notice for notice in self.frames() if isinstance(notice, Deliver)]
        return [one.row for notice in deliveries for one in notice.deliveries]


def read(text: str) -> Notice:
    event = Exchange().receive(text)
    assert isinstance(event, Noticed)
    return event.notice


def place(peer: str, fence: int = 1, mesh: str = MESH) -> Attachment:
    return Attachment(mesh, peer, "mem", "device", fence)
