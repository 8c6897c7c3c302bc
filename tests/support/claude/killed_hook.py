"""Runs a hook and kills it between its offer and its print: its output is a pipe that is full.

A client runs it in the place of the hook, with the hook's command as arguments. A hook that has
nothing to offer ends by itself; one that would print no more than a probe is killed as well.
"""

import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

_OFFERED = "SELECT 1 FROM inbox WHERE state = 'handed' AND printed IS NULL AND holder GLOB 'hook:*'"
_PROBE = "SELECT value FROM facts WHERE key = 'route.probe' AND value <> ''"


def main(command: list[str], home: Path) -> None:
    """Run the hook."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while os.write(writing, b"." * 65_536):
            pass
    with suppress(BlockingIOError):
        while os.write(writing, b"."):
            pass
    os.set_blocking(writing, True)
    before = {path: _found(path, _PROBE) for path in _files(home)}
    with subprocess.Popen(command, stdout=writing) as hook:
        while hook.poll() is None:
            for path in _files(home):
                probe = _found(path, _PROBE)
                if _found(path, _OFFERED) or (probe and probe != before.get(path)):
                    hook.kill()
            time.sleep(0.01)  # noqa: TID251 - another process's commit gives no sign
    os.close(reading)


def _files(home: Path) -> list[Path]:
    return list(home.glob("sessions/p_*/peer.db"))


def _found(path: Path, query: str) -> object:
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as sql:
            return sql.execute(query).fetchone()
    except sqlite3.Error:
        return None


if __name__ == "__main__":
    main(sys.argv[1:], Path(os.environ["CLAUDEMESH_HOME"]))  # noqa: TID251 - a program of its own
