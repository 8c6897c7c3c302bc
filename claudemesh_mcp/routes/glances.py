"""What the status line shows of a session's mesh: left in a small file by the session's server.

The server asks its broker only while somebody looks: ``statusline.py`` says so by ``ask``, and
``glance.py`` in the server sees that and leaves a ``Glance``. Neither touches the peer's file,
whose every change is looked at by hooks and monitor.
"""

import json
import os
import time
from contextlib import suppress
from typing import Any, Final, NamedTuple

from claudemesh_mcp.routes.places import Folder
from claudemesh_mcp.routes.processes import FILE_MODE, replace_file
from claudemesh_mcp.routes.records import place

FRESH_S: Final = 60
"""A glance of this age says nothing any more: its server hangs, or was stopped."""
_MOST_BYTES: Final = 4096
_LOOKED: Final = "looked"
_GLANCE: Final = "glance"


class Glance(NamedTuple):
    """What is to be shown.

    Args:
        mesh: What the home calls the mesh.
        online: How many peers are there.
    """

    mesh: str
    online: int


def ask(data: Folder, pid: int) -> None:
    """Say that somebody looks at a client's status line."""
    path = place(data, pid, _LOOKED)
    try:
        os.utime(path)
    except OSError:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, FILE_MODE))


def is_asked(data: Folder, pid: int) -> bool:
    """Tell whether somebody has looked at it lately."""
    return _age_s(place(data, pid, _LOOKED)) < FRESH_S


def leave(data: Folder, pid: int, glance: Glance) -> None:
    """Leave what is to be shown.

    Raises:
        OSError: the disk refuses.
    """
    replace_file(place(data, pid, _GLANCE), json.dumps(glance._asdict()).encode())


def withdraw(data: Folder, pid: int) -> None:
    """Have nothing shown."""
    with suppress(OSError):
        os.unlink(place(data, pid, _GLANCE))


def read(data: Folder, pid: int) -> Glance | None:
    """Give what is to be shown; none if there is nothing that is fresh."""
    path = place(data, pid, _GLANCE)
    if _age_s(path) > FRESH_S:
        return None
    try:
        with open(path, "rb") as file:
            told: Any = json.loads(file.read(_MOST_BYTES))
        return Glance(str(told["mesh"]), int(told["online"]))
    except (OSError, ValueError, TypeError, LookupError):
        return None


def _age_s(path: str) -> float:
    try:
        return time.time() - os.stat(path).st_mtime
    except OSError:
        return float("inf")
