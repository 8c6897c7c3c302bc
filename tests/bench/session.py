"""Measures what a session costs its user: the time to its first answers, and memory while idle.

Run it by ``python tests/bench/session.py [--spawns 10] [--sessions 5] [--idle 3]``; what 20 idle
sessions take, by ``--spawns 0 --sessions 20``. Sessions are
real ``claudemesh mcp`` processes on a throw-away home with a real embedded broker; each is driven
over its pipes as a client does it. The last line is one JSON object::

    {initialize_ms: {p50, max}, first_tool_ms: {p50, max}, sessions,
     idle_rss_mib: {p50, max, total}, idle_pss_mib: {p50, max, total},
     used_rss_mib: {p50, max, total}, used_pss_mib: {p50, max, total},
     broker_rss_mib, broker_pss_mib}

Times are from the spawn to the answer: of `initialize`, and of a first ``search_peers``, sent right
after it. Memory is what is resident once a session is seen online and has then been left alone for
the idle seconds: before any tool was called, and as long again after ``search_peers``. RSS counts
pages that processes share in each of them; PSS gives each its part, so that the total is what all
of them take.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from claudemesh_mcp.config import Settings, broker_environment
from claudemesh_mcp.home import Home
from claudemesh_mcp.identity import open_identity
from claudemesh_mcp.launcher import Launcher
from claudemesh_mcp.offer import NEWEST
from claudemesh_mcp.sdk import Mesh

PATIENCE_S = 60
QUICK_MS = 100
SMALL_MIB = 50
_POLL_S = 0.1


class Session:
    """One ``claudemesh mcp`` and the client that started it.

    Args:
        name: The handle it wishes for.
        environment: Of the process.
    """

    def __init__(self, name: str, environment: dict[str, str]) -> None:
        self._number = 0
        self._began = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "claudemesh_mcp", "mcp", "--name", name],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def greet(self) -> float:
        """Shake hands; give the milliseconds from the spawn to the answer."""
        client = {"name": "bench", "version": "1"}
        hello = {"protocolVersion": NEWEST, "capabilities": {}, "clientInfo": client}
        self._ask("initialize", hello)
        taken_ms = self._since_spawn_ms()
        self._say({"jsonrpc": "2.0", "method": "notifications/initialized"})
        self._ask("tools/list", {})
        return taken_ms

    def search(self) -> float:
        """Call ``search_peers``; give the milliseconds from the spawn to the answer."""
        result = self._ask("tools/call", {"name": "search_peers", "arguments": {}})
        if result.get("isError"):
            raise RuntimeError(f"search_peers was refused: {result}")
        return self._since_spawn_ms()

    def memory(self) -> "Memory":
        """Give what is resident of the process."""
        return memory(self._process.pid)

    def end(self) -> None:
        """Close it as a client does."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(PATIENCE_S)
        self._process.stdout.close()

    def _since_spawn_ms(self) -> float:
        return (time.perf_counter() - self._began) * 1000

    def _ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdout
        self._number += 1
        self._say({"jsonrpc": "2.0", "id": self._number, "method": method, "params": params})
        for line in self._process.stdout:
            answer = json.loads(line)
            if answer.get("id") == self._number:
                return answer["result"]
        raise RuntimeError(f"the session ended instead of answering {method}")

    def _say(self, message: dict[str, Any]) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()


@dataclass(frozen=True)
class Memory:
    """What is resident of a process, in MiB; of shared pages ``pss`` counts only its part."""

    rss: float
    pss: float


