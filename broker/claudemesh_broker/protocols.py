"""The server's HTTP and WebSocket, made to hang up on whoever keeps a connection for nothing.

``server.py`` gives them to the server. Whoever is no session yet could otherwise hold connections
for as long as it likes, and keep others out: nothing here asks who it is.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar, Final

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState

from claudemesh_broker.config import BrokerSettings
from claudemesh_broker.crowd import Crowd
from claudemesh_broker.gate import Guard

SPARE: Final = 64
"""Connections beyond those that may be sessions: for them to be told so, and for signs of life."""

SPARE_EACH: Final = 8
"""As many of them are one address's at most."""

LINGER_S: Final = 15.0
"""How long what was written last may take, once nobody writes or reads there any more."""


@dataclass(frozen=True)
class _House:
    """What the connections of one server have in common.

    Args:
        patience_s: How long one that is no session may take to say anything.
        most: How many there may be.
        guard: Knows whose connections are counted.
        crowd: Counts them.
    """

    patience_s: float
    most: int
    guard: Guard
    crowd: Crowd

    def place_of(self, connection: H11Protocol | WebSocketsSansIOProtocol) -> str:
        """Give the place that a connection counts for, empty if for none."""
        client, server = connection.client, connection.server
        return self.guard.counted_as(client[0] if client else "", server[0] if server else "")


class _Http(H11Protocol):
    house: ClassVar[_House]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._is_counted = self.house.crowd.enter(self.house.place_of(self))
        self._patience = self._begin_to_wait()
        if not self._is_counted or len(self.connections) > self.house.most:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._patience.cancel()
        if self._is_counted:
            self.house.crowd.leave(self.house.place_of(self))
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        # Anew with each answer, and with nothing else: the original's own timer, for those who are
        # silent after an answer, ends at the first byte of a request that never comes.
        self._patience.cancel()
        self._patience = self._begin_to_wait()
        super().on_response_complete()

    def _begin_to_wait(self) -> asyncio.TimerHandle:
        return self.loop.call_later(self.house.patience_s, self._look_at_it)

    def _look_at_it(self) -> None:
        # A connection that has become a WebSocket is the session's, which has a limit too.
        if self in self.connections:
            self.transport.abort()


class _WebSocket(WebSocketsSansIOProtocol):
    house: ClassVar[_House]

    def connection_lost(self, exc: Exception | None) -> None:
        self.house.crowd.leave(self.house.place_of(self))
        super().connection_lost(exc)

    async def run_asgi(self) -> None:
        await super().run_asgi()
        self._hang_up()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self._hang_up()

    def shutdown(self) -> None:
        # The original says goodbye to whoever has said so itself, which is an error, and then the
        # server would end by that.
        with suppress(InvalidState):
            super().shutdown()
        self.transport.close()

    def _hang_up(self) -> None:
        # The original closes, and that waits for the other end to read what was written.
        self.loop.call_later(LINGER_S, self.transport.abort)


def protocols(settings: BrokerSettings, guard: Guard) -> tuple[type[_Http], type[_WebSocket]]:
    """Give the two protocols of a server.

    Args:
        settings: How many connections there may be, and how long one may take to say anything.
        guard: Knows whose connections are counted.
    """
    crowd = Crowd(settings.connections_per_address + SPARE_EACH)
    common = _House(settings.auth_timeout_s, settings.connections + SPARE, guard, crowd)

    class Http(_Http):
        house = common

    class WebSocket(_WebSocket):
        house = common

    return Http, WebSocket
