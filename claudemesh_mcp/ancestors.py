"""Finds the client that started this server, past what may stand between them: a shell, `uv run`.

``meeting.py`` names the client by it in the record that hooks look for, and ``resuming.py`` tells
by it whether a session is another client's; ``cli/humans.py`` asks for all processes above. A
client gives its server the id of its session in the environment, and does not have it in its own:
of the processes above, it is the nearest without it. Where environments can't be read, on macOS,
it is the nearest that is called as the client is.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

_PROC: Final = Path("/proc")
_MOST: Final = 16
_NAME: Final = "claude"
_ID: Final = "CLAUDE_CODE_SESSION_ID"
_PARENT_FIELD: Final = 4 - 3
"""Behind the name of the program, which may hold spaces and brackets, the third field comes."""
_ASK_S: Final = 2


class Ancestor(NamedTuple):
    """A process above this one.

    Args:
        parent: Who started it.
        is_between: Whether it stands between the client and this process.
    """

    parent: int
    is_between: bool


Ask = Callable[[int, str], Ancestor | None]
"""Gives what a pid is above the server of a session; none if that can't be told."""


def client_pid(session: str) -> int:
    """Give the process of the client that started this one; its parent, if no better is known.

    Args:
        session: The id of the client's session, as it stands in the environment; or nothing.
    """
    ask = ask_ps if sys.platform == "darwin" else ask_proc
    return find_client(os.getppid(), session, ask)


def find_client(parent: int, session: str, ask: Ask) -> int:
    """Walk up from a server's parent to its client.

    Args:
        parent: The server's parent, which is the client if no other is found.
        session: The id that the client gave it, or nothing.
        ask: Tells of a process.
    """
    pid = parent
    for _ in range(_MOST if session else 0):
        found = ask(pid, session) if pid > 0 else None
        if found is None:
            return parent
        if not found.is_between:
            return pid
        pid = found.parent
    return parent


def above() -> Iterator[int]:
    """Give all processes above this one, the nearest first."""
    parent_of = parent_by_ps if sys.platform == "darwin" else parent_by_proc
    pid, seen = os.getppid(), set[int]()
    while pid > 0 and pid not in seen:
        yield pid
        seen.add(pid)
        try:
            pid = parent_of(pid)
        except (OSError, ValueError, IndexError, subprocess.SubprocessError):
            return


def parent_by_proc(pid: int) -> int:
    """Ask /proc who started a process."""
    stat = (_PROC / str(pid) / "stat").read_bytes()
    return int(stat.rpartition(b")")[2].split()[_PARENT_FIELD])


def parent_by_ps(pid: int) -> int:
    """Ask ``ps`` who started a process."""
    asked = ["/bin/ps", "-o", "ppid=", "-p", str(pid)]
    return int(subprocess.run(asked, capture_output=True, check=True, timeout=_ASK_S).stdout)


def ask_proc(pid: int, session: str) -> Ancestor | None:
    """Ask /proc."""
    try:
        parent = parent_by_proc(pid)
        settings = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except (OSError, ValueError, IndexError):
        return None
    return Ancestor(parent, f"{_ID}={session}".encode("utf-8", "replace") in settings)


def ask_ps(pid: int, _session: str) -> Ancestor | None:
    """Ask ``ps``, which names a process by its path, or by what it calls itself."""
    asked = ["/bin/ps", "-o", "ppid=,comm=", "-p", str(pid)]
    try:
        told = subprocess.run(asked, capture_output=True, check=True, timeout=_ASK_S, text=True)
        parent, _, name = told.stdout.strip().partition(" ")
        return Ancestor(int(parent), Path(name.strip()).name != _NAME)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
