"""The commands ``grant``, ``revoke``, ``grants``, ``block``, ``unblock`` and ``allow``.

They hand on to ``granting.py`` over the command line's own peer, and print through ``show.py``.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from claudemesh_mcp.cli import show
from claudemesh_mcp.cli.asking import ask

if TYPE_CHECKING:
    from claudemesh_mcp.granting import Released
    from claudemesh_mcp.meshresults import MemberRights, RightsResult
    from claudemesh_mcp.sdk import Mesh
    from claudemesh_wire.membership import Member

Name = Annotated[str, typer.Argument(metavar="NAME", help="A member's name or id.")]
Capabilities = Annotated[
    list[str],
    typer.Argument(metavar="CAPABILITY...", help="message, topic, wake, task, tool or file."),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(grant)
    app.command()(revoke)
    app.command()(grants)
    app.command()(block)
    app.command()(unblock)
    app.command()(allow)


def grant(name: Name, capability: Capabilities) -> None:
    """Let a member do something to all of your sessions.

    message and topic: have texts shown; wake: wake an idle session; task: give tasks; tool: call
    the tools that are offered; file: read inside the share roots.

    \b
    Examples:
      claudemesh grant bob task tool
      claudemesh grant bob wake
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    member = ask(lambda mesh: _change(mesh, name, capability, allowed=True))
    show.word(f"{member.name} may: {', '.join(capability)}.")


def revoke(name: Name, capability: Capabilities) -> None:
    """Stop letting a member do something to your sessions, also what it may by default.

    \b
    Examples:
      claudemesh revoke bob wake
      claudemesh revoke bob message
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    member = ask(lambda mesh: _change(mesh, name, capability, allowed=False))
    show.word(f"{member.name} may not: {', '.join(capability)}.")


async def _change(mesh: "Mesh", name: str, named: Sequence[str], *, allowed: bool) -> "Member":
    from claudemesh_mcp import granting

    member = granting.find_member(mesh.peer, name)
    what = granting.capabilities(named)
    wanted = granting.Change(allow=what) if allowed else granting.Change(deny=what)
    await granting.change(mesh.peer, await mesh.ready(), member, wanted)
    return member


def grants(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print what you let other members do, and what they let you do, defaults filled in.

    \b
    Examples:
      claudemesh grants
      claudemesh grants --json | jq .i_let
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    found = ask(_rights)
    if json:
        show.data(found)
    elif not found.i_let:
        show.word("Nobody else is in this mesh; your own sessions may do everything.")
    else:
        show.line("What you let others do:")
        _print(found.i_let)
        show.line("")
        show.line("What others let you do:")
        _print(found.let_me)


async def _rights(mesh: "Mesh") -> "RightsResult":
    from claudemesh_mcp import granting, rights

    found = await granting.level(mesh.peer, await mesh.ready())
    return rights.rights(mesh.peer, found)


def _print(rows: "Sequence[MemberRights]") -> None:
    capabilities = tuple(rows[0].rights)
    show.table(("member", *capabilities, ""), (_cells(row) for row in rows))


def _cells(row: "MemberRights") -> tuple[str, ...]:
    mark = "blocked" if row.blocked else "granted" if row.granted else "default"
    return (row.member, *row.rights.values(), mark)


def block(name: Name) -> None:
    """Refuse whatever a member writes to your sessions; its sender is told.

    \b
    Examples:
      claudemesh block bob
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    member = ask(lambda mesh: _block(mesh, name, blocked=True))
    show.word(f"{member.name} is blocked; claudemesh unblock {member.name} admits it again.")


def unblock(name: Name) -> None:
    """Admit a member again that was blocked.

    \b
    Examples:
      claudemesh unblock bob
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    member = ask(lambda mesh: _block(mesh, name, blocked=False))
    show.word(f"{member.name} is not blocked.")


async def _block(mesh: "Mesh", name: str, *, blocked: bool) -> "Member":
    from claudemesh_mcp import granting

    member = granting.find_member(mesh.peer, name)
    await granting.block(mesh.peer, await mesh.ready(), member, blocked=blocked)
    return member


def allow(
    what: Annotated[
        str, typer.Argument(metavar="NAME|ID", help="A member, or the id of one held message.")
    ],
) -> None:
    """Let a member's messages through, held ones too; or one held message by its id.

    \b
    Examples:
      claudemesh allow bob
      claudemesh allow msg_aebagbafaydqqcikbmga2dqpca
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    done = ask(lambda mesh: _allow(mesh, what))
    count = len(done.messages)
    show.word(f"{count} message{'' if count == 1 else 's'} from {done.member.name} let through.")


async def _allow(mesh: "Mesh", what: str) -> "Released":
    from claudemesh_mcp import granting

    done = await granting.allow(mesh.peer, await mesh.ready(), what)
    if any(one.peer == mesh.peer.id for one in done.messages):
        await mesh.report()
    return done
