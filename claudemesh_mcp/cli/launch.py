"""The commands ``launch`` and ``statusline``, which stand between claudemesh and Claude Code.

``launch`` becomes the client, with what it was told in the environment of that session alone;
``statusline`` is served by ``__main__`` before anything here is imported.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from claudemesh_mcp.cli import chosen
from claudemesh_mcp.config import session_environment
from claudemesh_mcp.rules import RULES
from claudemesh_wire.errors import Invalid, Unavailable

if TYPE_CHECKING:
    from claudemesh_mcp.installation.scopes import Site

_PASSED_ON: Final = {"allow_extra_args": True}


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(context_settings=_PASSED_ON)(launch)
    app.command()(statusline)


def launch(
    context: typer.Context,
    *,
    mesh: Annotated[str | None, typer.Option(metavar="NAME", help="The mesh to be in.")] = None,
    name: Annotated[str | None, typer.Option(help="The handle wished for.")] = None,
    role: Annotated[str | None, typer.Option(help="What this session is.")] = None,
    groups: Annotated[
        str | None,
        typer.Option(help="Groups to enter, each with a role if wanted: ops,review:lead"),
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="ID", help="Be the peer that last used this id.")
    ] = None,
) -> None:
    """Start Claude Code as a session of the mesh, with a name, a role and groups of its own.

    What stands behind -- is the client's; where the hooks have to be given along, they are added to
    its --settings. Only this session is told; a `claude` started plainly is not. A session with -p
    takes part in what goes to groups and to all, which others don't.

    \b
    Examples:
      claudemesh launch --name ada --groups ops,review:lead
      claudemesh launch --mesh team -- --model opus
      claudemesh launch --name nightly --resume nightly -- -p "Read your inbox and act on it."
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    from claudemesh_mcp.installation import scopes

    given = {
        "mesh": mesh or chosen.settings().mesh,
        "name": name,
        "role": role,
        "groups": groups,
        "resume": resume,
    }
    told = {key: value for key, value in given.items() if value is not None}
    for key, value in told.items():
        _check(key, value)
    variables = {RULES[key].variable: value for key, value in told.items()}
    program = scopes.find_claude()
    words = [program, *_given(scopes.here(), context.args)]
    environment = session_environment({**variables, RULES["multicast"].variable: "on"})
    try:
        os.execve(program, words, environment)  # noqa: S606 - the client takes over
    except OSError as error:
        raise Unavailable(
            f"{program} can't be started: {error.strerror}.",
            "Look whether it starts by itself: claude --version",
            code="claude_failed",
        ) from error


def statusline() -> None:
    """Print the status line of the session that runs this: mesh, online, unread.

    Claude Code calls it, every few seconds, once `claudemesh install --statusline` has set it. It
    prints nothing while there is no connection.

    \b
    Examples:
      claudemesh statusline < /dev/null
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    # Reached by an option before the word: `claudemesh statusline` itself never gets here.
    raise typer.BadParameter("statusline must be the first word.")


def _check(key: str, value: str) -> None:
    try:
        RULES[key].read(value)
    except ValueError as error:
        raise Invalid(
            f"--{key} must be {error}.", RULES[key].says, code="config_invalid"
        ) from error


def _given(site: "Site", words: Sequence[str]) -> list[str]:
    """Give the server and the hooks along, for this session alone, if the client has neither."""
    import json

    from claudemesh_mcp.cli import clientsettings
    from claudemesh_mcp.installation.placing import server_command
    from claudemesh_mcp.installation.scopes import SERVER, Scope

    if site.plugins() or any(site.servers()):
        return list(words)
    command, *arguments = server_command(Scope.USER)
    servers = {"mcpServers": {SERVER: {"command": command, "args": arguments}}}
    settings = clientsettings.with_hooks(words, chosen.home)
    return ["--mcp-config", json.dumps(servers), *settings]
