"""Opens a peer's file for a hook or the monitor, and keeps the line that says what went wrong.

``hook.py`` and ``ringing.py`` come through here; the file is never made and never upgraded.
"""

from __future__ import annotations

import os
import sqlite3
import time

from claudemesh_mcp.plain import TYPE_CHECKING, suppress
from claudemesh_mcp.routes.facts import FILE_VERSION, FIRST_FILE_VERSION
from claudemesh_mcp.routes.places import Places
from claudemesh_mcp.routes.processes import FILE_MODE, make_folder

if TYPE_CHECKING:
    from typing import Final

LOG: Final = "routes.log"
_BUSY_S: Final = 0.2
_LOG_BYTES: Final = 1_000_000
_LINE: Final = 400
# Through no link, and to no pipe that would keep the turn until somebody reads it.
_APPEND: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK


def now_ms() -> int:
    """Give the time in ms."""
    return time.time_ns() // 1_000_000


def open_file(path: str) -> sqlite3.Connection | None:
    """Open a peer's file that is there; none if it is of a version that is not known here.

    Raises:
        sqlite3.Error: it is missing, damaged or locked.
        OSError: it can't be reached.
    """
    connection = sqlite3.connect(
        f"file:{_quoted(os.path.abspath(path))}?mode=rw",
        uri=True,
        timeout=_BUSY_S,
        isolation_level=None,
    )
    try:
        connection.row_factory = sqlite3.Row
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if not FIRST_FILE_VERSION <= version <= FILE_VERSION:
            connection.close()
            return None
        # What is noted here keeps a message from being shown twice, also over a power cut.
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def _quoted(path: str) -> str:
    # The three signs that mean something in such an address; urllib would cost a tenth of a hook.
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


class change:  # noqa: N801 - read behind `with`
    """Make one change, whole or not at all, with nobody else writing meanwhile.

    Args:
        sql: The peer file.
    """

    def __init__(self, sql: sqlite3.Connection) -> None:
        self._sql = sql

    def __enter__(self) -> None:
        """Begin."""
        self._sql.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Commit it, or take it back."""
        if kind is None:
            self._sql.execute("COMMIT")
            return
        with suppress(sqlite3.Error):
            self._sql.execute("ROLLBACK")


def note_fault(where: Places, what: str, fault: BaseException | str) -> None:
    """Keep one line about a fault, as far as the disk lets one."""
    said = fault if isinstance(fault, str) else f"{type(fault).__name__}: {fault}"
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    line = f"{at} {what}: {said}".replace("\n", " ")[:_LINE]
    with suppress(OSError):
        make_folder(where.logs)
        path = os.path.join(where.logs, LOG)
        with suppress(FileNotFoundError):
            if os.stat(path).st_size > _LOG_BYTES:
                os.replace(path, f"{path}.1")
        handle = os.open(path, _APPEND, FILE_MODE)
        with open(handle, "w", encoding="utf-8", errors="replace") as file:
            file.write(f"{line}\n")
