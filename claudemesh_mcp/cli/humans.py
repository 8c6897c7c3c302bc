"""Keeps a model from deciding what its human decides: whom to trust, and who may do and call what.

``grants.py``, ``trusting.py`` and ``mcp_tools.py`` ask it before they write anything down. A client
marks what its model's shell runs by variables, and is a process above it that a session of this
home has named: either is enough, so that taking the variables away opens nothing. It is no wall.
Whoever runs what it likes as this user can let go of its parents, or write the file itself; a
client's own question before a command stands in front of that.
"""

from typing import Final

from claudemesh_mcp.cli import chosen
from claudemesh_mcp.config import named_variable
from claudemesh_wire.errors import Forbidden

# What the client gives to whatever its model or a `!` runs, and nobody else sets.
_MARKS: Final = ("CLAUDECODE", "CLAUDE_CODE_SESSION_ID", "CLAUDE_CODE_CHILD_SESSION", "CLAUDE_PID")


def is_within_a_client() -> bool:
    """Tell whether Claude Code runs this command, for its model or by a ``!`` of its user.

    Raises:
        Invalid: ``config_invalid``.
    """
    from claudemesh_mcp.ancestors import above
    from claudemesh_mcp.routes import records

    if any(named_variable(mark) for mark in _MARKS):
        return True
    data = chosen.settings().paths().data
    return any(one.session for pid in above() for one in records.of_client(data, pid))


def check_human() -> None:
    """Refuse to decide something where a model may be the one who asks.

    Raises:
        Forbidden: ``human_only``.
        Invalid: ``config_invalid``.
    """
    if is_within_a_client():
        raise Forbidden(
            "This is for a human to decide, and Claude Code runs this command.",
            "Its user runs it in a terminal of their own, outside of Claude Code; a `!` command"
            " there is run by it too, and in a tmux that was started there it looks so.",
            code="human_only",
        )
