"""A whole broker in memory: real SQLite, a clock that stands, links instead of sockets.

``a_broker`` gives a ``MemoryBroker``; its ``dial`` is a link as a client sees one. ``people.py``
has meshes and keys for it, ``rawpeer.py`` a client that speaks frames.
"""

import secrets
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from claudemesh_broker import features, upkeep
from claudemesh_broker.admission import Admission, Identity, Origin
from claudemesh_broker.bus import LocalBus
from claudemesh_broker.config import BrokerSettings
from claudemesh_broker.delivery import Credit, Deliveries
from claudemesh_broker.limits import Limits
from claudemesh_broker.outgoing import LinkClosed
from claudemesh_broker.reach import Reach
from claudemesh_broker.roster import Roster
from claudemesh_broker.scheduler import Clock, Scheduler
from claudemesh_broker.service import Parts, Service
from claudemesh_broker.session import Session
from claudemesh_broker.store import Store
from claudemesh_broker.upkeep import Upkeep
from claudemesh_wire.keys import (
    SigningKey,
)
from tests.support.people import NOW

TOKEN: Final = bytes(range(32))
ADMIN_SECRET: Final = bytes(range(32, 64))
BROKER_KEY: Final = SigningKey(bytes(31) + b"\x07")
LOCAL: Final = Origin("127.0.0.1", is_local=True)
LIMIT_S: Final = 10
assert features


@dataclass
class StandingClock:
    """A clock that moves when it is told to."""

    now_ms: int = NOW

    def __call__(self) -> int:
        """Give the time."""
        return self.now_ms

    def pass_ms(self, milliseconds: int) -> None:
        """Let time pass."""
        self.now_ms += milliseconds


class MemoryLink:
    """One end of a pair; what is sent at one is received at the other, in order."""

    def __init__(self) -> None:
        self.other: MemoryLink
        self.close_code: int | None = None
        self.close_reason = ""
        self.served = anyio.Event()
        self._stuck = False
        self._texts: deque[str] = deque()
        self._is_closed = False
        self._changed = anyio.Event()

    async def send(self, text: str) -> None:
        """Write one frame; waits while the other end takes nothing."""
        while self.other._stuck and not self._is_closed:
            await self._changed.wait()
        self.send_now(text)
        await checkpoint()

    def send_now(self, text: str) -> None:
        """Write one frame, however many wait."""
        if self._is_closed:
            raise LinkClosed
        self.other._texts.append(text)
        self.other._tell()

    async def receive(self) -> str:
        """Wait for one frame."""
        while not self._texts:
            if self._is_closed:
                raise LinkClosed
            await self._changed.wait()
        return self._texts.popleft()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close both directions; what was sent before is still received."""
        if not self._is_closed:
            self.close_code, self.close_reason = code, reason
        for end in (self, self.other):
            end._is_closed = True
            end._tell()

    def stop_taking(self, stuck: bool = True) -> None:  # noqa: FBT001, FBT002 - says so
        """Take nothing more from the other end, as a reader that hangs; or take again."""
        self._stuck = stuck
        self.other._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


def link_pair() -> tuple[MemoryLink, MemoryLink]:
    """Give the two ends of a connection."""
    one, two = MemoryLink(), MemoryLink()
    one.other, two.other = two, one
    return one, two


def settings(folder: Path, **changed: Any) -> BrokerSettings:
    """Give settings that no test runs into unless it wants to."""
    generous = {
        "data": folder / "broker",
        "run": folder / "run",
        "chat_per_s": 10**6,
        "chat_burst": 10**6,
        "rpc_per_s": 10**6,
        "rpc_burst": 10**6,
        "tunnel_per_s": 10**6,
        "tunnel_burst": 10**6,
        "auth_per_s": 10**6,
        "auth_burst": 10**6,
    }
    return BrokerSettings(**{**generous, **changed})


@dataclass
class MemoryBroker:
    """A broker without a socket."""

    parts: Parts
    admission: Admission
    service: Service
    upkeep: Upkeep
    clock: StandingClock
    tasks: TaskGroup
    origin: Origin = LOCAL

    def dial(self) -> MemoryLink:
        """Open a connection; gives the client's end."""
        here, there = link_pair()
        session = Session(here, self.service, self.admission, self.origin)
        self.tasks.start_soon(self._serve, session, there)
        return there

    async def _serve(self, session: Session, link: MemoryLink) -> None:
        try:
            await session.run(secrets.token_bytes)
        finally:
            link.served.set()

    async def run_due(self) -> None:
        """Run what is due at the clock's time."""
        await self.parts.scheduler.run_due(self.clock.now_ms)

    async def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Look into the tables."""
        rows = await self.parts.store.read(lambda sql: sql.all(statement, *values))
        return [tuple(row) for row in rows]


@asynccontextmanager
async def a_broker(
    folder: Path,
    clock: StandingClock | None = None,
    token: bytes | None = TOKEN,
    reach: Reach | None = None,
    **changed: Any,
) -> AsyncIterator[MemoryBroker]:
    """Start a broker on a folder; leaving stops it as SIGKILL would, short of the disk.

    With a ``reach`` other machines reach it, and it has an admin secret.
    """
    told = settings(folder, **changed)
    now = clock or StandingClock()

    def fatal(error: BaseException) -> None:
        raise AssertionError(error)

    async with await Store.open(told.data / "broker.sqlite3", fatal) as store:
        deliveries = Deliveries(
            store, LocalBus(), "local", Credit(told.window_messages, told.window_bytes)
        )
        parts = Parts(
            store=store,
            roster=Roster(store),
            deliveries=deliveries,
            limits=Limits(told.allowances(), lambda: now() / 1000),
            scheduler=Scheduler(store, Clock(now)),
            settings=told,
            now_ms=now,
            started_ms=now(),
            reach=reach,
        )
        handlers = Upkeep(parts)
        handlers.register()
        await store.write(lambda sql: upkeep.recover(sql, "local", now(), told.lease_ms))
        admission = Admission(parts, Identity(BROKER_KEY, token, "local", ADMIN_SECRET))
        async with anyio.create_task_group() as tasks:
            yield MemoryBroker(parts, admission, Service(parts), handlers, now, tasks)
            tasks.cancel_scope.cancel()
