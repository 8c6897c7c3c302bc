"""What the status line shows of a session's mesh: one line in a small file, left by the server.

The server leaves it only while somebody looks: ``statusline.py`` touches a file, ``glance.py`` in
the server sees that. Neither touches the peer's file, whose every change wakes hooks and monitor.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

from claudemesh_mcp.plain import TYPE_CHECKING
from claudemesh_mcp.routes.places import Folder
from claudemesh_mcp.routes.processes import replace_file
from claudemesh_mcp.routes.records import place

if TYPE_CHECKING:
    from typing import Final

FRESH_S: Final = 60
_LOOKED: Final = "looked"
_GLANCE: Final = "glance"


def is_asked(data: Folder, pid: int) -> bool:
    """Tell whether somebody has looked at a client's status line lately."""
    try:
        return time.time() - os.stat(place(data, pid, _LOOKED)).st_mtime < FRESH_S
    except OSError:
        return False


def leave(data: Folder, pid: int, line: str) -> None:
    """Leave what is to be shown, as long as this process lives.

    Raises:
        OSError: the disk refuses.
    """
    replace_file(place(data, pid, _GLANCE), f"{os.getpid()}\n{line}\n".encode())


def withdraw(data: Folder, pid: int) -> None:
    """Have nothing shown."""
    with suppress(OSError):
        os.unlink(place(data, pid, _GLANCE))
