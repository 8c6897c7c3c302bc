"""Ends what no lock and no file names yet: a broker that a session began to start before it ended.

``live.py``, ``shell.py`` and the fixtures that start sessions by themselves call it when all of
their sessions have gone. Such a broker would take over the home from the one that was stopped.
"""

import os
import signal
from contextlib import suppress
from pathlib import Path


def end_brokers(home: Path) -> None:
    """Kill the brokers of a home's folder, those too that are only starting."""
    data = os.fsencode(home.resolve() / "broker")
    for process in Path("/proc").glob("[0-9]*"):
        # It may end while it is looked at.
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"claudemesh_broker" in words and data in words:
                os.kill(int(process.name), signal.SIGKILL)
