"""The command ``peers``: who is on the mesh.

It asks ``Mesh`` as the command line's own peer and prints through ``show.py``.
"""

from typing import Annotated

import typer

from claudemesh_mcp.cli import show
from claudemesh_mcp.cli.asking import ask


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
    found = ask(lambda mesh: mesh.search_peers(query, filters=filters, limit=limit, detail=detail))
    if json:
        show.data(found)
        return
    show.peers(found.peers)
    if found.total > len(found.peers):
        show.word(f"{found.total - len(found.peers)} more.")
