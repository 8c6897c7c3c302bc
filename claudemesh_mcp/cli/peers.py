"""The command ``peers``: who is on the mesh.

It asks ``Mesh`` as the command line's own peer and prints through ``show.py``.
"""

from typing import TYPE_CHECKING, Annotated

import typer

from claudemesh_mcp.cli import held, show
from claudemesh_mcp.cli.asking import ask

if TYPE_CHECKING:
    from claudemesh_mcp.held import Found
    from claudemesh_mcp.meshresults import PeersResult
    from claudemesh_mcp.sdk import Mesh


def add_to(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(peers)


def peers(
    query: Annotated[
        str, typer.Argument(help="Words from a handle, member, project, role or summary.")
    ] = "",
    online: Annotated[bool, typer.Option("--online", help="Only those who are here.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100, help="At most so many.")] = 50,
    detail: Annotated[
        bool, typer.Option("--detail", help="All that is known; with --json.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print who is on the mesh, present peers first.

    \b
    Examples:
      claudemesh peers
      claudemesh peers shop --online
      claudemesh peers --json | jq -r .peers[].handle
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    filters = {"online": True} if online else {}

    async def question(mesh: "Mesh") -> "tuple[PeersResult, Found]":
        found = await mesh.search_peers(query, filters=filters, limit=limit, detail=detail)
        return found, await held.find()

    found, waiting = ask(question)
    if json:
        show.data(found)
    else:
        show.peers(found.peers)
        if found.total > len(found.peers):
            show.word(f"{found.total - len(found.peers)} more.")
    held.tell(waiting)
