"""The commands ``mcp-server add``, ``list``, ``remove`` and ``logs``.

They keep servers for the sessions of this home, which host them by themselves, and look what the
mesh knows; ``mcp_tools.py`` has the commands about tools of others.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from claudemesh_mcp.cli import chosen, secretfiles, serverlogs, show
from claudemesh_mcp.cli.asking import PEER, ask_here
from claudemesh_wire.errors import Conflict, Invalid, MeshError, NotFound, Unavailable

if TYPE_CHECKING:
    from claudemesh_mcp.calling.directory import Offered
    from claudemesh_mcp.granting import Reach
    from claudemesh_mcp.hosting.registry import Contents, Entry, Registry, Status
    from claudemesh_mcp.hosting.wishes import Scope, ServerWish
    from claudemesh_mcp.sdk import Mesh

_SCOPES: Final = "project|user|broker"
Name = Annotated[str, typer.Argument(metavar="NAME", help="Its name: a-z, 0-9, _ and -.")]


def add_to(group: typer.Typer) -> None:
    """Add the commands of this module to ``mcp-server``."""
    group.command()(add)
    group.command("list")(list_all)
    group.command()(remove)
    group.command()(serverlogs.logs)


def add(
    name: Name,
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- COMMAND ARGS...]", help="What starts it.", show_default=False),
    ] = None,
    *,
    scope: Annotated[
        str,
        typer.Option(
            metavar=_SCOPES, help="Where: sessions of this folder, all, or broker run --host-mcp."
        ),
    ] = "project",
    visible_to: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHO", help="own (if not given), mesh, @group, @group:role, role:admin, a peer."
        ),
    ] = None,
    tool: Annotated[
        list[str] | None, typer.Option(metavar="TOOL", help="Offer only this tool; repeatable.")
    ] = None,
    description: Annotated[str, typer.Option(help="What it is for, for who may call it.")] = "",
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="VARIABLE", help="Give it this variable, as it is set here."),
    ] = None,
    env_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Variables, a line NAME=VALUE for each.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="Where it answers, in place of a command.")
    ] = None,
    header_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Headers, a line `Name: value` for each.")
    ] = None,
) -> None:
    """Offer an MCP server to the mesh, from now on and after every restart.

    A session of this home starts it, one that is open at once; variables and headers are kept
    sealed on this machine. What is secret does not belong into COMMAND: others can see it there.

    \b
    Examples:
      claudemesh mcp-server add time -- uvx mcp-server-time
      claudemesh mcp-server add db --visible-to @team --tool query --env DB_URL -- npx -y my-db
      claudemesh mcp-server add wiki --scope user --url https://wiki.example/mcp --header-file h
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    from claudemesh_mcp.hosting.launch import Launch
    from claudemesh_mcp.hosting.wishes import ServerWish

    if not all(one.strip() for one in tool or ()):
        raise Invalid(
            "--tool names no tool.", "Name one as its server does: --tool query", code="bad_tool"
        )
    words = command or []
    launch = Launch(
        command=words[0] if words else "",
        args=tuple(words[1:]),
        env=secretfiles.variables(env or [], env_file),
        cwd=str(Path.cwd()) if words else "",
        url=url or "",
        headers=secretfiles.headers(header_file),
    )
    wish = ServerWish(
        name,
        launch,
        description,
        tuple(visible_to or ["own"]),
        tuple(tool) if tool else None,
        persistent=True,
        scope=_scope(scope),
    )
    wish.check()
    entry = _add(wish)
    show.word(f"{name}: {launch.command_line}")
    show.word(_what_happens(entry))
    show.word(_who_may_call(wish))


def _scope(said: str) -> "Scope":
    from claudemesh_mcp.hosting.wishes import Scope

    try:
        return Scope(said)
    except ValueError as error:
        raise Invalid(f"There is no scope {said[:40]!a}.", f"It is {_SCOPES}.") from error


def _add(wish: "ServerWish") -> "Entry":
    from claudemesh_mcp.hosting.registry import Entry
    from claudemesh_mcp.peer import system_ms

    registry, folder = _registry()
    identity = registry.identity
    own = identity.peer(f"resume:{PEER}")
    entry = Entry(wish, folder, own, identity.name, system_ms())
    registry.add(entry)
    return entry


def _registry() -> "tuple[Registry, str]":
    """Give what is kept in the mesh of this command, and the folder of its project."""
    from claudemesh_mcp.hosting.registry import Registry, place_of
    from claudemesh_mcp.identity import open_identity

    settings = chosen.settings()
    identity = open_identity(chosen.home(), settings)
    return Registry(identity), place_of(str(settings.project_dir or Path.cwd()))


def _what_happens(entry: "Entry") -> str:
    from claudemesh_mcp.hosting.wishes import Scope

    who = {
        Scope.PROJECT: f"A session in {entry.folder} starts it: one that is open, or the next.",
        Scope.USER: "A session of this home starts it: one that is open, or the next.",
        Scope.BROKER: "claudemesh broker run --host-mcp starts it: at once if that runs.",
    }[entry.wish.scope]
    return f"{who} How it is: claudemesh mcp-server list"


def _who_may_call(wish: "ServerWish") -> str:
    if set(wish.visible_to) == {"own"}:
        return "Your own sessions may call it."
    return (
        f"It is offered to {', '.join(wish.visible_to)}; of other members those may call it whom"
        " you let: claudemesh grant MEMBER tool"
    )


