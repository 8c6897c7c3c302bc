"""What waits to be written to one connection: answers and notices first, then what its feed gives.

``session.py`` and ``delivery.py`` put texts in; one task of the session writes them to the link.
A reader that takes too long, or lets too much gather, is told so and closed.
"""

import asyncio
from collections import deque
from typing import Final, Protocol

import anyio

from claudemesh_broker.delivery import Feed
from claudemesh_wire import frame
from claudemesh_wire.handshake import Closing

SLOW_READER: Final = "slow_reader"
MAX_TEXTS: Final = 8192
MAX_CHARACTERS: Final = 16 * 1024 * 1024
ROOM_CHARACTERS: Final = 1024 * 1024
"""With less than this there is room for what can wait elsewhere."""


class LinkClosed(Exception):
    """The other side is gone, or the connection broke."""


class Link(Protocol):
    """A transport as the session sees it: functions of text."""

    async def send(self, text: str) -> None:
        """Write one frame; raises LinkClosed."""
        ...

    async def receive(self) -> str:
        """Wait for one frame; raises LinkClosed."""
        ...

    async def close(self, code: int, reason: str) -> None:
        """Close the connection; harmless when it is closed."""
        ...


class Outgoing:
    """The one queue in front of a link.

    Args:
        link: Where the texts go.
        deadline_s: How long its reader may take for one of them.
    """

    def __init__(self, link: Link, deadline_s: float) -> None:
        self._link = link
        self._deadline_s = deadline_s
        self._texts: deque[str] = deque()
        self._size = 0
        self._awake = asyncio.Event()
        self._drained = asyncio.Event()
        self._closing: Closing | None = None
        self._abandoned = False
        self.feed: Feed | None = None

    @property
    def closing(self) -> Closing | None:
        """Why the broker closes the connection, if it does."""
        return self._closing

    def put(self, text: str) -> None:
        """Queue a text behind the others."""
        if self._closing is not None:
            return
        self._texts.append(text)
        self._size += len(text)
        if len(self._texts) > MAX_TEXTS or self._size > MAX_CHARACTERS:
            self._texts.clear()
            self._size = 0
            self.end(Closing(code=SLOW_READER, reason="Too much waits for this reader."))
        self.wake()

    def wake(self) -> None:
        """Let the writer look for more."""
        self._awake.set()
        if self._size < ROOM_CHARACTERS or self._closing or self._abandoned:
            self._drained.set()

    async def room(self) -> None:
        """Wait until little waits here, or nothing will be written any more."""
        while self._size >= ROOM_CHARACTERS and not (self._closing or self._abandoned):
            self._drained.clear()
            await self._drained.wait()

    def end(self, closing: Closing) -> None:
        """Write what waits and this, then nothing more."""
        if self._closing is None:
            self._texts.append(frame.encode(0, 0, closing))
            self._closing = closing
            self.wake()

    def abandon(self) -> None:
        """Write nothing more: the other side is gone."""
        self._abandoned = True
        self.wake()

    async def write(self) -> None:
        """Write texts as they come, until the connection is to be closed or breaks."""
        loop = asyncio.get_running_loop()
        with anyio.CancelScope() as scope:
            while (text := await self._next()) is not None:
                # A bare timer: a scope for each text would cost more than writing it.
                timer = loop.call_later(self._deadline_s, scope.cancel)
                try:
                    await self._link.send(text)
                except LinkClosed:
                    return
                finally:
                    timer.cancel()
        if scope.cancelled_caught:
            self._closing = Closing(code=SLOW_READER, reason="This reader takes too long.")

    async def _next(self) -> str | None:
        """Wait for the next text; ``None`` when there will be none."""
        while True:
            if self._abandoned:
                return None
            text = self._take()
            if text is not None or self._closing is not None:
                return text
            self._awake.clear()
            await self._awake.wait()

    def _take(self) -> str | None:
        if self._texts:
            text = self._texts.popleft()
            self._size -= len(text)
            if self._size < ROOM_CHARACTERS:
                self._drained.set()
            return text
        if self.feed is not None and self._closing is None:
            return self.feed.take()
        return None
