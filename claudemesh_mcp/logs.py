"""Where a session process logs to: stderr at once, and a file once its home is in use.

``front.py`` sets it up: a client hides the stderr of its servers, so that the file is what a user
finds. All sessions of a home share it; whoever finds it full turns it over.
"""

import logging
import logging.handlers
import os
import sys
import time
from pathlib import Path
from typing import Final

FILE_NAME: Final = "session.log"
MAX_BYTES: Final = 1024 * 1024
KEPT: Final = 3
_FORMAT: Final = "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s[%(process)d] %(message)s"


class SharedFile(logging.handlers.RotatingFileHandler):
    """A rotating file that several processes write to.

    Args:
        path: The file; while its folder does not exist nothing is written.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=MAX_BYTES, backupCount=KEPT, encoding="utf-8", delay=True)
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, to the file that bears the name now."""
        if self._path.parent.is_dir():
            self._follow()
            super().emit(record)

    def _follow(self) -> None:
        """Let go of a file that another process has turned over."""
        if not self.stream:
            return
        try:
            same = os.path.samestat(self._path.stat(), os.fstat(self.stream.fileno()))
        except OSError:
            same = False
        if not same:
            self.stream.close()
            self.stream = None  # type: ignore[assignment] - the base class opens it again


def log_to_stderr(level: str) -> None:
    """Log what this package says to stderr, from this level on."""
    logger = logging.getLogger(__package__)
    logger.setLevel(level.upper())
    if sys.stderr:
        logger.addHandler(_formatted(logging.StreamHandler(sys.stderr)))


def log_to_file(folder: Path) -> None:
    """Log to the file of this home too."""
    logging.getLogger(__package__).addHandler(_formatted(SharedFile(folder / FILE_NAME)))


def _formatted(handler: logging.Handler) -> logging.Handler:
    formatter = logging.Formatter(_FORMAT, "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    return handler
