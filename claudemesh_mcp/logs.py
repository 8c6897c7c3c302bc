"""Where a session process logs to: stderr at once, and a file once its home is in use.

``front.py`` sets it up: a client hides the stderr of its servers, so that the file is what a user
finds. All sessions of a home share it; whoever finds it full turns it over.
"""

import itertools
import logging
import os
import sys
import time
from pathlib import Path
from typing import Final

FILE_NAME: Final = "session.log"
MAX_BYTES: Final = 1024 * 1024
KEPT: Final = 3
_FORMAT: Final = "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s[%(process)d] %(message)s"


class SharedFile(logging.FileHandler):
    """A rotating file that several processes write to.

    ``logging.handlers`` has one for a single process, and costs half a megabyte of memory.

    Args:
        path: The file; while its folder does not exist nothing is written.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", delay=True)
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, to the file that bears the name now."""
        try:
            if not self._path.parent.is_dir():
                return
            self._follow()
        except OSError:
            self.handleError(record)
        super().emit(record)

    def _follow(self) -> None:
        """Turn a full file over, and let go of one that another process has turned over."""
        if not self.stream:
            return
        found = self._path.stat() if self._path.exists() else None
        same = found and os.path.samestat(found, os.fstat(self.stream.fileno()))
        if same and found and found.st_size < MAX_BYTES:
            return
        self.stream.close()
        # What `logging` takes for "to be opened at the next record".
        self.stream = None  # type: ignore[assignment]
        if same:
            self._turn_over()

    def _turn_over(self) -> None:
        files = [self._path, *(Path(f"{self._path}.{number}") for number in range(1, KEPT + 1))]
        for newer, older in reversed(list(itertools.pairwise(files))):
            if newer.exists():
                newer.replace(older)


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