def list_all(
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the servers that the mesh offers here, and those that come back in this home.

    With --json: {"offered": [...], "kept": [...], "unreadable": [...], "error": ...}, where error
    says why the mesh could not be asked, or is null.

    \b
    Examples:
      claudemesh mcp-server list
      claudemesh mcp-server list --json | jq '.kept[] | select(.state != "running")'
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    registry, _ = _registry()
    kept = registry.read()
    statuses = [registry.status(entry) for entry in kept.entries]
    offers, error = _offers()
    if json:
        show.data(
            {
                "offered": [_offer_as_data(one) for one in offers],
                "kept": [_status_as_data(one) for one in statuses],
                "unreadable": [
                    {"path": str(one.path), **one.error.as_dict()} for one in kept.faults
                ],
                "error": error.as_dict() if error else None,
            }
        )
        return
    _print(offers, statuses, kept)
    if error is not None:
        show.word(f"The mesh could not be asked: {error.reason} {error.hint}")


def _offers() -> "tuple[Sequence[Offered], MeshError | None]":
    async def question(mesh: "Mesh", reach: "Reach") -> "Sequence[Offered]":
        from claudemesh_mcp.calling.directory import Directory

        return await Directory(mesh.peer).read(await reach())

    try:
        return ask_here(question), None
    except MeshError as error:
        return [], error


def _print(offers: "Sequence[Offered]", statuses: "Sequence[Status]", kept: "Contents") -> None:
    if offers:
        titles = ("offered", "member", "state", "since", "host", "tools")
        show.table(titles, (_offer_cells(one) for one in offers))
    elif not statuses:
        show.word("No server is offered here, and none comes back in this home.")
    if statuses:
        titles = ("comes back", "where", "state", "since", "by", "command")
        show.table(titles, (_status_cells(one) for one in statuses))
    for one in statuses:
        if one.why and one.state != "running":
            show.word(f"{one.entry.wish.name}: {one.why}")
    for fault in kept.faults:
        show.word(f"Not readable: {fault.error.reason} {fault.error.hint}")


def _offer_cells(one: "Offered") -> tuple[str, ...]:
    from claudemesh_mcp.results import rfc3339

    state = "online" if one.online else "offline"
    since = rfc3339(one.since_ms)
    return (one.full_name, one.member.name, state, since, one.host, str(len(one.tools)))


def _status_cells(one: "Status") -> tuple[str, ...]:
    from claudemesh_mcp.results import rfc3339

    entry = one.entry
    where = entry.folder if entry.wish.scope == "project" else str(entry.wish.scope)
    since = rfc3339(one.since_ms) if one.since_ms is not None else "-"
    line = entry.wish.launch.command_line
    return (entry.wish.name, where, one.state, since, one.by or "-", line)


def _offer_as_data(one: "Offered") -> dict[str, Any]:
    from claudemesh_mcp.results import rfc3339

    said = one.registration.fields
    return {
        "name": one.full_name,
        "peer": one.peer,
        "member": one.member.name,
        "member_id": one.member.id,
        "host": one.host,
        "online": one.online,
        "since": rfc3339(one.since_ms),
        "persistent": said.persistent,
        "description": said.description,
        "tools": [tool["name"] for tool in one.tools],
    }


def _status_as_data(one: "Status") -> dict[str, Any]:
    from claudemesh_mcp.results import rfc3339

    entry, wish = one.entry, one.entry.wish
    return {
        "name": wish.name,
        "scope": str(wish.scope),
        "folder": entry.folder,
        "state": one.state,
        "since": None if one.since_ms is None else rfc3339(one.since_ms),
        "by": one.by,
        "why": one.why,
        "command": wish.launch.command_line,
        "visible_to": list(wish.visible_to),
        "tools_allowed": None if wish.tools_allowed is None else list(wish.tools_allowed),
        "added": rfc3339(entry.at_ms),
        "added_by": entry.handle,
    }


def remove(
    name: Name,
    scope: Annotated[
        str | None, typer.Option(metavar=_SCOPES, help="Which one, where several have the name.")
    ] = None,
) -> None:
    """End a server that comes back, for good: wherever it is hosted, and for the mesh.

    Of several with this name the one of this folder is meant, unless --scope says otherwise.

    \b
    Examples:
      claudemesh mcp-server remove time
      claudemesh mcp-server remove wiki --scope user
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    registry, folder = _registry()
    entry = _meant(registry.read(), name, folder, scope and _scope(scope))

    async def question(_: "Mesh", reach: "Reach") -> bool:
        from claudemesh_mcp.hosting.ending import end

        return await end(registry, entry, reach)

    if not ask_here(question):
        raise Unavailable(
            f"{name} comes back no more, but who hosts it has not yet ended it.",
            "Look again in a minute: claudemesh mcp-server list",
            code="still_hosted",
        )
    show.word(f"{name} is ended, and comes back no more.")


def _meant(kept: "Contents", name: str, folder: str, scope: "Scope | str | None") -> "Entry":
    """Give the server that a name means.

    Raises:
        NotFound: ``unknown_server``.
        Conflict: ``ambiguous_server``.
    """
    from claudemesh_mcp.suggestions import did_you_mean

    found = [one for one in kept.entries if one.wish.name == name]
    found = [one for one in found if not scope or one.wish.scope == scope]
    here = [one for one in found if one.wish.scope == "project" and one.fits(folder)]
    meant = found if len(found) == 1 else here
    if len(meant) == 1:
        return meant[0]
    if found:
        where = ", ".join(sorted(f"{one.wish.scope} ({one.folder})" for one in found))
        raise Conflict(
            f"Several servers that come back are called {name}: {where}.",
            "Say --scope user or broker, or go into the folder that is meant.",
            code="ambiguous_server",
        )
    raise NotFound(
        f"No server {name[:80]!a} comes back in this home.",
        did_you_mean(name, {one.wish.name for one in kept.entries})
        or "claudemesh mcp-server list shows what does; what is not kept ends with its session.",
        code="unknown_server",
    )
