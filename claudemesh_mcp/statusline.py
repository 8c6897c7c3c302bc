"""The status line of Claude Code: the mesh, how many are online, how many messages are unread.

The client runs it by this file's path, or as ``claudemesh statusline``, every few seconds. It asks
nobody: ``glance.py`` in the session's server leaves what it shows. Standard library only; without a
session on the mesh, or whatever goes wrong, it prints nothing and ends with 0.
"""

import os
import sys

_OLDEST = (3, 11)
_MOST_BYTES = 1_000_000


def main() -> int:
    """Print the line, if there is one; gives the exit code."""
    try:
        line = _line(sys.stdin.buffer.read(_MOST_BYTES))
        if line:
            os.write(1, f"{line}\n".encode())
    except BaseException:  # noqa: BLE001, S110 - whatever it is, the user sees an empty line
        pass
    return 0


def _line(told: bytes) -> str:
    from claudemesh_mcp.routes import door, glances, places, records
    from claudemesh_mcp.routes.processes import Living

    environ = places.environment()
    if places.is_off(environ):
        return ""
    data = places.places(environ).data
    record = records.find(data, places.caller(environ).pid)
    if record is None:
        record = records.find_by_session(data, _session(told))
    if record is None or not Living(record.server, 0).is_alive:
        return ""
    glances.ask(data, record.pid)
    seen = glances.read(data, record.pid)
    if seen is None:
        return ""
    from claudemesh_mcp import openrows

    sql = door.open_file(record.file)
    unread = sum(openrows.count_open(sql, door.now_ms()).values()) if sql else 0
    return f"{seen.mesh} · {seen.online} online · {unread} unread"


def _session(told: bytes) -> str:
    import json

    value = json.loads(told).get("session_id")
    return value if isinstance(value, str) else ""


if __name__ == "__main__":
    # At the end, so that nothing beside this package hides a module of the standard library.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120
    # Without the work that an interpreter does at its end: nothing is left to be done.
    os._exit(main() if sys.version_info >= _OLDEST else 0)
