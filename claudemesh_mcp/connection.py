"""The text transport to a broker: a WebSocket in life, a pair of streams in tests.

``attachment.py`` dials; ``client.py`` speaks over whatever it is given. Both ends of a ``Link`` see
whole texts in order, or ``LinkClosed``.
"""

import random
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Final, Protocol

from claudemesh_wire.errors import Unavailable
from claudemesh_wire.frame import MAX_FRAME_BYTES

CONNECT_TIMEOUT_S: Final = 10.0
# Stale at 2.5 intervals: the ping that follows an unanswered one is not waited for in full.
PING_TIMEOUT_IN_INTERVALS: Final = 1.5
SEND_DEADLINE_S: Final = 20.0
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 15.0


class LinkClosed(Exception):
    """The other end is gone; nothing more arrives and nothing can be sent."""


class Link(Protocol):
    """A transport as a function of text."""

    async def send(self, text: str) -> None:
        """Send one text, in order; raises ``LinkClosed``."""
        ...

    async def receive(self) -> str:
        """Give the next text; raises ``LinkClosed`` at the end."""
        ...


@asynccontextmanager
async def websocket(url: str, ping_interval_s: float) -> AsyncGenerator[Link]:
    """Open a WebSocket to a broker and close it behind the block.

    Args:
        url: The broker's address, ``http://HOST:PORT``.
        ping_interval_s: How often the other end is asked whether it lives.

    Raises:
        Unavailable: ``unreachable``: nobody answers there, or not with a WebSocket.
    """
    import anyio
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed, WebSocketException

    class WebSocketLink:
        """The shell around the library's connection."""

        async def send(self, text: str) -> None:
            try:
                with anyio.fail_after(SEND_DEADLINE_S):
                    await socket.send(text)
            except (ConnectionClosed, TimeoutError) as error:
                raise LinkClosed("the connection ended while sending") from error

        async def receive(self) -> str:
            try:
                return await socket.recv(decode=True)
            except ConnectionClosed as error:
                raise LinkClosed("the connection ended") from error

    try:
        socket = await connect(
            url.replace("http", "ws", 1) + "/ws",
            open_timeout=CONNECT_TIMEOUT_S,
            ping_interval=ping_interval_s,
            ping_timeout=ping_interval_s * PING_TIMEOUT_IN_INTERVALS,
            close_timeout=2,
            max_size=MAX_FRAME_BYTES,
            compression=None,
            # A broker on loopback is not asked for through somebody's proxy.
            proxy=None,
        )
    except (OSError, WebSocketException, TimeoutError) as error:
        raise Unavailable(
            f"The broker at {url} does not answer.",
            "Run claudemesh status, and claudemesh up if it is down.",
            code="unreachable",
        ) from error
    try:
        yield WebSocketLink()
    finally:
        with anyio.CancelScope(shield=True):
            await socket.close()


def pauses(random_unit: random.Random | None = None) -> Iterator[float]:
    """Give the seconds to wait before each further attempt: growing, and spread by chance.

    Args:
        random_unit: The source of chance; a seeded one in tests.
    """
    chance = random_unit or random.Random()  # noqa: S311 - it spreads load, it guards nothing
    pause = _FIRST_PAUSE_S
    while True:
        yield pause * (0.5 + chance.random())
        pause = min(pause * 1.8, _LONGEST_PAUSE_S)
