"""The two byte streams of a client, and the one task that writes to it.

``stdio.py`` and the tests give a ``Reader`` and a ``Writer``; ``server.py`` hands every line to a
``Sender``, which writes them whole, one after the other.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Protocol

MAX_UNWRITTEN: Final = 256
MAX_UNWRITTEN_BYTES: Final = 16 * 1024 * 1024

Then = Callable[[int], None]
"""Told, once a line is written, how many of the client's bytes had come by then."""


class Reader(Protocol):
    """Where a client's bytes come from."""

    async def read(self) -> bytes:
        """Wait for bytes; none means the end.

        Raises:
            OSError: the stream broke.
        """
        ...

    def received(self) -> int:
        """Count the bytes that have arrived since the beginning, read or not."""
        ...


class Writer(Protocol):
    """Where a client's bytes go."""

    async def write(self, data: bytes) -> int:
        """Write all of it.

        Returns:
            What ``Reader.received`` was at the moment the operating system had all of it.

        Raises:
            OSError: nobody reads any more.
        """
        ...


class Sender:
    """Lines on their way to a client.

    Args:
        writer: Where they go; used by ``run`` alone.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._lines: deque[tuple[bytes, tuple[Then, ...]]] = deque()
        self._more = asyncio.Event()
        self._less = asyncio.Event()
        self._bytes = 0
        self._ending = False

    def send(self, line: bytes, then: Iterable[Then] = ()) -> None:
        """Queue a line, and what to do once it has been written."""
        self._lines.append((line, tuple(then)))
        self._bytes += len(line)
        self._more.set()

    @property
    def is_full(self) -> bool:
        """Whether the client is far behind with its reading."""
        return len(self._lines) > MAX_UNWRITTEN or self._bytes > MAX_UNWRITTEN_BYTES

    async def room(self) -> None:
        """Wait until a client that does not read has read some."""
        while self.is_full:
            self._less.clear()
            await self._less.wait()

    def end(self) -> None:
        """Let ``run`` return when all lines are written."""
        self._ending = True
        self._more.set()

    async def run(self) -> None:
        """Write what is queued, until ``end``.

        Raises:
            OSError: nobody reads any more.
        """
        while True:
            while self._lines:
                line, then = self._lines.popleft()
                received = await self._writer.write(line)
                self._bytes -= len(line)
                for act in then:
                    act(received)
                self._less.set()
            if self._ending:
                return
            self._more.clear()
            await self._more.wait()
