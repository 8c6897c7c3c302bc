"""Runs a hook and kills it: behind its offer, behind its print, or some ms after its start.

``stage.py`` lets it stand in the place of one hook of a client, with the word for the moment and
the hook's own command as arguments. A file beside the strikes says that the hook was killed.
"""

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from claudemesh_mcp.routes import records

_OFFERED = "SELECT 1 FROM inbox WHERE state = 'handed' AND printed IS NULL AND holder GLOB 'hook:*'"
_ENVIRON = os.environ  # noqa: TID251 - a program of its own
_KILLED = 137
_LOOK_AGAIN_S = 0.005


def main(how: str, command: Sequence[str]) -> int:
    """Run the hook; gives the exit code that the client is told."""
    if how == "offer":
        return _until_it_offers(command)
    if how in {"printed", "taken"}:
        return _until_it_prints(command, code=_KILLED if how == "printed" else 0)
    with subprocess.Popen(command) as hook:
        try:
            return hook.wait(int(how) / 1000)
        except subprocess.TimeoutExpired:
            return _kill(hook)


def _until_it_offers(command: Sequence[str]) -> int:
    """Give it an output that takes nothing, so that it can't go on behind its offer."""
    reading, writing = _full_pipe()
    record = records.find(_ENVIRON["CLAUDEMESH_HOME"], int(_ENVIRON["CLAUDE_PID"]))
    with subprocess.Popen(command, stdout=writing) as hook:
        while hook.poll() is None:
            if record is not None and _offers(Path(record.file)):
                return _kill(hook)
            time.sleep(_LOOK_AGAIN_S)  # noqa: TID251 - another process's commit gives no sign
    os.close(reading)
    _lay_again(command)
    return hook.returncode


def _until_it_prints(command: Sequence[str], *, code: int) -> int:
    with subprocess.Popen(command, stdout=subprocess.PIPE) as hook:
        assert hook.stdout is not None
        told = os.read(hook.stdout.fileno(), 65_536)
        if not told:
            _lay_again(command)
            return hook.wait()
        _kill(hook)
        told += hook.stdout.read()
    os.write(1, told)
    return code


def _lay_again(command: Sequence[str]) -> None:
    """Leave the strike for the next hook of this event: this one had nothing to show."""
    event = Path(_ENVIRON["CAMPAIGN_STRIKES"], command[-1])
    event.with_name(f"{event.name}.{os.getpid()}").rename(event)


def _kill(hook: "subprocess.Popen[bytes]") -> int:
    hook.kill()
    if hook.wait() < 0:
        Path(_ENVIRON["CAMPAIGN_STRIKES"], f"killed.{os.getpid()}").touch()
    return _KILLED


def _full_pipe() -> tuple[int, int]:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    for size in (65_536, 1):
        try:
            while os.write(writing, b"." * size):
                pass
        except BlockingIOError:
            continue
    os.set_blocking(writing, True)
    return reading, writing


def _offers(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as sql:
            return sql.execute(_OFFERED).fetchone() is not None
    except sqlite3.Error:
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
