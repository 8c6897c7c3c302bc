"""Says where the home is and who started this process, by the environment and nothing else.

``hook.py`` and ``monitor.py`` ask it first; ``records.py`` makes paths of the home. It says what
``config.Paths.of`` says, without the library that this one asks.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from claudemesh_mcp.plain import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Final

_APP: Final = "claudemesh"
_INTERACTIVE: Final = "cli"

Folder = str | os.PathLike[str]


class Places(NamedTuple):
    """Where one user's state is.

    Args:
        data: The home: sessions, run and keys are in it.
        logs: The folder of the log files.
    """

    data: str
    logs: str


class Caller(NamedTuple):
    """The client that started this process, as the environment tells it.

    Args:
        pid: Its process; 0 if that is not told.
        session: The id of its session, when this process was started.
        is_attended: Whether somebody sits at it: it is no run of ``claude -p``.
    """

    pid: int
    session: str
    is_attended: bool


def environment() -> Mapping[str, str]:
    """Give the environment of this process."""
    return os.environ


def places(environ: Mapping[str, str], platform: str = sys.platform) -> Places:
    """Say where this user's state lives; nothing is made.

    Args:
        environ: The environment.
        platform: As ``sys.platform`` names it.
    """
    if home := environ.get("CLAUDEMESH_HOME"):
        root = os.path.realpath(os.path.expanduser(home))
        return Places(root, os.path.join(root, "logs"))
    data, logs = _on_a_mac(environ) if platform == "darwin" else _elsewhere(environ)
    return Places(os.path.realpath(data), os.path.realpath(logs))


def caller(environ: Mapping[str, str]) -> Caller:
    """Say which client started this process."""
    told = environ.get("CLAUDE_PID", "")
    return Caller(
        int(told) if told.isascii() and told.isdigit() else 0,
        environ.get("CLAUDE_CODE_SESSION_ID", ""),
        environ.get("CLAUDE_CODE_ENTRYPOINT", _INTERACTIVE) == _INTERACTIVE
        and environ.get("CLAUDE_CODE_SESSION_ATTENDED", "1") != "0",
    )


def is_off(environ: Mapping[str, str]) -> bool:
    """Tell whether claudemesh is switched off here."""
    return environ.get("CLAUDEMESH", "").lower() in {"off", "false", "no", "0"}


def _on_a_mac(environ: Mapping[str, str]) -> tuple[str, str]:
    library = os.path.join(_user(environ), "Library")
    data = _xdg(environ, "XDG_DATA_HOME") or os.path.join(library, "Application Support")
    return os.path.join(data, _APP), os.path.join(library, "Logs", _APP)


def _elsewhere(environ: Mapping[str, str]) -> tuple[str, str]:
    local = os.path.join(_user(environ), ".local")
    data = _xdg(environ, "XDG_DATA_HOME") or os.path.join(local, "share")
    state = _xdg(environ, "XDG_STATE_HOME") or os.path.join(local, "state")
    return os.path.join(data, _APP), os.path.join(state, _APP, "log")


def _xdg(environ: Mapping[str, str], name: str) -> str:
    # A relative one says nothing: the specification has it ignored.
    path = environ.get(name, "")
    return path if os.path.isabs(path) else ""


def _user(environ: Mapping[str, str]) -> str:
    home = environ.get("HOME", "")
    if os.path.isabs(home):
        return home
    import pwd

    return pwd.getpwuid(os.getuid()).pw_dir
