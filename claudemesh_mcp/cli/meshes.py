"""The commands ``mesh create``, ``list``, ``use``, ``leave``, ``rename``, ``delete`` and ``trust``.

They change this home's list through ``meshes.py``, and the mesh itself through ``governing.py``.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import anyio
import anyio.to_thread
import typer

from claudemesh_mcp.cli import held, show
from claudemesh_mcp.cli.asking import ask, open_mesh
from claudemesh_mcp.cli.chosen import home as own_home
from claudemesh_mcp.cli.chosen import settings, standing
from claudemesh_mcp.cli.known import Given, Yes, both_names, confirm, joined
from claudemesh_mcp.cli.trusting import trust as trust_broker
from claudemesh_wire.errors import MeshError, ProtocolError, Unavailable

if TYPE_CHECKING:
    from claudemesh_mcp.meshes import KnownMesh
    from claudemesh_mcp.sdk import Mesh

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
# The mesh is gone for this home already; what is left is to take it off the list.
_GONE: Final = frozenset({"member_removed", "mesh_ended", "not_a_member"})
# Its broker lost the mesh, and takes it from this home no more.
_LOST: Final = frozenset({"unknown_mesh", "may_not_found"})


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    mesh = typer.Typer(help="Make, choose and end meshes.", no_args_is_help=True)
    for name, command in (
        ("create", create),
        ("list", list_),
        ("use", use),
        ("leave", leave),
        ("rename", rename),
        ("delete", delete),
        ("trust", trust_broker),
    ):
        mesh.command(name)(command)
    app.add_typer(mesh, name="mesh")


def create(
    name: Annotated[str, typer.Argument(help="What the mesh is called, as team.")],
    *,
    broker: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Its broker, as it printed it; else this home's."),
    ] = None,
    admin_secret_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The broker's admin secret; not needed in its own home."),
    ] = None,
    use_it: Annotated[
        bool, typer.Option("--use/--no-use", help="Have new sessions be in it from now on.")
    ] = True,
    json: Json = False,
) -> None:
    """Make a mesh, of which you are the owner.

    With --json: {"mesh", "id", "broker"}.

    \b
    Examples:
      claudemesh mesh create team --broker https://host:7467
      claudemesh mesh create team --broker 'https://host:7467#FINGERPRINT' --admin-secret-file key
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    from claudemesh_mcp.project import wished_handle

    made = anyio.run(_create, wished_handle(name), broker, admin_secret_file)
    if use_it:
        _write_choice(made.name)
    if json:
        show.data({"mesh": made.name, "id": made.id, "broker": made.place and made.place.url})
        return
    show.line(f"{made.name} is made ({made.id}).")
    show.word("Next: claudemesh invite")


async def _create(name: str, url: str | None, secret_file: Path | None) -> "KnownMesh":
    from claudemesh_mcp import brokers, joining, meshes
    from claudemesh_mcp.home import Home

    chosen = settings()
    home = Home.open(chosen.paths())
    secret = brokers.read_admin_secret(secret_file) if secret_file is not None else None
    place = await brokers.locate(url, chosen) if url is not None else None
    made = await anyio.to_thread.run_sync(joining.make_mesh, home, chosen, name, place)
    try:
        # The broker learns of it from this first connection, and takes it or not.
        async with open_mesh(settings=replace(chosen, mesh=made.id), admin_secret=secret) as mesh:
            await mesh.ready()
    except BaseException as error:
        if isinstance(error, MeshError) and not isinstance(error, (Unavailable, ProtocolError)):
            meshes.forget(home, made.id)
        else:
            # The hello may have arrived: this home must not forget a mesh that is there.
            show.word(
                f"Whether the broker took {name} is not known; it stays on your list."
                f" claudemesh --mesh {name} status shows it if it did; if not,"
                f" claudemesh mesh leave {name} --here drops it, to be made again."
            )
        raise
    return meshes.find(home, made.id) or made


def list_(json: Json = False) -> None:
    """Print the meshes that this home is in; a star marks the one that holds here.

    With --json: {"meshes": [{"name", "id", "broker", "chosen", "called"}]}, where name is what this
    home calls it, and called what its members do, as far as this home knows.

    \b
    Examples:
      claudemesh mesh list
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    rows = _rows()
    if json:
        show.data({"meshes": rows})
        return
    cells = [
        (
            "*" if row["chosen"] else "",
            both_names(row["name"], row["called"]),
            row["broker"] or "this home's",
            row["id"] or "",
        )
        for row in rows
    ]
    show.table(("", "mesh", "broker", "id"), cells)


def _rows() -> list[dict[str, Any]]:
    from claudemesh_mcp import meshes, trust

    chosen = settings()
    home = own_home()
    founding = meshes.local_id(home)
    here = chosen.mesh or meshes.LOCAL
    rows = [
        {
            "name": meshes.LOCAL,
            "id": founding,
            "broker": None,
            "chosen": meshes.is_local(home, here),
            "called": meshes.LOCAL,
        }
    ]
    for one in meshes.known_meshes(home):
        is_chosen = here in {one.name, one.id}
        url = one.place.url if one.place else None
        told = {"name": one.name, "id": one.id, "broker": url, "chosen": is_chosen}
        rows.append(told | {"called": trust.name_in_log(home, one.id)})
    return rows


def use(name: Given) -> None:
    """Have new sessions of this home be in a mesh, unless option, variable or project say another.

    \b
    Examples:
      claudemesh mesh use team
      claudemesh mesh use local
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    from claudemesh_mcp import meshes

    home = own_home()
    if not meshes.is_local(home, name):
        name = meshes.choose(meshes.known_meshes(home), name).name
    _write_choice(name)
    show.word(f"New sessions are in {name}.")
    now = standing().mesh
    if now != name:
        show.word(f"In this folder {now} holds: a variable or .claudemesh.toml says so.")


