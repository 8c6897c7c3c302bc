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
_LOCK_S = 10
_WAYS = {"offer", "printed", "taken"}


def main(how: str, command: Sequence[str]) -> int:
    """Run the hook; gives the exit code that the client is told."""
    if how in _WAYS:
        return _behind_its_offer(how, command)
    with subprocess.Popen(command) as hook:
        try:
            return hook.wait(int(how) / 1000)
        except subprocess.TimeoutExpired:
            return _kill(hook)


def _behind_its_offer(how: str, command: Sequence[str]) -> int:
    """Give it an output that takes nothing, so that it can't go on behind its offer."""
    reading, writing, filled = _full_pipe()
    record = records.find(_ENVIRON["CLAUDEMESH_HOME"], int(_ENVIRON["CLAUDE_PID"]))
    with subprocess.Popen(command, stdout=writing) as hook:
        while hook.poll() is None:
            if record is None or not _offers(Path(record.file)):
                time.sleep(_LOOK_AGAIN_S)  # noqa: TID251 - another process's commit gives no sign
            elif how == "offer":
                return _kill(hook)
            else:
                os.close(writing)
                told = _let_print(hook, Path(record.file), (reading, filled))
                os.write(1, told)
                return _KILLED if how == "printed" else 0
    # This one had nothing to show: the strike is for the next hook of the event.
    event = Path(_ENVIRON["CAMPAIGN_STRIKES"], command[-1])
    event.with_name(f"{event.name}.{os.getpid()}").rename(event)
    return hook.returncode


def _let_print(hook: "subprocess.Popen[bytes]", path: Path, pipe: tuple[int, int]) -> bytes:
    """Let it print, but not note that it has, and kill it; gives what it printed."""
    reading, filled = pipe
    with closing(sqlite3.connect(path, isolation_level=None, timeout=_LOCK_S)) as sql:
        sql.execute("BEGIN IMMEDIATE")
        told = b""
        while len(told) <= filled:
            told += os.read(reading, 65_536)
        _kill(hook)
        sql.execute("ROLLBACK")
    while more := os.read(reading, 65_536):
        told += more
    return told[filled:]


def _kill(hook: "subprocess.Popen[bytes]") -> int:
    hook.kill()
    if hook.wait() < 0:
        Path(_ENVIRON["CAMPAIGN_STRIKES"], f"killed.{os.getpid()}").touch()
    return _KILLED


def _full_pipe() -> tuple[int, int, int]:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    filled = 0
    for size in (65_536, 1):
        try:
            while True:
                filled += os.write(writing, b"." * size)
        except BlockingIOError:
            continue
    os.set_blocking(writing, True)
    return reading, writing, filled


def _offers(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as sql:
            return sql.execute(_OFFERED).fetchone() is not None
    except sqlite3.Error:
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
