"""A TCP proxy between a session and its broker, whose lines freeze and break when a test says so.

The process tests put it where ``run/broker.json`` says that the broker is. A frozen line takes what
either end sends and keeps it, as a network does that has lost the way: neither end is told.
"""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum

import anyio
from anyio.abc import SocketAttribute, SocketStream

from claudemesh_mcp.brokerinfo import BrokerInfo
from claudemesh_mcp.home import Home, atomic_write

LIMIT_S = 60
_GONE = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)


class End(StrEnum):
    """One end of a line, or the direction towards it."""

    SESSION = "session"
    BROKER = "broker"

    @property
    def other(self) -> "End":
        """The opposite end."""
        return End.BROKER if self is End.SESSION else End.SESSION


@dataclass(eq=False)
class Line:
    """One connection of a session with its broker.

    Args:
        streams: The connection with each end.
        kept: What is still to be passed on, by the end it is for.
        gone: The ends that have given the line up.
    """

    streams: dict[End, SocketStream]
    kept: dict[End, bytes] = field(default_factory=lambda: dict.fromkeys(End, b""))
    gone: set[End] = field(default_factory=set[End])
    _frozen: set[End] = field(default_factory=set[End])
    _is_cut: bool = False
    _changed: anyio.Event = field(default_factory=anyio.Event)

    def freeze(self, *towards: End) -> None:
        """Pass nothing on any more, towards these ends or both; nobody is told."""
        self._frozen |= set(towards or End)

    def thaw(self) -> None:
        """Pass on again, first what was kept."""
        self._frozen.clear()
        self._tell()

    async def cut(self) -> None:
        """Break the line; what it kept is lost."""
        self._is_cut = True
        for stream in self.streams.values():
            await stream.aclose()
        self._tell()

    async def given_up_by(self, end: End) -> None:
        """Wait until an end has noticed that the line is no good."""
        with anyio.fail_after(LIMIT_S):
            await self._when(lambda: end in self.gone)

    async def keeps(self, towards: End) -> None:
        """Wait until there is something that the line keeps from an end."""
        with anyio.fail_after(LIMIT_S):
            await self._when(lambda: bool(self.kept[towards]))

    async def carry(self) -> None:
        """Carry both directions until both ends are gone."""
        async with anyio.create_task_group() as tasks:
            for end in End:
                tasks.start_soon(self._take, end)
                tasks.start_soon(self._give, end)

    async def _take(self, end: End) -> None:
        with suppress(*_GONE):
            while True:
                data = await self.streams[end].receive()
                self.kept[end.other] += data
                self._tell()
        self.gone.add(end)
        self._tell()

    async def _give(self, end: End) -> None:
        def has_more() -> bool:
            return bool(self.kept[end]) or end.other in self.gone

        with suppress(*_GONE):
            while True:
                await self._when(lambda: self._is_cut or (end not in self._frozen and has_more()))
                data, self.kept[end] = self.kept[end], b""
                if self._is_cut or not data:
                    break
                await self.streams[end].send(data)
            await self.streams[end].send_eof()

    async def _when(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await self._changed.wait()

    def _tell(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()


class Proxy:
    """Stands in for a broker's port.

    Args:
        broker: The broker behind it.
        port: The port it has itself.
    """

    def __init__(self, broker: BrokerInfo, port: int) -> None:
        self.lines: list[Line] = []
        self.port = port
        self.opens_frozen = False
        self._broker = broker
        self._dialled = anyio.Event()

    async def line(self, number: int) -> Line:
        """Wait for the line that was opened as this one, counted from 0."""
        with anyio.fail_after(LIMIT_S):
            while len(self.lines) <= number:
                await self._dialled.wait()
        return self.lines[number]

    def stand_in(self, home: Home) -> None:
        """Be where sessions of a home look for their broker, from now on."""
        file = home.run / "broker.json"
        said = json.loads(file.read_bytes())
        said["url"] = f"http://127.0.0.1:{self.port}"
        atomic_write(file, json.dumps(said).encode())

    async def handle(self, session: SocketStream) -> None:
        """Serve one connection; those that only look whether somebody answers are no lines."""
        async with session:
            with suppress(*_GONE):
                first = await session.receive()
                async with await anyio.connect_tcp(self._broker.host, self._broker.port) as broker:
                    line = Line({End.SESSION: session, End.BROKER: broker})
                    line.kept[End.BROKER] = first
                    if self.opens_frozen:
                        line.freeze()
                    self.lines.append(line)
                    dialled, self._dialled = self._dialled, anyio.Event()
                    dialled.set()
                    await line.carry()


@asynccontextmanager
async def proxy_to(broker: BrokerInfo) -> AsyncGenerator[Proxy]:
    """Run a proxy in front of a broker; leaving breaks all its lines."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra_attributes[SocketAttribute.local_port]()
        proxy = Proxy(broker, port)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, proxy.handle)
            yield proxy
            tasks.cancel_scope.cancel()
