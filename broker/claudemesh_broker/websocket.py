"""The shell around a session: one WebSocket of the server as a link of texts.

``app.py`` mounts it under ``/ws``; it hands each accepted connection to a ``Session``. Text frames
only. Size limit, pings and their deadline are the server's, which ``server.py`` sets up.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any, Final

import anyio

from claudemesh_broker.admission import Origin
from claudemesh_broker.config import BrokerSettings
from claudemesh_broker.crowd import Crowd
from claudemesh_broker.outgoing import Link, LinkClosed

WS_UNSUPPORTED: Final = 1003
WS_TRY_LATER: Final = 1013
CLOSE_S: Final = 2.0
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Serve = Callable[[Link, Origin], Awaitable[None]]
OriginOf = Callable[[Scope], Origin]


class WebSocketLink:
    """An accepted WebSocket.

    Args:
        receive: The server's, for this connection.
        send: The server's, for this connection.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send

    async def send(self, text: str) -> None:
        """Write one frame; waits while the socket takes no more.

        Raises:
            LinkClosed: the connection is gone.
        """
        try:
            await self._send({"type": "websocket.send", "text": text})
        except (OSError, RuntimeError) as error:
            raise LinkClosed from error

    async def receive(self) -> str:
        """Wait for one frame.

        Raises:
            LinkClosed: the connection is gone, or was closed for a binary frame.
        """
        message = await self._receive()
        if message["type"] != "websocket.receive":
            raise LinkClosed
        text = message.get("text")
        if text is None:
            await self.close(WS_UNSUPPORTED, "text frames only")
            raise LinkClosed
        return text

    async def close(self, code: int, reason: str) -> None:
        """Close the connection, as far as a reader that takes nothing lets it be closed."""
        with anyio.move_on_after(CLOSE_S), suppress(OSError, RuntimeError):
            await self._send({"type": "websocket.close", "code": code, "reason": reason})


class WebSocketDoor:
    """The endpoint that accepts WebSockets, as many at once as the settings allow.

    Args:
        serve: Serves one connection to its end.
        origin_of: Says where a connection comes from.
        settings: How many there may be, of all and of one address.
    """

    def __init__(self, serve: Serve, origin_of: OriginOf, settings: BrokerSettings) -> None:
        self._serve = serve
        self._origin_of = origin_of
        self._most = settings.connections
        self._crowd = Crowd(settings.connections_per_address)
        self.open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Accept one connection and see it to its end."""
        await receive()
        await send({"type": "websocket.accept"})
        link = WebSocketLink(receive, send)
        origin = self._origin_of(scope)
        # Who is turned away is not counted: to say so to a reader that takes nothing takes seconds.
        if self.open >= self._most or not self._crowd.enter(origin.place):
            await link.close(WS_TRY_LATER, "too_many_connections")
            return
        self.open += 1
        try:
            await self._serve(link, origin)
        finally:
            self.open -= 1
            self._crowd.leave(origin.place)
