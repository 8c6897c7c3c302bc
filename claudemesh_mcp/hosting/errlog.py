"""What a server writes to stderr: the last lines for an error, all of it to a rotating file.

``backend.py`` gives a started server the writing end of a pipe and reads the other one here.
"""

import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import anyio

MAX_BYTES: Final = 1024 * 1024
KEPT: Final = 2
"""So many full files are kept beside the one that is written."""
LAST_LINES: Final = 20
_LONGEST_SHOWN: Final = 500
_LAST_WORDS_S: Final = 0.5
_CHUNK_BYTES: Final = 64 * 1024
_FOLDER_MODE: Final = 0o700
_FILE_MODE: Final = 0o600


class ErrorLog:
    """The stderr of one server.

    A pipe stands between, because a file can't be turned over under a process that has it open.

    Args:
        path: Where to write it; ``None`` keeps the last lines only.
        max_bytes: A file of this size is turned over.
        hide: Takes out of a text what nobody may read; it is given whole lines.
    """

    def __init__(
        self,
        path: Path | None,
        max_bytes: int = MAX_BYTES,
        hide: Callable[[str], str] = str,
    ) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._hide = hide
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        self._rest = b""
        self._ended = anyio.Event()
        self._reading: anyio.CancelScope | None = None

    async def follow(self, readable: int) -> None:
        """Read this end of a pipe until every writer has closed it, and close it.

        A cancellation does not reach it: a server may have last words while it is stopped, and
        must not fail at them. ``finish`` ends it.
        """
        os.set_blocking(readable, False)
        try:
            with anyio.CancelScope(shield=True) as self._reading:
                await self._read(readable)
        finally:
            os.close(readable)
            self._keep(self._rest)
            self._rest = b""
            self._ended.set()

    async def _read(self, readable: int) -> None:
        while True:
            await anyio.wait_readable(readable)
            data = os.read(readable, _CHUNK_BYTES)
            if not data:
                return
            self.take(data)

    async def settle(self) -> None:
        """Wait a moment for the last words of a server that has ended."""
        if self._reading is not None:
            with anyio.move_on_after(_LAST_WORDS_S):
                await self._ended.wait()

    async def finish(self) -> None:
        """Stop reading, after a moment for the last words; a grandchild may go on writing."""
        if self._reading is not None:
            with anyio.CancelScope(shield=True):
                await self.settle()
            self._reading.cancel()

    def take(self, data: bytes) -> None:
        """Keep what was written: each line once it is whole, or too long to wait for its end."""
        said = self._rest + data
        end = said.rfind(b"\n") + 1
        if len(said) - end > _CHUNK_BYTES:
            end = len(said)
        self._rest = said[end:]
        self._keep(said[:end])

    def _keep(self, data: bytes) -> None:
        if not data:
            return
        # What is no text goes through as it is.
        shown = self._hide(data.decode("utf-8", "surrogateescape")).encode(
            "utf-8", "surrogateescape"
        )
        self._lines.extend(_shown(line) for line in shown.split(b"\n") if line.strip())
        # A full disk must not end the server whose errors can't be kept.
        with suppress(OSError):
            self._write(shown)

    def last(self) -> str:
        """Give the last lines."""
        rest = [self._hide(_shown(self._rest))] if self._rest.strip() else []
        return "\n".join([*self._lines, *rest][-LAST_LINES:])

    def _write(self, data: bytes) -> None:
        path = self._path
        if path is None:
            return
        path.parent.mkdir(_FOLDER_MODE, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        written = os.open(path, flags, _FILE_MODE)
        try:
            os.write(written, data)
            is_full = os.fstat(written).st_size >= self._max_bytes
        finally:
            os.close(written)
        if is_full:
            self._turn_over(path)

    @staticmethod
    def _turn_over(path: Path) -> None:
        for number in range(KEPT, 0, -1):
            newer = path.with_name(f"{path.name}.{number - 1}") if number > 1 else path
            if newer.exists():
                newer.replace(path.with_name(f"{path.name}.{number}"))


def _shown(line: bytes) -> str:
    return line.decode(errors="replace").rstrip()[:_LONGEST_SHOWN]
