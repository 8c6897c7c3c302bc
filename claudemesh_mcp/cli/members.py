"""The commands around members: ``members``, ``role``, ``kick``, ``ban``, ``unban``, ``device``.

They hand on to ``governing.py`` and print through ``show.py``.
"""

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from claudemesh_mcp.cli import show
from claudemesh_mcp.cli.asking import ask
from claudemesh_mcp.cli.durations import milliseconds

if TYPE_CHECKING:
    from claudemesh_mcp.sdk import Mesh
    from claudemesh_wire.membership import Member

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(help="A member's name or id, as `claudemesh members` has it.")]
RoleName = Literal["owner", "admin", "member", "observer"]
_HOUR: Final = "1h"


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (members, role, kick, ban, unban):
        app.command()(command)
    device = typer.Typer(help="Revoke the keys of a session.", no_args_is_help=True)
    device.command("revoke")(revoke)
    # A group of one command would otherwise be that command.
    device.callback()(lambda: None)
    app.add_typer(device, name="device")


def members(
    all_: Annotated[bool, typer.Option("--all", help="Also who left or was removed.")] = False,
    json: Json = False,
) -> None:
    """Print who is in the mesh, in which role.

    With --json: {"members": [{"name", "id", "role", "custody", "state", "returns_at",
    "invited_by", "self"}]}, where state is present, left or removed.

    \b
    Examples:
      claudemesh members
      claudemesh members --all --json
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped

    async def look(mesh: "Mesh") -> list[dict[str, Any]]:
        await mesh.ready()
        chain, me = mesh.peer.trust.chain, mesh.peer.identity.member
        names = {one.id: one.name for one in chain.members.values()}
        return [_row(one, names, me) for one in chain.members.values() if all_ or not one.removed]

    rows = ask(look)
    if json:
        show.data({"members": rows})
        return
    titles = ("member", "role", "state", "invited by", "id")
    show.table(titles, [_cells(row) for row in rows])


def _row(one: "Member", names: dict[str, str], me: str) -> dict[str, Any]:
    from claudemesh_mcp.results import rfc3339

    state = ("left" if one.has_left else "removed") if one.removed else "present"
    return {
        "name": one.name,
        "id": one.id,
        "role": str(one.role),
        "custody": str(one.custody),
        "state": state,
        "returns_at": rfc3339(one.returns_ms) if one.returns_ms else None,
        "invited_by": names.get(one.invited_by),
        "self": one.id == me,
    }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    state = row["state"]
    if row["returns_at"]:
        state = f"{state} until {row['returns_at']}"
    name = f"{row['name']} (you)" if row["self"] else row["name"]
    return (name, row["role"], state, row["invited_by"] or "", row["id"])


def role(
    name: Name,
    new: Annotated[RoleName, typer.Argument(metavar="ROLE", help="The role to have from now on.")],
) -> None:
    """Give a member another role: owner, admin, member or observer.

    An admin changes all but owners; an observer reads and sends nothing. The role of one that is
    removed changes for when it is back.

    \b
    Examples:
      claudemesh role bob admin
      claudemesh role bob observer
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped

    async def change(mesh: "Mesh") -> "Member":
        from claudemesh_mcp import governing
        from claudemesh_wire.message import Role

        return await governing.set_role(mesh.peer, await mesh.ready(), name, Role(new))

    changed = ask(change)
    when = "when it is back" if changed.removed else "now"
    show.word(f"{changed.name} is {changed.role} {when}.")


def kick(
    name: Name,
    for_: Annotated[
        str, typer.Option("--for", metavar="TIME", help="How long: 30m, 2h, 7d.")
    ] = _HOUR,
) -> None:
    """Remove a member for some time; its sessions return by themselves when that is over.

    Its connections end at once, nobody can write to it meanwhile, and what it has not sent yet
    waits at its side. Of a member that is removed already this says anew for how long from now.

    \b
    Examples:
      claudemesh kick bob
      claudemesh kick bob --for 2d
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    _remove(name, milliseconds(for_))


def ban(
    name: Name,
    for_: Annotated[
        str | None,
        typer.Option("--for", metavar="TIME", help="How long, if not until unban."),
    ] = None,
) -> None:
    """Remove a member until an admin takes it back; no invite brings it in again.

    Also a member that was kicked, or that left by itself, is kept out so.

    \b
    Examples:
      claudemesh ban bob
      claudemesh unban bob
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    _remove(name, milliseconds(for_) if for_ is not None else None)


def _remove(name: str, for_ms: int | None) -> None:
    from claudemesh_mcp.results import rfc3339

    async def change(mesh: "Mesh") -> "Member":
        from claudemesh_mcp import governing

        client = await mesh.ready()
        until_ms = None if for_ms is None else mesh.peer.now_ms() + for_ms
        return await governing.remove(mesh.peer, client, name, until_ms)

    gone = ask(change)
    until = f"until {rfc3339(gone.returns_ms)}" if gone.returns_ms else "for good"
    show.word(f"{gone.name} is removed {until}. To take it back: claudemesh unban {gone.name}")


def unban(name: Name) -> None:
    """Take back a member that was removed or left, in the role it had.

    When several of that name are gone, name one by its id.

    \b
    Examples:
      claudemesh unban bob
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped

    async def change(mesh: "Mesh") -> "Member":
        from claudemesh_mcp import governing

        return await governing.take_back(mesh.peer, await mesh.ready(), name)

    back = ask(change)
    show.word(f"{back.name} is {back.role} of the mesh again.")


def revoke(
    address: Annotated[str, typer.Argument(help="The session's handle or peer id.")],
) -> None:
    """Revoke the keys of one session, when others may have them: nobody believes them any more.

    A session of your own member, or as an admin anybody's. It can't be undone: that session has to
    start anew as another peer, as the command line does by itself. A home that was stolen can make
    new keys as well: claudemesh ban NAME keeps it out.

    \b
    Examples:
      claudemesh device revoke shop-2
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped

    async def change(mesh: "Mesh") -> str:
        from claudemesh_mcp import governing

        card = await governing.revoke_device(mesh.peer, await mesh.ready(), address)
        return card.handle or card.peer

    show.word(f"The keys of {ask(change)} are revoked.")
