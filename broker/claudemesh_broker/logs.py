"""The broker's log: lines in a file that rolls over, and on stderr.

``__main__.py`` sets it up. Every request is a line, so that writing one must cost little: a record
is formatted once for both places, and one call hands it to the system.
"""

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
        """Write one record; a full disk costs log lines, never a request."""
        line = self.format(record).encode("utf-8", "backslashreplace")
        with suppress(OSError, ValueError):
            if record.levelno >= self._stderr_level:
                os.write(sys.stderr.fileno(), line)
            if self._size + len(line) > self._max_bytes:
                self._roll()
            self._size += os.write(self._file, line)

    def close(self) -> None:
        """Close the file; lines that come later are lost."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        super().close()

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
