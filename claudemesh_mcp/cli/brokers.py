"""The commands around the broker of this home: ``up``, ``down`` and ``status``.

They ask ``Launcher`` for it; ``hosting.py`` has the commands of whoever runs one by hand.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import anyio
import typer

from claudemesh_mcp.cli import chosen, held, show
from claudemesh_mcp.cli.asking import open_mesh
from claudemesh_mcp.cli.known import both_names
from claudemesh_wire.errors import Unavailable

if TYPE_CHECKING:
    from claudemesh_mcp.held import Found
    from claudemesh_mcp.launcher import BrokerInfo, Launcher
    from claudemesh_mcp.meshresults import PeerRow

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_MOST_PEERS: Final = 100


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(up)
    app.command()(down)
    app.command()(status)


def up(json: Json = False) -> None:
    """Start the broker of this home, unless it runs.

    Sessions do so by themselves.

    \b
    Examples:
      claudemesh up
      claudemesh up --json | jq -r .broker.url
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    broker = anyio.run(_launcher().ensure)
    _print_broker(broker, json)


def down(
    force: Annotated[
        bool, typer.Option("--force", help="Kill it if it does not end in time.")
    ] = False,
    json: Json = False,
) -> None:
    """End the broker of this home, if one runs.

    One that is just being started is waited for and ended too. Nothing that it accepted is lost. A
    session that is open starts a new one when it needs it.

    \b
    Examples:
      claudemesh down
      claudemesh down --force
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    launcher = _launcher()
    broker = launcher.find()
    runs = broker is not None or launcher.find_silent() is not None

    async def stop() -> bool:
        return await launcher.stop(_STOP_S, force=force)

    if not anyio.run(stop):
        raise Unavailable(
            f"The broker has not ended within {_STOP_S:g} s.",
            f"Try `claudemesh down --force`; its log: {launcher.log_file}",
            code="broker_stuck",
        )
    if json:
        show.data({"stopped": _shown(broker)})
    else:
        show.word("The broker has ended." if runs else "No broker runs.")


def status(json: Json = False) -> None:
    """Print the mesh that holds here, its broker and its peers.

    With --json: {"mesh", "called", "broker": {"pid", "url", "version", "data"}, "peers": [...]},
    where called is the name that the mesh's members have for it, and broker is null when none runs;
    that is exit code 0 with --json and 5 without. Of a broker on another machine pid and data are
    null.

    \b
    Examples:
      claudemesh status
      claudemesh --mesh team status --json
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    from claudemesh_mcp.dialling import place_of
    from claudemesh_mcp.meshes import LOCAL

    settings = chosen.settings()
    is_remote = place_of(settings) is not None
    broker = None if is_remote else _launcher().find()
    if broker is None and not is_remote and not json:
        raise Unavailable(
            "No broker runs for this home.",
            "Run `claudemesh up`; sessions also start it by themselves.",
            code="no_broker",
        )
    seen = anyio.run(_look) if broker or is_remote else None
    shown = _shown(broker) or (seen and seen.broker)
    if json:
        rows = seen.peers if seen else []
        peers = [row.model_dump(mode="json", by_alias=True) for row in rows]
        named = {"mesh": settings.mesh or LOCAL, "called": seen and seen.called}
        show.data({**named, "broker": shown, "peers": peers})
    elif seen and shown:
        where = f"pid {shown['pid']}  " if shown["pid"] else ""
        names = both_names(seen.mesh, seen.called)
        show.line(f"{names}  {shown['url']}  {where}version {shown['version']}")
        if shown["data"]:
            show.word(f"data: {shown['data']}")
        show.peers(seen.peers)
    held.tell(seen.held if seen else anyio.run(held.find))


_STOP_S: Final = 15.0


def _launcher() -> "Launcher":
    from claudemesh_mcp.home import Home
    from claudemesh_mcp.launcher import Launcher

    return Launcher(Home.open(chosen.settings().paths()))


@dataclass(frozen=True)
class _Seen:
    """What the mesh showed: its broker, and its peers but for the command line's own.

    Args:
        mesh: What this home calls it.
        called: What its members call it.
        held: What waits in this home until its user lets it through.
    """

    mesh: str
    called: str
    broker: dict[str, Any]
    peers: "list[PeerRow]"
    held: "Found"


async def _look() -> _Seen:
    async with open_mesh() as mesh:
        found = await mesh.search_peers(limit=_MOST_PEERS)
        broker = (await mesh.mesh_info()).broker
        rows = [row for row in found.peers if not row.is_self]
        said = {"pid": None, "url": broker.url, "version": broker.version, "data": None}
        names = (mesh.peer.identity.mesh_name, mesh.peer.trust.chain.name)
        return _Seen(*names, said, rows, await held.find())


def _shown(broker: "BrokerInfo | None") -> dict[str, Any] | None:
    if broker is None:
        return None
    return {
        "pid": broker.pid,
        "url": broker.url,
        "version": broker.version,
        "data": str(broker.data),
    }


def _print_broker(broker: "BrokerInfo", json: bool) -> None:
    if json:
        show.data({"broker": _shown(broker)})
        return
    show.line(f"{broker.url}  pid {broker.pid}  version {broker.version}")
    show.word(f"data: {broker.data}")
