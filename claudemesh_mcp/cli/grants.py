"""The commands ``grant``, ``revoke``, ``grants``, ``block``, ``unblock``, ``allow``, ``discard``.

They hand on to ``granting.py`` over the command line's own peer, and print through ``show.py``.
What lets others do more is refused to a model, by ``humans.py``; what lets them do less is not.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from claudemesh_mcp.cli import show
from claudemesh_mcp.cli.asking import ask, ask_here
from claudemesh_mcp.cli.humans import check_human
from claudemesh_wire.errors import Invalid, MeshError

if TYPE_CHECKING:
    from claudemesh_mcp.granting import Reach, Released, Said
    from claudemesh_mcp.held import Found, Held
    from claudemesh_mcp.meshresults import MemberRights, RightsResult
    from claudemesh_mcp.sdk import Mesh

Name = Annotated[str, typer.Argument(metavar="NAME", help="A member's name or id.")]
Capabilities = Annotated[
    list[str],
    typer.Argument(
        metavar="CAPABILITY...", help="message, topic, wake, task, tool, file or provide:SERVER."
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(grant)
    app.command()(revoke)
    app.command()(grants)
    app.command()(block)
    app.command()(unblock)
    app.command()(allow)
    app.command()(discard)


def grant(name: Name, capability: Capabilities) -> None:
    """Let a member do something to all of your sessions.

    message: have messages shown; wake: wake an idle session; tool: call what your sessions offer.
    topic, task and file are signed and kept all the same, and decide nothing yet: this version has
    none of them.

    provide:NAME lets a member provide your MCP server of that name: one of its own, with the same
    name and the same definitions, answers the calls of yours too. Whoever sees it sees this grant.

    \b
    Examples:
      claudemesh grant bob task tool
      claudemesh grant bob message,wake
      claudemesh grant bob provide:files
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    check_human()
    names = _named(capability)
    said = ask_here(lambda mesh, reach: _change(mesh, reach, name, (names, ())))
    show.word(f"{said.member.name} may: {', '.join(names)}.")
    tell_untold(said.untold)


def revoke(name: Name, capability: Capabilities) -> None:
    """Stop letting a member do something to your sessions, also what it may by default.

    \b
    Examples:
      claudemesh revoke bob wake
      claudemesh revoke bob message
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    names = _named(capability)
    said = ask_here(lambda mesh, reach: _change(mesh, reach, name, ((), names)))
    show.word(f"{said.member.name} may not: {', '.join(names)}.")
    tell_untold(said.untold)


def _named(words: Sequence[str]) -> list[str]:
    """Read what is named, with spaces or commas between.

    Raises:
        Invalid: ``unknown_capability``: nothing is.
    """
    from claudemesh_mcp.grantnames import named
    from claudemesh_wire.grants import Capability

    names = named(words)
    if not names:
        raise Invalid(
            "No capability is named.",
            f"Name one or more: {', '.join(Capability)}.",
            code="unknown_capability",
        )
    return names


async def _change(
    mesh: "Mesh", reach: "Reach", name: str, named: tuple[Sequence[str], Sequence[str]]
) -> "Said":
    from claudemesh_mcp import granting
    from claudemesh_mcp.grantnames import grantable

    allow, deny = map(grantable, named)
    return await granting.change(mesh.peer, reach, name, granting.Change(allow, deny))


def tell_untold(untold: "MeshError | None") -> None:
    """Say that something holds in this home alone so far."""
    if untold is None:
        return
    show.word(f"It holds in this home; the broker was not told: {untold.reason}")
    if untold.code == "too_many_said":
        show.word("It goes by the defaults there; your sessions do not, once they connect.")
    else:
        show.word("It is told by the next of these commands that reaches it, as claudemesh grants.")


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
    if found.more:
        show.word("The broker has more grants than it can show at once; some are missing here.")


async def _rights(mesh: "Mesh") -> "RightsResult":
    from claudemesh_mcp import granting, rights

    found = await granting.level(mesh.peer, await mesh.ready())
    return rights.rights(mesh.peer, found)


def _print(rows: "Sequence[MemberRights]") -> None:
    capabilities = tuple(rows[0].rights)
    show.table(("member", *capabilities, "provide", ""), (_cells(row) for row in rows))


def _cells(row: "MemberRights") -> tuple[str, ...]:
    mark = "blocked" if row.blocked else "granted" if row.granted else "default"
    standing = f" ({row.standing})" if row.standing == "observer" else ""
    provides = ", ".join(row.provides) or "-"
    return (f"{row.member}{standing}", *row.rights.values(), provides, mark)


def block(name: Name) -> None:
    """Refuse whatever a member writes to your sessions; its sender is told.

    \b
    Examples:
      claudemesh block bob
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    said = ask_here(lambda mesh, reach: _block(mesh, reach, name, blocked=True))
    show.word(f"{said.member.name} is blocked.")
    tell_untold(said.untold)


def unblock(name: Name) -> None:
    """Admit a member again that was blocked.

    \b
    Examples:
      claudemesh unblock bob
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    check_human()
    said = ask_here(lambda mesh, reach: _block(mesh, reach, name, blocked=False))
    show.word(f"{said.member.name} is not blocked.")
    tell_untold(said.untold)


async def _block(mesh: "Mesh", reach: "Reach", name: str, *, blocked: bool) -> "Said":
    from claudemesh_mcp import granting

    return await granting.block(mesh.peer, reach, name, blocked=blocked)


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
    check_human()
    done = ask_here(lambda mesh, reach: _allow(mesh, reach, what))
    name = done.member.name
    if done.is_granted:
        show.word(f"{name} may: message.")
    if done.messages:
        show.word(f"{_messages(done.messages)} from {name} let through.")
    else:
        show.word(f"No message from {name} was held.")
    _tell_skipped(done.skipped)
    tell_untold(done.untold)


async def _allow(mesh: "Mesh", reach: "Reach", what: str) -> "Released":
    from claudemesh_mcp import granting

    done = await granting.allow(mesh.peer, reach, what)
    await _report(mesh, reach, done.messages)
    return done


def discard(
    what: Annotated[
        str, typer.Argument(metavar="NAME|ID", help="A member, or the id of one held message.")
    ],
) -> None:
    """Decline what is held of a member for good, or one held message by its id.

    NAME may be of a member that was removed, as `claudemesh inbox --held` shows it.

    \b
    Examples:
      claudemesh discard bob
      claudemesh discard msg_aebagbafaydqqcikbmga2dqpca
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    done = ask_here(lambda mesh, reach: _discard(mesh, reach, what))
    names = ", ".join(sorted({one.member_name for one in done.messages}))
    show.word(f"{_messages(done.messages)} from {names} declined.")
    _tell_skipped(done.skipped)


async def _discard(mesh: "Mesh", reach: "Reach", what: str) -> "Found":
    from claudemesh_mcp import granting

    done = await granting.discard(mesh.peer, what)
    await _report(mesh, reach, done.messages)
    return done


async def _report(mesh: "Mesh", reach: "Reach", messages: "Sequence[Held]") -> None:
    """Tell the senders what became of messages to the command line's own peer, if that can be."""
    if any(one.peer == mesh.peer.id for one in messages):
        with suppress(MeshError):  # it stays noted, and is told with the next command
            await reach()
            await mesh.report()


def _messages(messages: "Sequence[Held]") -> str:
    count = len(messages)
    return f"{count} message{'' if count == 1 else 's'}"


def _tell_skipped(skipped: Sequence[str]) -> None:
    for sentence in skipped:
        show.word(f"Not looked into: {sentence}")
