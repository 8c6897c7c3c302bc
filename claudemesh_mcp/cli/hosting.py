"""The commands of whoever hosts a broker: ``broker run``, ``check``, ``backup`` and ``restore``.

Each becomes the broker's own program, with the same words: the two sides share no code.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from claudemesh_mcp.cli import chosen
from claudemesh_wire.errors import Invalid

Data = Annotated[
    str | None, typer.Option(metavar="DIR", help="Its data; that of this home if not given.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    broker = typer.Typer(help="Run a broker oneself, and look after it.", no_args_is_help=True)
    for command in (run, check, backup, restore):
        broker.command()(command)
    app.add_typer(broker, name="broker")


def run(
    *,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Where to listen; any free port for 0.")
    ] = None,
    data: Data = None,
    bind: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="For other machines: 0.0.0.0 or ::")
    ] = None,
    tls: Annotated[
        str | None,
        typer.Option(metavar="HOW", help="auto: make a certificate; proxy: one speaks TLS for it."),
    ] = None,
    tls_cert: Annotated[
        str | None, typer.Option(metavar="FILE", help="A certificate of your own, PEM.")
    ] = None,
    tls_key: Annotated[str | None, typer.Option(metavar="FILE", help="Its key, PEM.")] = None,
    public_url: Annotated[
        str | None, typer.Option(metavar="URL", help="How others reach it: https://HOST:PORT")
    ] = None,
    host_mcp: Annotated[
        bool, typer.Option("--host-mcp", help="Host the MCP servers of the scope broker.")
    ] = False,
) -> None:
    """Run a broker in the foreground.

    It runs until Ctrl-C. Without --data it is the broker of this home: its sessions find it.
    It listens on this machine only; for others it needs --bind and TLS, or a proxy that has it.

    With --host-mcp a peer of this home hosts, as long as the broker runs, what was added by
    `claudemesh mcp-server add --scope broker`, in the mesh that --mesh before the command names.

    \b
    Examples:
      claudemesh broker run
      claudemesh --mesh team broker run --data ~/mesh --bind 0.0.0.0 --tls auto --host-mcp
      claudemesh broker run --port 7300 --data ~/mesh
      claudemesh broker run --bind 0.0.0.0 --tls auto
      claudemesh broker run --bind 0.0.0.0 --tls-cert mesh.crt --tls-key mesh.key
      claudemesh broker run --tls proxy --public-url https://mesh.example.org
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    given = {
        "--port": port,
        "--data": data,
        # Beside its data: in the home's own folder it would pass for the home's broker.
        "--run": str(Path(data) / "run") if data is not None else None,
        "--bind": bind,
        "--tls": tls,
        "--tls-cert": tls_cert,
        "--tls-key": tls_key,
        "--public-url": public_url,
    }
    if host_mcp:
        _start_resident(data)
    flags = [(name, str(value)) for name, value in given.items() if value is not None]
    _become("run", *(word for flag in flags for word in flag))


def check(data: Data = None, json: Json = False) -> None:
    """Look over a broker's data: database, key, certificate, permissions, space.

    Also while it runs. Nothing is changed. The exit code is 1 when something is wrong.

    With --json: {"ok", "data", "checks": [{"name", "state", "says", "hint"}]}, where state is ok,
    warning or failed.

    \b
    Examples:
      claudemesh broker check
      claudemesh broker check --data /var/lib/claudemesh/broker --json
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    _become("check", *_shared(data, json=json))


def backup(
    to: Annotated[str, typer.Argument(metavar="FILE_OR_DIR", help="Where to write it.")],
    data: Data = None,
    json: Json = False,
) -> None:
    """Copy a broker's data into one file, also while it runs.

    Everything that was accepted before is in it: messages, still sealed, the broker's keys and its
    admin secret. Only this user can read the file; keep it as safe as the broker itself. Nothing is
    replaced: in a folder, the file is named after the time.

    With --json: {"path", "broker", "made_ms", "version", "data_version", "format", "files"}.

    \b
    Examples:
      claudemesh broker backup /mnt/backups
      claudemesh broker backup mesh.tar --data /var/lib/claudemesh/broker
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    _become("backup", *_shared(data, json=json), "--", to)


def restore(
    file: Annotated[str, typer.Argument(help="The backup.")],
    data: Data = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also where there is data; it is kept aside.")
    ] = False,
    json: Json = False,
) -> None:
    """Put a backup in the place of a broker's data.

    The broker must not run. All of the backup is checked before anything is touched. Sessions that
    know more members than it offers bring it up to date by themselves.

    With --json: {"data", "kept", "broker", "made_ms", "version", "data_version", "format",
    "files"}, where kept is the folder of what was there before, or null.

    \b
    Examples:
      claudemesh broker restore mesh.tar --data ~/mesh
      claudemesh broker restore /mnt/backups/claudemesh-broker-20261124-093000.tar --force
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    forced = ["--force"] if force else []
    _become("restore", *forced, *_shared(data, json=json), "--", file)


def _shared(data: str | None, *, json: bool) -> list[str]:
    return [*(["--data", data] if data is not None else []), *(["--json"] if json else [])]


def _start_resident(data: str | None) -> None:
    """Start the peer that hosts servers; the pipe on its stdin ends with what this becomes."""
    from claudemesh_mcp.dialling import place_of
    from claudemesh_mcp.meshes import LOCAL

    settings = chosen.settings()
    if data is not None and place_of(settings) is None:
        raise Invalid(
            "The local mesh of this home is not at the broker of --data.",
            "Name the mesh to host in: claudemesh --mesh NAME broker run --data DIR --host-mcp",
            code="no_mesh_there",
        )
    ours, theirs = os.pipe()
    subprocess.Popen(
        [sys.executable, "-m", "claudemesh_mcp.resident", settings.mesh or LOCAL],
        stdin=ours,
        stdout=subprocess.DEVNULL,
        # A Ctrl-C in the terminal is for the broker, with which it ends.
        start_new_session=True,
    )
    os.close(ours)
    os.set_inheritable(theirs, True)


def _become(*words: str) -> None:
    command = [sys.executable, "-m", "claudemesh_broker", *words]
    sys.stdout.flush()
    if sys.platform == "win32":  # there, exec returns to the shell at once
        raise typer.Exit(subprocess.run(command, check=False).returncode)
    os.execv(command[0], command)  # noqa: S606 - it is to become the broker
