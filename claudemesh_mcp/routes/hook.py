"""The hook of every event, which Claude Code runs by this file's path: ``hook.py Stop``.

``looking.py`` makes the look at the inbox; ``hook.py rewake`` waits for a bell, by ``ringing.py``.
Whatever goes wrong costs no more than this one look: it ends with 0 and prints nothing, because a
hook that fails would be shown to the user, or stop the turn.
"""

import gc
import os
import sys

SHARED = "shared"
"""Said behind ``rewake`` by a line for many machines: a bell then ends it with ``RUNG_SHARED``."""
RUNG_SHARED = 86
_REWAKE = "rewake"
_OLDEST = (3, 11)


def main(words: list[str]) -> int:
    """Run the hook of an event; gives the exit code.

    Args:
        words: The event, or ``rewake``.
    """
    # At the end, so that nothing beside this package hides a module of the standard library.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    from claudemesh_mcp.routes import places

    where = None
    try:
        environ = places.environment()
        where = places.places(environ)
        if places.is_off(environ) or not words:
            return 0
        if words[0] == _REWAKE:
            from claudemesh_mcp.routes import ringing

            rung = ringing.rewake(where, places.caller(environ))
            return RUNG_SHARED if rung and words[1:] == [SHARED] else rung
        # One look leaves nothing lying that is worth a search.
        gc.disable()
        from claudemesh_mcp.routes import looking

        looking.look(words[0], where, places.caller(environ), sys.stdin.buffer.read())
    except BaseException as fault:  # noqa: BLE001 - whatever it is, the user's turn goes on
        if where is not None:
            from claudemesh_mcp.routes.door import note_fault

            note_fault(where, f"hook {' '.join(words)}", fault)
    return 0


if __name__ == "__main__":
    # Without the work that an interpreter does at its end: nothing is left to be done.
    os._exit(main(sys.argv[1:]) if sys.version_info >= _OLDEST else 0)
