"""What one process that served a client leaves to the next: the plugin's front to the server.

The front in ``plugin/waiting.py`` writes it and then becomes the server, whose ``stdio.py`` reads
it. The client notices nothing: it has its answer to `initialize`, and no other comes.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from claudemesh_mcp.streams import Reader, Writer

_MODE: Final = 0o600


@dataclass(frozen=True)
class Handover:
    """What a client had said when the server took over.

    Args:
        said: Its `initialize` and what else the server must know, and what was not read to its end.
        is_greeted: Whether its `initialize` has been answered.
    """

    said: bytes
    is_greeted: bool


def write(file: Path, said: Iterable[bytes], unread: bytes) -> None:
    """Leave it to the server.

    Args:
        file: Where; only this user can read it.
        said: The lines that the server has to know; `initialize`, which was answered, is the first.
        unread: The beginning of a line that has not come to its end.
    """
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _MODE)
    with os.fdopen(handle, "wb") as opened:
        # An empty line says that there was no `initialize` yet.
        opened.write(b"\n".join(said) + b"\n" + unread)


def take(file: Path) -> Handover:
    """Take over, once.

    Raises:
        OSError: there is nothing to take.
    """
    said = file.read_bytes()
    with suppress(OSError):
        file.unlink()
    return Handover(said, is_greeted=not said.startswith(b"\n"))


class Continued:
    """A client's stream that begins with what it said before.

    Args:
        reader: What comes from here on.
        handover: What came before.
    """

    def __init__(self, reader: Reader, handover: Handover) -> None:
        self._reader = reader
        self._before = handover.said
        self._length = len(handover.said)

    async def read(self) -> bytes:
        """Wait for bytes; none means the end."""
        if self._before:
            before, self._before = self._before, b""
            return before
        return await self._reader.read()

    def received(self) -> int:
        """Count the bytes that have arrived, those of before too."""
        return self._length + self._reader.received()


class Unrepeated:
    """A client's other stream, which leaves out the answer to `initialize` that it has already.

    Args:
        writer: Where the rest goes.
        received: Counts what has come from the client.
    """

    def __init__(self, writer: Writer, received: Reader) -> None:
        self._writer = writer
        self._received = received
        self._is_first = True

    async def write(self, data: bytes) -> int:
        """Write a line, except the first; give what had been received when it went out."""
        if self._is_first:
            self._is_first = False
            return self._received.received()
        return await self._writer.write(data)
