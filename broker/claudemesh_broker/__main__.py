"""``python -m claudemesh_broker``: run a broker, or look after the data of one.

``claudemesh broker`` and the sessions' launcher start it. Whatever keeps a command from being done
is one sentence on stderr and, for the sessions of a broker's home, a file.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from claudemesh_broker import embedded
from claudemesh_broker.config import BrokerSettings
from claudemesh_wire.errors import Invalid, MeshError

if TYPE_CHECKING:
    from claudemesh_broker.archive import Manifest

EXIT_CODES: Final = {
    "invalid": 2,
    "not_found": 3,
    "unauthenticated": 4,
    "forbidden": 4,
}
"""As those of ``claudemesh``; whatever else keeps a command from being done is 1."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do one command; gives the exit status."""
    flags = vars(_parser().parse_args(arguments))
    command = flags.pop("command")
    if command == "run":
        return _run(flags)
    as_json = flags.pop("json")
    try:
        return {"check": _check, "backup": _back_up, "restore": _restore}[command](
            flags, as_json=as_json
        )
    except MeshError as error:
        if as_json:
            _say(json.dumps({"error": error.as_dict()}, indent=1))
        else:
            print(f"claudemesh broker: {error}", file=sys.stderr)  # noqa: T201 - its one sentence
        return EXIT_CODES.get(error.category, 1)


def _check(flags: dict[str, Any], *, as_json: bool) -> int:
    from claudemesh_broker import checkup

    settings = BrokerSettings.load(flags)
    findings = checkup.check_up(settings)
    is_ok = all(one.state != checkup.State.FAILED for one in findings)
    if as_json:
        checks = [one.as_dict() for one in findings]
        _say(json.dumps({"ok": is_ok, "data": str(settings.data), "checks": checks}, indent=1))
    else:
        for one in findings:
            _say(f"{one.state:8} {one.name}: {one.says}")
            if one.hint:
                _say(f"{'':8} {one.hint}")
    return 0 if is_ok else 1


def _back_up(flags: dict[str, Any], *, as_json: bool) -> int:
    from claudemesh_broker.backup import back_up

    to = _path(flags.pop("to"), "Name a file for the backup, or a folder.")
    made = back_up(BrokerSettings.load(flags).data, to)
    _tell(made.manifest, f"{made.path} holds", {"path": str(made.path)}, as_json=as_json)
    return 0


def _restore(flags: dict[str, Any], *, as_json: bool) -> int:
    from claudemesh_broker.restore import restore

    archive = _path(flags.pop("file"), "Name the file that `claudemesh broker backup` wrote.")
    force = bool(flags.pop("force"))
    data = BrokerSettings.load(flags).data
    done = restore(archive, data, force=force)
    kept = str(done.kept) if done.kept else None
    _tell(done.manifest, f"{data} now holds", {"data": str(data), "kept": kept}, as_json=as_json)
    if kept and not as_json:
        _say(f"what was there before is in {kept}")
    return 0


def _path(text: str, hint: str) -> Path:
    # An empty text, as of a variable that is not set, would be the folder one happens to be in.
    if not text:
        raise Invalid("No file is named.", hint, code="no_path")
    return Path(text)


def _tell(manifest: "Manifest", lead: str, more: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        _say(json.dumps({**more, **json.loads(manifest.to_json())}, indent=1))
        return
    made = datetime.fromtimestamp(manifest.made_ms / 1000, UTC)
    _say(f"{lead} broker {manifest.broker} as of {made:%Y-%m-%d %H:%M:%S} UTC")
    for name, (size, _) in sorted(manifest.sums.items()):
        _say(f"  {name}  {size} bytes")


def _say(text: str) -> None:
    print(text)  # noqa: T201 - its answer


def _run(flags: dict[str, Any]) -> int:
    start_lock: int | None = flags.pop("start_lock")
    named = flags["run"] if flags["embedded"] else None
    run = Path(str(named)) if named else None
    try:
        settings = BrokerSettings.load(flags)
        from claudemesh_broker import server

        run = settings.run if settings.embedded else None
        return server.run(settings, start_lock)
    except MeshError as error:
        print(f"claudemesh broker: {error}", file=sys.stderr)  # noqa: T201 - its one sentence
        if run is not None:
            with suppress(MeshError):
                embedded.report_failure(run, error)
        return EXIT_CODES.get(error.category, 1)


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
    run.add_argument("--start-lock", type=int, help=argparse.SUPPRESS)
    check = commands.add_parser("check", help="look over its data")
    backup = commands.add_parser("backup", help="copy its data into one file, also while it runs")
    backup.add_argument("to", help="the file, or a folder for it")
    put_back = commands.add_parser("restore", help="put a backup in the place of its data")
    put_back.add_argument("file", help="the backup")
    put_back.add_argument("--force", action="store_true", help="also where there is data already")
    for one in (check, backup, put_back):
        one.add_argument("--data", help="the folder of its database and key")
        one.add_argument("--json", action="store_true", help="print JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
