"""The status line of Claude Code: the mesh, how many are online, how many messages are unread.

The client runs it by this file's path, or as ``claudemesh statusline``, every few seconds. It asks
nobody and opens no database: ``glance.py`` in the session's server leaves the line in a file, while
this program says that somebody looks. Without a session on the mesh, or whatever goes wrong, it
prints nothing and ends with 0.

It imports nothing but ``os`` and ``sys``, which are there before any program: what the hooks share,
``routes/``, takes three times as long as all of this. So where the home is stands here once more,
and a test compares it with ``routes/places.py``.
"""

import os
import sys

FRESH_S = 60
"""A line of this age says nothing any more: its server hangs, or was stopped."""
_MOST_BYTES = 4096
_INPUT_BYTES = 65_536
_OFF = ("off", "false", "no", "0")


def main() -> int:
    """Print the line, if there is one; gives the exit code."""
    try:
        # What the client tells is not needed, but it is not to find a closed pipe.
        while not os.isatty(0) and os.read(0, _INPUT_BYTES):
            pass
        line = find_line(dict(os.environ))
        if line:
            os.write(1, line)
    except BaseException:  # noqa: BLE001, S110 - whatever it is, the user sees an empty line
        pass
    return 0


def find_line(environ: dict[str, str]) -> bytes:
    """Give the line that was left for this client; nothing if there is none that is true.

    Args:
        environ: The environment.
    """
    pid = environ.get("CLAUDE_PID", "")
    if environ.get("CLAUDEMESH", "").lower() in _OFF or not (pid.isascii() and pid.isdigit()):
        return b""
    clients = os.path.join(home(environ), "run", "clients")
    _say_that_somebody_looks(os.path.join(clients, f"{pid}.looked"))
    handle = os.open(os.path.join(clients, f"{pid}.glance"), os.O_RDONLY)
    now = os.stat(os.path.join(clients, f"{pid}.looked")).st_mtime
    if now - os.fstat(handle).st_mtime > FRESH_S:
        return b""
    server, _, line = os.read(handle, _MOST_BYTES).partition(b"\n")
    os.kill(int(server), 0)
    return line


def home(environ: dict[str, str], platform: str = sys.platform) -> str:
    """Say where this user's state lives.

    Args:
        environ: The environment.
        platform: As ``sys.platform`` names it.
    """
    if told := environ.get("CLAUDEMESH_HOME"):
        return os.path.realpath(os.path.expanduser(told))
    moved = environ.get("XDG_DATA_HOME", "")
    if not os.path.isabs(moved):
        user = environ.get("HOME", "")
        parts = ("Library", "Application Support") if platform == "darwin" else (".local", "share")
        moved = os.path.join(user if os.path.isabs(user) else os.path.expanduser("~"), *parts)
    return os.path.realpath(os.path.join(moved, "claudemesh"))


def _say_that_somebody_looks(path: str) -> None:
    """Touch a file; only where a server has made the folder."""
    try:
        os.utime(path)
    except FileNotFoundError:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))


if __name__ == "__main__":
    # Without the work that an interpreter does at its end: nothing is left to be done.
    os._exit(main())
