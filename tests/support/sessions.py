"""Processes that ask the launcher for a broker, as sessions do when they start."""

import subprocess
import sys
from typing import Final

from claudemesh_mcp.config import broker_environment
from claudemesh_mcp.home import Home

_PROGRAM: Final = """
import sys
import anyio
from claudemesh_mcp.config import Settings
from claudemesh_mcp.home import Home
from claudemesh_mcp.launcher import Launcher

async def main():
    launcher = Launcher(Home.open(Settings.load().paths()), sys.argv[1:] or None)
    print((await launcher.ensure()).pid, flush=True)

anyio.run(main)
sys.stdin.read()
"""


def launching(home: Home, *command: str) -> subprocess.Popen[str]:
    """Start a process that ensures a broker of a home, says its pid and stays until its stdin ends.

    Args:
        home: The home.
        command: What starts a broker, if not the real one.
    """
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, *command],
        env=broker_environment() | {"CLAUDEMESH_HOME": str(home.data)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def pid_from(session: subprocess.Popen[str]) -> int:
    """Wait until it has a broker."""
    assert session.stdout is not None
    return int(session.stdout.readline())
