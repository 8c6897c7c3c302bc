"""The commands ``invite``, ``invites`` and ``join``: how somebody else comes into the mesh.

They hand on to ``governing.py`` and ``joining.py`` and print through ``show.py``.
"""

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import anyio
import typer

from claudemesh_mcp.cli import show
from claudemesh_mcp.cli.asking import ask, ask_here
from claudemesh_mcp.cli.chosen import settings
from claudemesh_mcp.cli.durations import milliseconds
from claudemesh_mcp.cli.grants import tell_untold
from claudemesh_wire.errors import Conflict, MeshError

if TYPE_CHECKING:
    from claudemesh_mcp.governing import Invited, OpenInvites, Terms
    from claudemesh_mcp.granting import Reach, Said
    from claudemesh_mcp.joining import Joined
    from claudemesh_mcp.sdk import Mesh

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RoleName = Literal["admin", "member", "observer", "owner"]
_STDIN: Final = "-"
# What is there now is not what the link was made for.
_OTHER_BROKER: Final = frozenset({"wrong_broker", "certificate_changed"})
_RECIPE: Final = (
    "1. On the host:    claudemesh broker run --bind 0.0.0.0 --tls auto",
    "2. You, there:     claudemesh mesh create team --broker URL   (as the broker prints it)",
    "3. You:            claudemesh invite",
    "4. Your teammate:  claudemesh join LINK",
)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (invite, invites, join):
        app.command()(command)


def invite(
    *,
    role: Annotated[RoleName, typer.Option(help="The role that joiners get.")] = "member",
    uses: Annotated[int, typer.Option(min=1, max=10_000, help="How many may join by it.")] = 1,
    expires: Annotated[str, typer.Option(metavar="TIME", help="How long it is good.")] = "24h",
    grant: Annotated[
        list[str] | None,
        typer.Option(metavar="WHAT", help="What joiners may do with your sessions; repeatable."),
    ] = None,
    mine: Annotated[
        bool, typer.Option("--mine", help="For a second machine of your own: all is granted.")
    ] = False,
    qr: Annotated[
        bool | None, typer.Option("--qr/--no-qr", help="A QR code; on a terminal if not said.")
    ] = None,
    json: Json = False,
) -> None:
    """Make a link by which somebody joins the mesh.

    Whoever has the link can use it: send it to the one it is for. With --json: {"link", "mesh",
    "role", "uses", "expires_at", "grants"}.

    \b
    Examples:
      claudemesh invite
      claudemesh invite --role observer --uses 20 --expires 7d
      claudemesh invite --mine               for join --mine on your other machine
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    from claudemesh_mcp.governing import Terms
    from claudemesh_wire.message import Role

    granted = _everything() if mine else _read_grants(grant or [])
    terms = Terms(Role(role), uses, milliseconds(expires), granted)
    name, made = ask(lambda mesh: _invite(mesh, terms))
    link = made.link.to_text()
    if json:
        show.data({"link": link, **_shown(made, name)})
        return
    print(link)
    told = _shown(made, name)
    show.word(
        f"Into {name} as {told['role']}, {told['uses']} time(s), until {told['expires_at']}."
        " Whoever has the link can use it."
    )
    if qr or (qr is None and sys.stderr.isatty()):
        _print_qr(link)


def _read_grants(words: list[str]) -> tuple[str, ...]:
    from claudemesh_mcp.grantnames import capabilities, named

    return tuple(sorted(capabilities(one.lower() for one in named(words))))


def _everything() -> tuple[str, ...]:
    from claudemesh_wire.grants import Capability

    return tuple(str(one) for one in Capability)


async def _invite(mesh: "Mesh", terms: "Terms") -> tuple[str, "Invited"]:
    from claudemesh_mcp import governing, meshes

    client = await mesh.ready()
    identity = mesh.peer.identity
    try:
        if identity.mesh_name == meshes.LOCAL:
            raise Conflict(
                "The local mesh is for this home's own sessions.",
                "Make one for others.",
                code="local_mesh",
            )
        broker = (await mesh.mesh_info()).broker.id
        return identity.mesh_name, await governing.invite(mesh.peer, client, broker, terms)
    except MeshError as error:
        if error.code in {"local_mesh", "loopback_only"}:
            # How it is done takes more than a sentence.
            for line in _RECIPE:
                show.word(line)
        raise


def _shown(made: "Invited", mesh: str) -> dict[str, Any]:
    from claudemesh_mcp.results import rfc3339

    fields = made.fields
    return {
        "mesh": mesh,
        "role": fields.role,
        "uses": fields.uses,
        "expires_at": rfc3339(fields.expires),
        "grants": fields.grants or [],
    }


def _print_qr(link: str) -> None:
    import segno

    segno.make(link, error="l").terminal(out=sys.stderr, compact=True)


def invites(
    withdraw: Annotated[
        str | None, typer.Option(metavar="CODE", help="Take this one back.")
    ] = None,
    json: Json = False,
) -> None:
    """Print the invites that are open, or take one back.

    With --json: {"invites": [{"code", "role", "uses", "used", "expires_at", "by", "grants"}]}.

    \b
    Examples:
      claudemesh invites
      claudemesh invites --withdraw q3h5…
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    if withdraw is not None:
        ask(lambda mesh: _withdraw(mesh, withdraw))
        show.word("It is taken back; who came by it stays.")
        return
    rows = [_invite_row(one) for one in ask(_open_invites)]
    if json:
        show.data({"invites": rows})
        return
    titles = ("code", "role", "used", "expires", "by")
    cells = [
        (row["code"], row["role"], f"{row['used']}/{row['uses']}", row["expires_at"], row["by"])
        for row in rows
    ]
    show.table(titles, cells)