def leave(
    name: Given,
    here: Annotated[
        bool, typer.Option("--here", help="Only take it off this home's list.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Go out of a mesh. Its messages stay on this disk; an invite brings you in again.

    What is held of it is told first, since nothing can be done with it from outside.

    With --here its broker is not asked: for one that is gone for good. The other members still see
    you as one of them.

    \b
    Examples:
      claudemesh mesh leave team
      claudemesh mesh leave team --here
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    known = joined(name)
    _tell_held(known)
    confirm(f"Leave {known.name}?", yes)
    if here:
        said = f"{known.name} is off your list; its members still see you as one of them."
    else:
        said = _say_goodbye(known)
    _forget(known)
    show.word(said)


def _say_goodbye(known: "KnownMesh") -> str:
    """Leave a mesh at its broker; gives what there is to say of it."""

    async def go(mesh: "Mesh") -> None:
        from claudemesh_mcp import governing

        await governing.leave(mesh.peer, await mesh.ready())

    try:
        ask(go, settings=replace(settings(), mesh=known.id))
    except MeshError as error:
        if error.code in _LOST:
            return f"The broker of {known.name} does not have it any more; it is off your list."
        if error.code in _GONE:
            return f"{error.reason} It is off your list."
        if error.code == "last_owner":
            error.hint = (
                "Make somebody else an owner first: claudemesh role NAME owner;"
                f" or end it for all: claudemesh mesh delete {known.name}"
            )
        else:
            alone = f"To take it off your list alone: claudemesh mesh leave {known.name} --here"
            error.hint = f"{error.hint} {alone}".lstrip()
        raise
    return f"You are not in {known.name} any more."


def rename(
    name: Given,
    new: Annotated[str, typer.Argument(help="The new name.")],
    here: Annotated[bool, typer.Option("--here", help="Only on this home's list.")] = False,
) -> None:
    """Give a mesh another name: for all its members, or with --here on this home's list alone.

    Another member's home goes on with the name that it has there, by which its settings and
    projects choose the mesh, and shows the new one beside it; --here takes that over.

    \b
    Examples:
      claudemesh mesh rename team shop
      claudemesh mesh rename team work --here
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    from claudemesh_mcp import meshes
    from claudemesh_mcp.cli.settings import written_setting
    from claudemesh_mcp.project import wished_handle

    known, name_ = joined(name), wished_handle(new)
    home = own_home()
    # Before all others are told of a name that this home can't take over.
    meshes.check_name(home, name_, known.id)

    async def change(mesh: "Mesh") -> None:
        from claudemesh_mcp import governing

        await governing.rename(mesh.peer, await mesh.ready(), name_)

    if not here:
        ask(change, settings=replace(settings(), mesh=known.id))
    with home.lock():
        # As it is now: the connection may have brought a charter.
        meshes.remember(home, replace(meshes.find(home, known.id) or known, name=name_))
    if written_setting("mesh") == known.name:
        _write_choice(name_)
    show.word(f"{known.name} is called {name_}.")
    _warn_of(known)


def delete(name: Given, yes: Yes = False) -> None:
    """End a mesh for everybody: its broker deletes all of it. Only an owner can.

    \b
    Examples:
      claudemesh mesh delete team
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    known = joined(name)
    _tell_held(known)
    confirm(f"End {known.name} for all its members? This can't be undone.", yes)

    async def end(mesh: "Mesh") -> None:
        from claudemesh_mcp import governing

        await governing.end(mesh.peer, await mesh.ready())

    ask(end, settings=replace(settings(), mesh=known.id))
    _forget(known)
    show.word(f"{known.name} has ended.")


def _tell_held(known: "KnownMesh") -> None:
    """Say what is held of a mesh before it goes off the list, which puts that out of reach."""
    held.tell_before_leaving(anyio.run(held.find), known.id)


def _forget(known: "KnownMesh") -> None:
    from claudemesh_mcp import meshes
    from claudemesh_mcp.cli.settings import written_setting

    told = written_setting("mesh")
    if told is not None and meshes.is_called(known, told):
        _write_choice(meshes.LOCAL)
    meshes.forget(own_home(), known.id)
    _warn_of(known)


def _warn_of(known: "KnownMesh") -> None:
    """Say so when sessions here are still told a name that stands for nothing any more."""
    if standing().mesh == known.name:
        show.word(f"In this folder a variable or .claudemesh.toml still says {known.name}.")


def _write_choice(name: str) -> None:
    from claudemesh_mcp.cli.settings import write_setting

    write_setting("mesh", name)
