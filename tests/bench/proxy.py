"""Times calls through the mesh beside direct ones: `python -m tests.bench.proxy [CALLS]`.

The same small server runs twice: once it is asked directly over its pipes, once a real `claudemesh
mcp` process hosts it and sessions of the same home call it through the broker, all on loopback.
Direct calls and those through the mesh take turns, so that both meet the same machine; then 1, 10
and 50 callers call as fast as they are answered. The last line is one JSON object::

    {calls, direct_ms: {p50, p95, p99}, mesh_ms: {…}, added_ms: {p50, p99},
     calls_per_s: {direct: {1, 10, 50}, mesh: {1, 10, 50}}}

``added_ms`` are differences of the percentiles. The goal is less than 5 ms at the median and less
than 25 ms at the 99th percentile; the exit code is 1 where that is missed.
"""

import asyncio
import itertools
import json
import shutil
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import anyio

from claudemesh_mcp.config import Settings, broker_environment
from claudemesh_mcp.sdk import Mesh
from tests.campaigns.actor import Actor
from tests.support.backends.found import environment, handmade

GOAL_MS: Final = {"p50": 5.0, "p99": 25.0}
CALLERS: Final = (1, 10, 50)
ARGUMENTS: Final = {"of": "a call", "numbers": [1, 2, 3]}
_WARM: Final = 20
_LIMITS: Final = {
    "CLAUDEMESH_KEYRING": "off",
    "CLAUDEMESH_BROKER_RPC_PER_S": "20000",
    "CLAUDEMESH_BROKER_RPC_BURST": "40000",
    "CLAUDEMESH_BROKER_AUTH_PER_S": "1000",
    "CLAUDEMESH_BROKER_AUTH_BURST": "1000",
}

Calling = Callable[[], Awaitable[object]]


class Direct:
    """The server, asked over its pipes.

    Args:
        process: It.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}

    async def ask(self, method: str, params: dict[str, Any]) -> Any:
        """Give the answer to a request."""
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._say({"id": number, "method": method, "params": params})
        return await answer

    def _say(self, words: dict[str, Any]) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"jsonrpc": "2.0", **words}).encode() + b"\n")

    async def greet(self) -> None:
        """Do what the handshake begins with."""
        asked = {"protocolVersion": "2025-11-25", "capabilities": {}}
        await self.ask("initialize", {**asked, "clientInfo": {"name": "bench", "version": "1"}})
        self._say({"method": "notifications/initialized"})

    async def call(self) -> object:
        """Call the tool once."""
        return await self.ask("tools/call", {"name": "seen", "arguments": ARGUMENTS})

    async def read(self) -> None:
        """Hand answers to who waits for them, until the server ends."""
        assert self._process.stdout
        while line := await self._process.stdout.readline():
            words = json.loads(line)
            waiting = self._waiting.pop(words.get("id"), None)
            if waiting is not None:
                waiting.set_result(words["result"])


async def timed(call: Calling) -> float:
    """Give the milliseconds that a call took."""
    began = time.perf_counter()
    await call()
    return (time.perf_counter() - began) * 1000


async def rate(calls: list[Calling], count: int) -> float:
    """Give the calls per second of so many callers, each of which waits for its answers."""

    async def keep_calling(call: Calling) -> None:
        for _ in range(count // len(calls)):
            await call()

    began = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for one in calls:
            tasks.start_soon(keep_calling, one)
    return round(count // len(calls) * len(calls) / (time.perf_counter() - began), 1)


def percentiles(taken: list[float]) -> dict[str, float]:
    """Sum up times in ms."""
    cuts = statistics.quantiles(taken, n=100)
    return {"p50": round(cuts[49], 2), "p95": round(cuts[94], 2), "p99": round(cuts[98], 2)}


async def measure(direct: Direct, meshes: list[Mesh], count: int) -> dict[str, Any]:
    """Call both ways, in turns and by many."""

    def through(mesh: Mesh) -> Calling:
        return lambda: mesh.servers.call("host/hand", "seen", ARGUMENTS)

    calls = [through(mesh) for mesh in meshes]
    for call in (direct.call, *calls):
        for _ in range(_WARM):
            await call()
    taken: dict[str, list[float]] = {"direct": [], "mesh": []}
    for _ in range(count):
        taken["direct"].append(await timed(direct.call))
        taken["mesh"].append(await timed(calls[0]))
    summed = {way: percentiles(each) for way, each in taken.items()}
    rates: dict[str, dict[str, float]] = {"direct": {}, "mesh": {}}
    for callers in CALLERS:
        rates["direct"][str(callers)] = await rate([direct.call] * callers, count)
        rates["mesh"][str(callers)] = await rate(calls[:callers], count)
    added = {one: round(summed["mesh"][one] - summed["direct"][one], 2) for one in GOAL_MS}
    return {
        "calls": count,
        "direct_ms": summed["direct"],
        "mesh_ms": summed["mesh"],
        "added_ms": added,
        "calls_per_s": rates,
    }


async def run(folder: Path, count: int) -> dict[str, Any]:
    """Set both ways up in a folder, and measure."""
    launch = handmade("handshake")
    given = broker_environment() | _LIMITS | {"CLAUDEMESH_HOME": str(folder)}
    async with AsyncExitStack() as stack:
        process = await asyncio.create_subprocess_exec(
            launch.command, *launch.args, stdin=PIPE, stdout=PIPE, env=environment()
        )
        stack.push_async_callback(process.wait)
        stack.callback(process.kill)
        direct = Direct(process)
        tasks = await stack.enter_async_context(anyio.create_task_group())
        stack.callback(tasks.cancel_scope.cancel)
        tasks.start_soon(direct.read)
        await direct.greet()
        host = await Actor("host", given).start(folder / "errors")
        stack.push_async_callback(host.end)
        args = list(launch.args)
        await host.call("register_mcp", name="hand", command=launch.command, args=args)
        settings = Settings.load({"home": folder, "keyring": "off"})
        meshes = [
            await stack.enter_async_context(Mesh.connect(settings=settings, attach=False))
            for _ in range(max(CALLERS))
        ]
        return await measure(direct, meshes, count)


def main() -> int:
    """Measure, and print one line."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    folder = Path(tempfile.mkdtemp(prefix="claudemesh-proxy-"))
    try:
        result = asyncio.run(run(folder, count))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result))
    return any(result["added_ms"][name] > goal for name, goal in GOAL_MS.items())


if __name__ == "__main__":
    sys.exit(main())
