"""What the commands about meshes share: the mesh that is named, and the question before a change.

``meshes.py``, ``trusting.py`` and ``brokers.py`` ask it.
"""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from claudemesh_mcp.cli import show
from claudemesh_mcp.cli.chosen import home
from claudemesh_wire.errors import Invalid

if TYPE_CHECKING:
    from claudemesh_mcp.meshes import KnownMesh

Yes = Annotated[bool, typer.Option("--yes", help="Don't ask.")]
Given = Annotated[
    str, typer.Argument(metavar="NAME", help="What this home calls the mesh, or its id.")
]


def joined(name: str) -> "KnownMesh":
    """Give a mesh of this home's list, which the local one is not.

    Raises:
        Invalid: it is the local one.
        NotFound: ``unknown_mesh``.
    """
    from claudemesh_mcp import meshes

    ours = home()
    if meshes.is_local(ours, name):
        raise Invalid("The local mesh is always there.", "Name another one: claudemesh mesh list")
    return meshes.choose(meshes.known_meshes(ours), name)


def both_names(here: str, called: str | None) -> str:
    """Give what this home calls a mesh, and what its members do where that is another name."""
    return here if called in {None, here} else f"{here} (its members: {called})"


def confirm(question: str, yes: bool) -> None:
    """Ask on a terminal; elsewhere a command that can't be undone needs --yes.

    Raises:
        Invalid: ``not_confirmed``.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise Invalid("Nobody can be asked here.", "Say it with --yes.", code="not_confirmed")
    if not typer.confirm(question, err=True):
        raise typer.Exit(show.FAILED)
