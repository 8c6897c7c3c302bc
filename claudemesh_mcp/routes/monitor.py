"""The monitor that Claude Code keeps running beside a session, by this file's path.

Each line that it prints wakes an idle session. ``ringing.py`` decides when; a fault ends it with 0,
because the client would tell its user of anything else.
"""

from __future__ import annotations

import os
import sys

_OLDEST = (3, 11)


def main() -> int:
    """Run the monitor; gives the exit code."""
    # At the end, so that nothing beside this package hides a module of the standard library.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    from claudemesh_mcp.routes import places, ringing

    where = None
    try:
        environ = places.environment()
        if places.is_off(environ):
            return 0
        where = places.places(environ)
        return ringing.monitor(where, places.caller(environ))
    except BaseException as fault:  # noqa: BLE001 - whatever it is, the user need not hear of it
        if where is not None:
            from claudemesh_mcp.routes.door import note_fault

            note_fault(where, "monitor", fault)
    return 0


if __name__ == "__main__":
    os._exit(main() if sys.version_info >= _OLDEST else 0)
