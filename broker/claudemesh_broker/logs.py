"""The broker's log: lines in a file that rolls over, and on stderr.

``__main__.py`` sets it up. Every request is a line, so that writing one must cost little: a record
is formatted once for both places, and what one turn of the event loop logs is written in one call.
Each call lets go of the interpreter's lock, and having it back can take milliseconds.
"""

import asyncio
import logging
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 4 * 1024 * 1024
KEPT: Final = 2
_MODE: Final = 0o600


class LogLines(logging.Handler):
    """Writes records as lines.

    Args:
        path: The file; full ones are kept beside it as ``.1`` and ``.2``.
        stderr_level: From which level on records go to stderr as well.
        max_bytes: How large the file gets.
    """

    def __init__(self, path: Path, stderr_level: int, max_bytes: int = MAX_BYTES) -> None:
        super().__init__()
        self._path = path
        self._stderr_level = stderr_level
        self._max_bytes = max_bytes
        self._second = -1
        self._shown_second = ""
        self._to_file: list[str] = []
        self._to_stderr: list[str] = []
        self._is_due = False
        self._open()

    def format(self, record: logging.LogRecord) -> str:
        """Give time, level, logger, message and, if there is one, the traceback."""
        second = int(record.created)
        if second != self._second:
            self._second = second
            self._shown_second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        line = (
            f"{self._shown_second}.{int(record.msecs):03d}Z {record.levelname}"
            f" {record.name} {record.getMessage()}\n"
        )
        if record.exc_info:
            line += logging.Formatter().formatException(record.exc_info) + "\n"
        return line

    def emit(self, record: logging.LogRecord) -> None:
        """Take one record; it is written at the end of the loop's turn, or now if it is bad."""
        line = self.format(record)
        self._to_file.append(line)
        if record.levelno >= self._stderr_level:
            self._to_stderr.append(line)
        if record.levelno >= logging.WARNING or not self._is_flushed_later():
            self.flush()

    def flush(self) -> None:
        """Write what has gathered; a full disk costs log lines, never a request."""
        if self.lock is None:
            return
        with self.lock, suppress(OSError, ValueError):
            to_file, self._to_file = self._to_file, []
            to_stderr, self._to_stderr = self._to_stderr, []
            self._is_due = False
            if to_stderr:
                os.write(sys.stderr.fileno(), _encoded(to_stderr))
            if to_file and self._file >= 0:
                self._write(_encoded(to_file))

    def _is_flushed_later(self) -> bool:
        """Tell whether the event loop of this thread flushes, and see to it."""
        if not self._is_due:
            try:
                asyncio.get_running_loop().call_soon(self.flush)
            except RuntimeError:
                return False
            self._is_due = True
        return True

    def close(self) -> None:
        """Write what has gathered and close the file; lines that come later are lost."""
        self.flush()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        super().close()

    def _write(self, data: bytes) -> None:
        if self._size + len(data) > self._max_bytes:
            self._roll()
        self._size += os.write(self._file, data)

    def _open(self) -> None:
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, _MODE)
        self._size = os.fstat(self._file).st_size

    def _roll(self) -> None:
        os.close(self._file)
        for number in range(KEPT - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        self._path.replace(self._numbered(1))
        self._open()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def _encoded(lines: list[str]) -> bytes:
    return "".join(lines).encode("utf-8", "backslashreplace")