def memory(pid: int) -> Memory:
    """Read what is resident of a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return Memory(kib["Rss"] / 1024, kib["Pss"] / 1024)


def time_one(number: int, environment: dict[str, str]) -> tuple[float, float]:
    """Spawn one session; give the milliseconds to its two first answers."""
    session = Session(f"timed-{number}", environment)
    try:
        return session.greet(), session.search()
    finally:
        session.end()


async def weigh(
    count: int, idle_s: float, environment: dict[str, str], home: str
) -> tuple[list[Memory], list[Memory]]:
    """Keep sessions open side by side; give what each weighs, idle and after one call."""
    names = [f"idle-{number}" for number in range(count)]
    sessions = [Session(name, environment) for name in names]
    try:
        for session in sessions:
            await anyio.to_thread.run_sync(session.greet)
        await _online(set(names), home)
        await anyio.sleep(idle_s)
        idle = [session.memory() for session in sessions]
        for session in sessions:
            await anyio.to_thread.run_sync(session.search)
        await anyio.sleep(idle_s)
        return idle, [session.memory() for session in sessions]
    finally:
        for session in sessions:
            await anyio.to_thread.run_sync(session.end)


async def _online(names: set[str], home: str) -> None:
    """Wait until others see all of them: asking them would be using them."""
    async with Mesh.connect(home=home, name="observer", attach=False) as mesh:
        with anyio.fail_after(PATIENCE_S):
            while names:
                found = await mesh.search_peers(filters={"online": True}, limit=len(names) + 1)
                names = names - {row.handle for row in found.peers}
                await anyio.sleep(_POLL_S)


async def run(options: argparse.Namespace, home: str, environment: dict[str, str]) -> Any:
    """Measure all of it on one home."""
    settings = Settings.load({"home": home})
    opened = Home.open(settings.paths())
    open_identity(opened, settings)
    broker = Launcher(opened)
    pid = (await broker.ensure()).pid
    try:
        # The first one compiles what is not compiled yet, which no later one does.
        await anyio.to_thread.run_sync(time_one, -1, environment)
        timed = [
            await anyio.to_thread.run_sync(time_one, number, environment)
            for number in range(options.spawns)
        ]
        idle, used = await weigh(options.sessions, options.idle, environment, home)
        broker_memory = memory(pid)
    finally:
        await broker.stop(PATIENCE_S, force=True)
    return {
        "initialize_ms": _summed_up([initialize for initialize, _ in timed]),
        "first_tool_ms": _summed_up([first_tool for _, first_tool in timed]),
        "sessions": options.sessions,
        "idle_rss_mib": _added_up([one.rss for one in idle]),
        "idle_pss_mib": _added_up([one.pss for one in idle]),
        "used_rss_mib": _added_up([one.rss for one in used]),
        "used_pss_mib": _added_up([one.pss for one in used]),
        "broker_rss_mib": round(broker_memory.rss, 1),
        "broker_pss_mib": round(broker_memory.pss, 1),
    }


def _summed_up(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    return {"p50": round(statistics.median(values), 1), "max": round(max(values), 1)}


def _added_up(values: list[float]) -> dict[str, float]:
    return {**_summed_up(values), "total": round(sum(values), 1)}


def main() -> int:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spawns", type=int, default=10)
    parser.add_argument("--sessions", type=int, default=5)
    parser.add_argument("--idle", type=float, default=3.0, help="seconds left alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="claudemesh-session-") as home:
        # Bytecode of its own: an installation runs compiled, whatever this shell was told.
        settings = {"CLAUDEMESH_HOME": home, "CLAUDEMESH_KEYRING": "off"}
        settings["PYTHONPYCACHEPREFIX"] = f"{home}/bytecode"
        os.environ.update(settings)  # noqa: TID251 - for the broker that is started
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # noqa: TID251 - as above
        figures = anyio.run(run, options, home, broker_environment())
    print(json.dumps(figures))
    return 0 if _holds(figures) else 1


def _holds(figures: dict[str, Any]) -> bool:
    """Tell whether a session is as quick and as small as it is to be, as far as it was measured."""
    is_measured = bool(figures["initialize_ms"] or figures["idle_rss_mib"])
    is_quick = figures["initialize_ms"].get("p50", 0) < QUICK_MS
    return is_measured and is_quick and figures["idle_rss_mib"].get("p50", 0) <= SMALL_MIB


if __name__ == "__main__":
    sys.exit(main())
