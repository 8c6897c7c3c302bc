"""Puts the broker together: its parts, its doors, what runs beside them, and how it ends.

``server.py`` opens a ``Broker`` on a data folder and serves its ASGI application. This is the
only file that knows all the others.
"""

import logging
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute

from claudemesh_broker import embedded, features, upkeep, welcome
from claudemesh_broker.admission import Admission, Identity, Origin
from claudemesh_broker.bus import LocalBus
from claudemesh_broker.config import BrokerSettings
from claudemesh_broker.delivery import Credit, Deliveries
from claudemesh_broker.embedded import ANNOUNCEMENT_FILE, DATABASE_FILE, Announcement, Rest
from claudemesh_broker.gate import Gate, Guard
from claudemesh_broker.lane import LaneLimits
from claudemesh_broker.limits import Limits
from claudemesh_broker.outgoing import Link
from claudemesh_broker.reach import Reach
from claudemesh_broker.roster import Roster
from claudemesh_broker.scheduler import Clock, Scheduler
from claudemesh_broker.service import HANDLERS, Parts, Service
from claudemesh_broker.session import Session
from claudemesh_broker.store import Store
from claudemesh_broker.upkeep import Upkeep
from claudemesh_broker.websocket import WebSocketDoor
from claudemesh_wire import VERSION
from claudemesh_wire.handshake import Closing
from claudemesh_wire.keys import SigningKey

NODE: Final = "local"
"""The only broker process on its data is always called so, and thereby finds what it left."""

DRAIN_S: Final = 5.0
REST_S: Final = 10.0
_DRAINING: Final = Closing(code="draining", reason="The broker ends; connect again in a moment.")
logger: Final = logging.getLogger(__name__)
assert features  # noqa: S101 - imported for the handlers that it registers


class Broker:
    """One running broker.

    Args:
        parts: What it is made of.
        identity: What makes it itself.
    """

    def __init__(self, parts: Parts, identity: Identity) -> None:
        self.parts = parts
        self.identity = identity
        self.last_activity_ms = parts.started_ms
        self._service = Service(parts, HANDLERS)
        self._admission = Admission(parts, identity)
        self._sessions: set[Session] = set()
        self._is_draining = False
        self._emptied = anyio.Event()
        self.guard = Guard(parts.settings.binding, parts.reach)
        self._door = WebSocketDoor(self.serve, self.guard.origin_of, parts.settings)

    @property
    def connections(self) -> int:
        """How many connections there are."""
        return len(self._sessions)

    async def serve(self, link: Link, origin: Origin) -> None:
        """Serve one connection to its end."""
        session = Session(link, self._service, self._admission, origin)
        self._sessions.add(session)
        if self._is_draining:
            session.end(_DRAINING)
        try:
            await session.run(secrets.token_bytes)
        finally:
            self._sessions.discard(session)
            self.last_activity_ms = self.parts.now_ms()
            if not self._sessions:
                self._emptied.set()

    async def drain(self) -> None:
        """Tell every connection that the broker ends, and finish what they had begun."""
        self._is_draining = True
        self._emptied = anyio.Event()
        for session in self._sessions:
            session.end(_DRAINING)
        if self._sessions:
            with anyio.move_on_after(DRAIN_S):
                await self._emptied.wait()

    async def rest(self) -> None:
        """Wait until an embedded broker is idle for long enough to end, or its home is gone."""
        has_rested = False
        while not has_rested:
            await anyio.sleep(min(REST_S, self.parts.settings.idle_exit_s))
            try:
                has_rested = await self._has_rested()
            except Exception:
                # A disk that does not answer for a moment is no reason to end.
                logger.exception("it could not be told whether the broker is idle")

    async def _has_rested(self) -> bool:
        settings = self.parts.settings
        if not self.connections and not (settings.run / ANNOUNCEMENT_FILE).exists():
            logger.info("nobody can find this broker any more, ending")
            return True
        due_ms = await self.parts.scheduler.next_due_ms()
        rest = Rest(self.connections, self.last_activity_ms, due_ms)
        if not embedded.may_end(rest, self.parts.now_ms(), settings.idle_exit_ms):
            return False
        logger.info("idle for %.0f s, ending", settings.idle_exit_s)
        return True

    def application(self) -> Gate:
        """Give the ASGI application: the WebSocket and a sign of life, behind the gate."""
        routes = [
            Route("/health", _health, methods=["GET"]),
            Route(welcome.ROUTE, welcome.show, methods=["GET"]),
            WebSocketRoute("/ws", self._door),
        ]
        return Gate(Starlette(routes=routes), self.guard)


async def _health(request: Request) -> JSONResponse:  # noqa: ARG001 - the framework's shape
    return JSONResponse({"status": "ok", "version": VERSION})


@dataclass(frozen=True)
class Opening:
    """What a broker is opened with.

    Args:
        settings: How it was told to be.
        key: Its signing key.
        token: What local sessions prove to know.
        on_fatal: Told when the store has died.
        reach: How other machines reach it, if they do.
        admin_secret: What those have to know who make meshes from another home.
    """

    settings: BrokerSettings
    key: SigningKey
    token: bytes
    on_fatal: Callable[[BaseException], None]
    reach: Reach | None = None
    admin_secret: bytes | None = field(default=None, repr=False)


@asynccontextmanager
async def open_broker(opening: Opening) -> AsyncGenerator[Broker]:
    """Open the data and put the parts together; leaving commits what was begun and closes it.

    Raises:
        MeshError: the data can't be opened; it was not touched.
    """
    settings = opening.settings
    path = settings.data / DATABASE_FILE
    bounds = LaneLimits(waiting=settings.backlog_changes)
    async with await Store.open(path, opening.on_fatal, bounds) as store:
        await store.write(partial(embedded.claim_database, key=opening.key))
        started_ms = now_ms()
        await store.write(
            partial(upkeep.recover, node=NODE, now_ms=started_ms, lease_ms=settings.lease_ms)
        )
        credit = Credit(settings.window_messages, settings.window_bytes)
        parts = Parts(
            store=store,
            roster=Roster(store),
            deliveries=Deliveries(store, LocalBus(), NODE, credit),
            limits=Limits(settings.allowances(), time.monotonic),
            scheduler=Scheduler(store, Clock(now_ms)),
            settings=settings,
            now_ms=now_ms,
            started_ms=started_ms,
            reach=opening.reach,
        )
        Upkeep(parts).register()
        yield Broker(parts, Identity(opening.key, opening.token, NODE, opening.admin_secret))


def now_ms() -> int:
    """Give the wall clock's time."""
    return time.time_ns() // 1_000_000


def announcement(broker: Broker, url: str, pin: bytes = b"") -> Announcement:
    """Give what sessions of this home have to know to find the broker.

    Args:
        broker: The broker.
        url: Where they reach it.
        pin: SHA-256 of the certificate that they meet there, if it speaks TLS.
    """
    identity, parts = broker.identity, broker.parts
    return Announcement(
        url=url,
        data=parts.settings.data,
        started_ms=parts.started_ms,
        key=identity.key,
        token=identity.token or b"",
        pin=pin,
        bind=parts.settings.bind,
    )
