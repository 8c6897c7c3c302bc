"""The command line: every command but ``mcp``, which is served before anything here is imported.

``__main__.py`` calls ``run``. Each command is in the module of its noun; those hand on to ``Mesh``
or to ``Launcher`` and print through ``show.py``. Data goes to stdout, words and errors to stderr.
"""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.main import get_command

from claudemesh_mcp.cli import (
    brokers,
    chosen,
    demo,
    doctor,
    emptywords,
    grants,
    hosting,
    install,
    invites,
    launch,
    mcp_servers,
    mcp_tools,
    members,
    meshes,
    messages,
    peers,
    profile,
    settings,
    shell,
    show,
)
from claudemesh_wire import VERSION
from claudemesh_wire.errors import MeshError

__all__ = ["app", "run"]

app = typer.Typer(
    name="claudemesh",
    # Plain help: it is the same in every terminal, in a pipe and in a test.
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        show.line(VERSION)
        raise typer.Exit


@app.callback()
def claudemesh(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
    mesh: Annotated[
        str | None, typer.Option("--mesh", metavar="NAME", help="The mesh that is meant.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Say errors as JSON, of commands that print none too.")
    ] = False,
) -> None:
    """Connect Claude Code sessions: they find each other and exchange sealed messages.

    \b
    Examples:
      claudemesh demo                        see it work, on a home that is thrown away
      claudemesh install --plugin            give it to your Claude Code sessions
      claudemesh peers                       who is there
      claudemesh send ada "The build is green."
      claudemesh inbox --follow
      claudemesh invite                      somebody else, from another machine

    \b
    Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 not found, 4 not allowed,
    5 unreachable, 130 interrupted.
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    del version, json  # `run` looks for this word anywhere.
    chosen.choose(mesh)


for module in (
    demo,
    brokers,
    hosting,
    meshes,
    invites,
    launch,
    members,
    messages,
    peers,
    profile,
    grants,
    settings,
    doctor,
    install,
    launch,
    shell,
):
    module.add_to(app)

servers = typer.Typer(
    help="Offer MCP servers to the mesh, and say what of others may be called.",
    no_args_is_help=True,
)
for module in (mcp_servers, mcp_tools):
    module.add_to(servers)
app.add_typer(servers, name="mcp-server")
_command = get_command(app)


def run(argv: Sequence[str]) -> int:
    """Run one command.

    Args:
        argv: The words behind `claudemesh`.

    Returns:
        The exit code.
    """
    show.prepare_streams()
    shell.know_shells()
    wants_json = "--json" in argv
    try:
        emptywords.refuse(argv)
        _command(list(argv), prog_name="claudemesh")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except MeshError as error:
        return show.refusal(error, as_json=wants_json)
    except BrokenPipeError:
        # Whoever read this output has enough; Python would complain once more at its end.
        sys.stdout = None
        return show.FAILED
    return 0
