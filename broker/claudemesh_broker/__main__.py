"""``python -m claudemesh_broker``: run a broker, or look after the data of one.

``claudemesh broker`` and the sessions' launcher start it. Whatever keeps a command from being done
is one sentence on stderr and, for the sessions of a broker's home, a file.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from claudemesh_broker import embedded, server
from claudemesh_broker.config import BrokerSettings
from claudemesh_wire.errors import MeshError


def main(arguments: Sequence[str] | None = None) -> int:
    """Do one command; gives the exit status."""
    flags = vars(_parser().parse_args(arguments))
    flags.pop("command")
    return _run(flags)


def _run(flags: dict[str, object]) -> int:
    named = flags["run"] if flags["embedded"] else None
    run = Path(str(named)) if named else None
    try:
        settings = BrokerSettings.load(flags)
        run = settings.run if settings.embedded else None
        return server.run(settings)
    except MeshError as error:
        print(f"claudemesh broker: {error}", file=sys.stderr)  # noqa: T201 - its one sentence
        if run is not None:
            with suppress(MeshError):
                embedded.report_failure(run, error)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="claudemesh_broker")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a broker in the foreground")
    run.add_argument("--bind", help="the address to listen on")
    run.add_argument("--port", type=int, help="the port; 0 takes a free one")
    run.add_argument("--tls", help="off, auto, own or proxy")
    run.add_argument("--tls-cert", help="a certificate of your own, PEM")
    run.add_argument("--tls-key", help="its key, PEM")
    run.add_argument("--public-url", help="how others reach it: https://HOST:PORT")
    run.add_argument("--data", help="the folder of its database and key")
    run.add_argument("--run", help="the folder in which it says where it listens")
    run.add_argument("--log-level", help="debug, info, warning or error")
    run.add_argument(
        "--embedded",
        action="store_true",
        default=None,
        help="started by a session: ends by itself when it is idle",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
