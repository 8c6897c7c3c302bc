"""The commands ``mcp-server approve``, ``deny`` and ``diff``.

What may be called of others is said here by the human, and by nothing that a model can call; they
hand on to ``calling/desk.py`` and print through ``show.py``.
"""

import json
from typing import TYPE_CHECKING, Annotated, Final

import typer

from claudemesh_mcp.cli import show
from claudemesh_mcp.cli.asking import ask

if TYPE_CHECKING:
    from claudemesh_mcp.calling.directory import Offered
    from claudemesh_mcp.sdk import Mesh

_LONGEST_TOLD: Final = 1000
Server = Annotated[
    str, typer.Argument(metavar="SERVER", help="As ada/files; files where that is one server.")
]
Tool = Annotated[str, typer.Argument(metavar="TOOL", help="The tool's name there.")]


def add_to(group: typer.Typer) -> None:
    """Add the commands of this module to ``mcp-server``."""
    group.command()(approve)
    group.command()(deny)
    group.command()(diff)


def approve(server: Server, tool: Tool) -> None:
    """Let your sessions call a tool of another member, as it is defined now.

    \b
    Examples:
      claudemesh mcp-server approve ada/files write_file
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    _decide(server, tool, "approved")
    show.word("Your sessions of this home may call it, until its definition changes.")


def deny(server: Server, tool: Tool) -> None:
    """Keep your sessions from calling a tool, whatever it says of itself.

    \b
    Examples:
      claudemesh mcp-server deny ada/files write_file
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    _decide(server, tool, "denied")


def _decide(server: str, tool: str, said: str) -> None:
    async def decide(mesh: "Mesh") -> "Offered":
        from claudemesh_mcp.calling.pins import Verdict

        return await mesh.servers.desk.decide(server, tool, Verdict(said))

    offered = ask(decide)
    what = offered.tool(tool).get("description")
    show.word(f"{tool} of {offered.full_name} ({offered.member.name}) is {said}.")
    show.word(f"It says of itself: {str(what)[:_LONGEST_TOLD]}" if what else "It says nothing.")


def diff(server: Server, tool: Tool) -> None:
    """Print how a tool differs from what you approved, or else what it says of itself.

    \b
    Examples:
      claudemesh mcp-server diff ada/files write_file
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    found = ask(lambda mesh: mesh.servers.desk.look(server, tool))
    told = found.standing.replace("_", " ")
    show.word(f"{tool} of {found.offered.full_name} ({found.offered.member.name}): {told}.")
    show.lines(found.diff or json.dumps(found.definition, indent=1, ensure_ascii=False))
