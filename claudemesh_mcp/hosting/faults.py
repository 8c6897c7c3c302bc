"""Why a server can't be used: each error says what to do about it, and none has a secret in it.

``transport.py``, ``era.py``, ``backend.py`` and ``keeping.py`` raise these.
"""

from pathlib import Path
from typing import Final

from claudemesh_mcp.hosting.launch import Launch
from claudemesh_mcp.hosting.program import MAX_LINE_BYTES
from claudemesh_wire.errors import (
    Conflict,
    Invalid,
    MeshError,
    NotFound,
    Unavailable,
)

TOO_LONG: Final = f"it wrote a line of more than {MAX_LINE_BYTES // 1024 // 1024} MiB"


def not_started(launch: Launch, error: OSError | ValueError) -> MeshError:
    """Say why the operating system did not start it."""
    if launch.cwd and not Path(launch.cwd).is_dir():
        return NotFound(
            f"The folder in which {launch.shown} is to run is not there: {launch.cwd}",
            "Make it, or give another cwd.",
            code="no_such_folder",
        )
    if isinstance(error, FileNotFoundError):
        return NotFound(
            f"There is no command {launch.shown}.",
            "Install it, or give its whole path: only PATH is searched, no shell is asked.",
            code="command_not_found",
        )
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return Invalid(
        f"{launch.shown} could not be started: {said}.",
        "See that it is a program that you may run.",
        code="not_startable",
    )


def unreachable(launch: Launch, why: str) -> MeshError:
    """Nobody answers at its URL."""
    return Unavailable(
        f"{launch.shown} can't be reached: {launch.hide(why)}",
        "See that it runs and that the url is right.",
        code="server_unreachable",
    )


def exited(launch: Launch, last: str) -> MeshError:
    """It ended before it had said that it is an MCP server."""
    said = f" It said last:\n{last}" if last else " It wrote nothing to stderr."
    return Unavailable(
        f"{launch.shown} ended at once.{said}",
        "Try the command in a terminal; a server waits there for input.",
        code="server_exited",
    )


def silent(launch: Launch, timeout_s: float, last: str) -> MeshError:
    """It runs, but says nothing."""
    said = f" It wrote to stderr last:\n{last}" if last else ""
    return Unavailable(
        f"{launch.shown} did not answer within {timeout_s:g} s.{said}",
        "See that it is an MCP server, and that it is not busy with installing itself.",
        code="server_not_answering",
    )


def not_mcp(launch: Launch, why: str) -> MeshError:
    """It answers, but not as MCP servers do."""
    return Invalid(
        f"{launch.shown} does not answer as an MCP server does: {launch.hide(why)}",
        "See that the command or url is that of an MCP server, and what else it needs.",
        code="not_an_mcp_server",
    )


def outcome_unknown(launch: Launch, why: str = "") -> MeshError:
    """It ended while it may have been at it; ``why`` it was stopped, if it was."""
    how = f"was stopped ({why})" if why else "ended"
    return Conflict(
        f"{launch.shown} {how} before it answered: the call may have been run.",
        "See what it did before you call again.",
        code="outcome_unknown",
    )


def not_running(launch: Launch) -> MeshError:
    """There is nothing to call; nothing was run."""
    return Unavailable(
        f"{launch.shown} does not run at the moment; the call was not run.",
        "It is started again by itself; try again.",
        code="server_not_running",
    )


def cancelled(reason: str) -> MeshError:
    """Whoever called wanted no answer any more."""
    return Conflict(
        reason or "The call was cancelled.",
        "What it had done by then stays; call again for the rest.",
        code="cancelled",
    )


def not_callable(method: str) -> MeshError:
    """It is asked for what is between this hop and the server."""
    return Invalid(
        f"{method[:80]!a} can't be called.",
        "Call a tool, read a resource, or get a prompt.",
        code="bad_method",
    )


def no_json() -> MeshError:
    """A server would end itself at such arguments."""
    return Invalid(
        "The arguments are no valid JSON.",
        "See that no number in them is infinite or none, and no text is cut within a character.",
        code="bad_arguments",
    )