async def _open_invites(mesh: "Mesh") -> "list[OpenInvites]":
    from claudemesh_mcp import governing

    return await governing.open_invites(mesh.peer, await mesh.ready())


async def _withdraw(mesh: "Mesh", code: str) -> None:
    from pydantic import ValidationError

    from claudemesh_wire.errors import Invalid
    from claudemesh_wire.invites import WithdrawInvite

    try:
        request = WithdrawInvite(code=code)
    except ValidationError as error:
        raise Invalid(
            f"{code[:40]!a} is not the code of an invite.", "claudemesh invites lists them."
        ) from error
    await (await mesh.ready()).call(request)


def _invite_row(one: "OpenInvites") -> dict[str, Any]:
    from claudemesh_mcp.results import rfc3339

    fields = one.fields
    return {
        "code": fields.id,
        "role": fields.role,
        "uses": fields.uses,
        "used": one.used,
        "expires_at": rfc3339(fields.expires),
        "by": one.by,
        "grants": fields.grants or [],
    }


def join(
    link: Annotated[str, typer.Argument(help="What `claudemesh invite` printed; - reads stdin.")],
    *,
    as_: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Your name in that mesh.")
    ] = None,
    called: Annotated[
        str | None, typer.Option(metavar="NAME", help="What to call the mesh here.")
    ] = None,
    mine: Annotated[
        bool, typer.Option("--mine", help="The inviter is you on another machine: grant it all.")
    ] = False,
    use: Annotated[
        bool, typer.Option("--use/--no-use", help="Have new sessions be in it from now on.")
    ] = True,
    json: Json = False,
) -> None:
    """Join a mesh by a link that somebody gave you.

    With --json: {"mesh", "id", "name", "role", "invited_by", "broker", "joined"}.

    \b
    Examples:
      claudemesh join 'https://host:7467/i/CODE#KEY'
      pbpaste | claudemesh join -
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    from claudemesh_mcp.joining import Wish
    from claudemesh_mcp.joining import join as enter
    from claudemesh_mcp.project import wished_handle
    from claudemesh_wire.links import InviteLink

    text = sys.stdin.readline() if link == _STDIN else link
    wish = Wish(
        name=wished_handle(as_) if as_ is not None else None,
        called=wished_handle(called) if called is not None else None,
    )
    try:
        joined = anyio.run(enter, InviteLink.parse(text), settings(), wish)
    except MeshError as error:
        if error.code in _OTHER_BROKER:
            error.hint = "Do not use this link: ask who gave it to you for a new one."
        raise
    if mine:
        _grant_all(joined)
    used = use and _use(joined.mesh.name)
    if json:
        show.data(_joined(joined))
        return
    inviter = f", invited by {joined.inviter.name}" if joined.inviter else ""
    verb = "You are" if joined.anew else "You were already"
    show.line(f"{verb} {joined.member.name}, {joined.member.role} of {joined.mesh.name}{inviter}.")
    if wish.called not in {None, joined.mesh.name}:
        show.word(
            f"It keeps the name that it has here; to change that:"
            f" claudemesh mesh rename {joined.mesh.name} {wish.called} --here"
        )
    if used:
        show.word(
            f"New sessions are in {joined.mesh.name} from now on;"
            " claudemesh mesh use local goes back."
        )


def _grant_all(joined: "Joined") -> None:
    """Let the inviter, who is the same person, do all with this machine's sessions."""
    inviter = joined.inviter
    if inviter is None:
        return

    async def grant(mesh: "Mesh", reach: "Reach") -> "Said":
        from claudemesh_mcp import granting

        wanted = granting.Change(allow=frozenset(_everything()))
        return await granting.change(mesh.peer, reach, inviter.id, wanted)

    said = ask_here(grant, settings=replace(settings(), mesh=joined.mesh.id))
    show.word(f"{inviter.name} may do all with your sessions here.")
    tell_untold(said.untold)
    if set(joined.member.invite_grants) < set(_everything()):
        show.word(
            f"The invite was not made with --mine: on the other machine run"
            f" claudemesh grant {joined.member.name} {' '.join(_everything())}"
        )


def _use(name: str) -> bool:
    from claudemesh_mcp.cli.settings import write_setting

    write_setting("mesh", name)
    return True


def _joined(joined: "Joined") -> dict[str, Any]:
    place = joined.mesh.place
    return {
        "mesh": joined.mesh.name,
        "id": joined.mesh.id,
        "name": joined.member.name,
        "role": str(joined.member.role),
        "invited_by": joined.inviter.name if joined.inviter else None,
        "broker": place.url if place else None,
        "joined": joined.anew,
    }
