"""Measures how long the status line takes, from its start to its end, beside a real session.

Run it by ``python tests/bench/statusline.py [--runs 50]``. The session is a real ``claudemesh mcp``
on a throw-away home with a real embedded broker; this process is its client. The last line is one
JSON object::

    {line, by_path_ms: {p50, max}, by_program_ms: {p50, max}, python_ms: {p50, max}}

``by_path`` is how ``claudemesh install`` sets it, ``by_program`` is ``claudemesh statusline`` under
this Python, and ``python`` is what an interpreter takes that does nothing (``-I -S``): the part of
the machine. It exits with 1 when the median by path is not below 50 ms.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from claudemesh_mcp import statusline
from claudemesh_mcp.config import Settings, broker_environment
from claudemesh_mcp.home import Home
from claudemesh_mcp.launcher import Launcher
from claudemesh_mcp.offer import NEWEST

QUICK_MS = 50
PATIENCE_S = 60
INPUT = json.dumps({"session_id": "bench"}).encode()
BY_PATH = [sys.executable, "-I", "-S", str(Path(statusline.__file__))]
BY_PROGRAM = [
    sys.executable,
    "-c",
    "from claudemesh_mcp.__main__ import main; main(['statusline'])",
]
NOTHING = [sys.executable, "-I", "-S", "-c", ""]


def shown(command: list[str], environment: dict[str, str]) -> str:
    """Run a line; give what it printed."""
    done = subprocess.run(
        command, input=INPUT, env=environment, capture_output=True, check=True, timeout=PATIENCE_S
    )
    return done.stdout.decode().strip()


def timed(command: list[str], environment: dict[str, str], runs: int) -> dict[str, float]:
    """Run a line again and again; give the milliseconds."""
    taken: list[float] = []
    for _ in range(runs):
        began = time.perf_counter()
        shown(command, environment)
        taken.append((time.perf_counter() - began) * 1000)
    return {"p50": round(statistics.median(taken), 1), "max": round(max(taken), 1)}


def greet(process: "subprocess.Popen[bytes]") -> None:
    """Shake hands with the session, so that it goes on the mesh."""
    client = {"name": "bench", "version": "1"}
    params = {"protocolVersion": NEWEST, "capabilities": {}, "clientInfo": client}
    hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
    assert process.stdin
    assert process.stdout
    process.stdin.write(json.dumps(hello).encode() + b"\n")
    process.stdin.flush()
    process.stdout.readline()


def measure(environment: dict[str, str], runs: int) -> dict[str, Any]:
    """Measure beside one session."""
    command = [sys.executable, "-m", "claudemesh_mcp", "mcp", "--name", "bench"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment, **pipes) as process:  # type: ignore[call-overload]
        greet(process)
        deadline = time.monotonic() + PATIENCE_S
        while not (line := shown(BY_PATH, environment)) and time.monotonic() < deadline:
            pass
        result = {
            "line": line,
            "by_path_ms": timed(BY_PATH, environment, runs),
            "by_program_ms": timed(BY_PROGRAM, environment, runs),
            "python_ms": timed(NOTHING, environment, runs),
        }
        assert process.stdin
        process.stdin.close()
        process.wait(PATIENCE_S)
    return result


async def run(home: str, environment: dict[str, str], runs: int) -> dict[str, Any]:
    """Measure on one home, and end its broker."""
    try:
        return await anyio.to_thread.run_sync(measure, environment, runs)
    finally:
        settings = Settings.load({"home": home})
        await Launcher(Home.open(settings.paths())).stop(PATIENCE_S, force=True)


def main() -> int:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="claudemesh-statusline-") as home:
        own = {"CLAUDEMESH_HOME": home, "CLAUDEMESH_KEYRING": "off", "CLAUDE_PID": str(os.getpid())}
        figures = anyio.run(run, home, broker_environment() | own, options.runs)
    print(json.dumps(figures))
    return 0 if figures["line"] and figures["by_path_ms"]["p50"] < QUICK_MS else 1


if __name__ == "__main__":
    sys.exit(main())
