"""Runs a hook and kills it between its offer and its print: its output is a pipe that is full.

A client runs it in the place of the hook, with the hook's command as arguments. A hook that has
nothing to offer ends by itself.
"""

import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

_OFFERED = "SELECT 1 FROM inbox WHERE state = 'handed' AND printed IS NULL AND holder GLOB 'hook:*'"


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
    with subprocess.Popen(command, stdout=writing) as hook:
        while hook.poll() is None:
            if any(_offers(path) for path in home.glob("sessions/p_*/peer.db")):
                hook.kill()
            time.sleep(0.01)  # noqa: TID251 - another process's commit gives no sign
    os.close(reading)


def _offers(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as sql:
            return sql.execute(_OFFERED).fetchone() is not None
    except sqlite3.Error:
        return False


if __name__ == "__main__":
    main(sys.argv[1:], Path(os.environ["CLAUDEMESH_HOME"]))  # noqa: TID251 - a program of its own
