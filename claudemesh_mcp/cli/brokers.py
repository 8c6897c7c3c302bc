"""The commands around the broker: ``up``, ``down``, ``status`` and ``broker run``.

They ask ``Launcher`` for the embedded broker of this home; ``broker run`` becomes the broker.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import anyio
import typer

from claudemesh_mcp.cli import held, show
from claudemesh_mcp.cli.asking import open_mesh
from claudemesh_mcp.config import Settings
from claudemesh_wire.errors import Unavailable

if TYPE_CHECKING:
    from claudemesh_mcp.held import Held
    from claudemesh_mcp.launcher import BrokerInfo, Launcher
    from claudemesh_mcp.results import PeerRow

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_MOST_PEERS: Final = 100


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(up)
    app.command()(down)
    app.command()(status)
    broker = typer.Typer(help="Run a broker oneself.", no_args_is_help=True)
    broker.command("run")(run)
    # A group of one command would otherwise be that command.
    broker.callback()(lambda: None)
    app.add_typer(broker, name="broker")


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

    Nothing that it accepted is lost. A session that is open starts a new one when it needs it.

    \b
    Examples:
      claudemesh down
      claudemesh down --force
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    launcher = _launcher()
    broker = launcher.find()

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
        show.word("The broker has ended." if broker else "No broker was running.")


def status(json: Json = False) -> None:
    """Print the broker of this home and its peers.

    With --json: {"broker": {"pid", "url", "version", "data"}, "peers": [...]}, where broker is
    null when none runs; that is exit code 0 with --json and 5 without.

    \b
    Examples:
      claudemesh status
      claudemesh status --json
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    broker = _launcher().find()
    if broker is None and not json:
        raise Unavailable(
            "No broker runs for this home.",
            "Run `claudemesh up`; sessions also start it by themselves.",
            code="no_broker",
        )
    rows, waiting = anyio.run(_peers) if broker else ([], [])
    if json:
        shown = [row.model_dump(mode="json", by_alias=True) for row in rows]
        show.data({"broker": _shown(broker), "peers": shown})
    elif broker:
        _print_broker(broker, json)
        show.peers(rows)
    held.tell(waiting)


def run(
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Where to listen; any free port for 0.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="DIR", help="Its data; that of this home if not given.")
    ] = None,
) -> None:
    """Run a broker in the foreground.

    It runs until Ctrl-C. Without --data it is the broker of this home: its sessions find it.

    \b
    Examples:
      claudemesh broker run
      claudemesh broker run --port 7300 --data ~/mesh
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    command = [sys.executable, "-m", "claudemesh_broker", "run"]
    if port is not None:
        command += ["--port", str(port)]
    if data is not None:
        # Beside its data: in the home's own folder it would pass for the home's broker.
        command += ["--data", data, "--run", str(Path(data) / "run")]
    sys.stdout.flush()
    if sys.platform == "win32":  # there, exec returns to the shell at once
        raise typer.Exit(subprocess.run(command, check=False).returncode)
    os.execv(command[0], command)  # noqa: S606 - it is to become the broker


_STOP_S: Final = 15.0


def _launcher() -> "Launcher":
    from claudemesh_mcp.home import Home
    from claudemesh_mcp.launcher import Launcher

    return Launcher(Home.open(Settings.load().paths()))


async def _peers() -> "tuple[list[PeerRow], list[Held]]":
    """Give the peers of the mesh, but for the command line's own, and what is held in this home."""
    async with open_mesh() as mesh:
        found = await mesh.search_peers(limit=_MOST_PEERS)
        return [row for row in found.peers if not row.is_self], await held.find(mesh)


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
