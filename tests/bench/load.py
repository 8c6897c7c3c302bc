"""Measures real clients against a real broker: seal, sign, send, store, deliver, open, receipt.

Run it by ``python tests/bench/load.py PEERS MESSAGES [--window 16] [--processes 2]``: every
peer sends MESSAGES direct messages to the others in turn, with at most ``window`` of them
unanswered. They are of different conversations, which do not wait for each other; ``--window 1``
measures the way of a single message instead of what a mesh bears.
Distinct ids are counted at the readers. The last line is one JSON object::

    {peers, messages, window, delivered, lost, pending, seconds, messages_per_s,
     accepted_ms: {p50, p95, p99}, opened_ms: {p50, p95, p99}, broker_peak_mb, broker_cpu_s,
     clients_cpu_s}

``lost`` counts messages that the broker accepted and no reader has; ``pending`` those that it had
not answered for within the 10 s that ``send`` waits, which are sent by themselves. The exit code is
0 when all were delivered.

Times are from the call of ``send`` to the broker's answer, and to the message's appearance at its
reader. Limits stay on; ``SETTINGS`` raises them to what one machine's clients may send.
"""

import argparse
import gc
import json
import multiprocessing
import os
import resource
import shutil
import signal
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import anyio

from claudemesh_mcp.config import Settings
from claudemesh_mcp.home import Home
from claudemesh_mcp.identity import open_identity
from claudemesh_mcp.launcher import Launcher
from claudemesh_mcp.sdk import Mesh

SETTINGS = {
    "CLAUDEMESH_KEYRING": "off",
    "CLAUDEMESH_BROKER_CHAT_PER_S": "20000",
    "CLAUDEMESH_BROKER_CHAT_BURST": "40000",
    "CLAUDEMESH_BROKER_RPC_PER_S": "20000",
    "CLAUDEMESH_BROKER_RPC_BURST": "40000",
    "CLAUDEMESH_BROKER_AUTH_PER_S": "1000",
    "CLAUDEMESH_BROKER_AUTH_BURST": "2000",
}
PATIENCE_S = 900
_COLLECTED_AFTER = 50_000


@dataclass
class Share:
    """What one process of clients is to do, and what it measured.

    Args:
        mine: The numbers of its peers.
        peers: How many there are in all.
        messages: How many each sends.
        window: How many each may have unanswered.
    """

    mine: list[int]
    peers: int
    messages: int
    window: int
    accepted_ms: list[float] = field(default_factory=list)
    opened_ms: list[float] = field(default_factory=list)
    accepted: set[str] = field(default_factory=set)
    pending: int = 0
    ids: set[str] = field(default_factory=set)
    began: float = 0.0
    ended: float = 0.0
    cpu_s: float = 0.0


def name(number: int) -> str:
    """Give a peer's handle."""
    return f"load-{number}"


async def _send_all(mesh: Mesh, number: int, share: Share) -> None:
    others = [other for other in range(share.peers) if other != number]
    indexes = iter(range(share.messages))

    async def one_after_the_other() -> None:
        for index in indexes:
            began = time.time()
            text = f"{began} " + "x" * 400 + f" {index}"
            result = await mesh.send(name(others[(number + index) % len(others)]), text)
            if result.recipients[0].status == "pending":
                share.pending += 1
            else:
                share.accepted.add(result.id)
                share.accepted_ms.append((time.time() - began) * 1000)

    async with anyio.create_task_group() as tasks:
        for _ in range(share.window):
            tasks.start_soon(one_after_the_other)


async def _read_all(mesh: Mesh, expected: int, share: Share) -> None:
    count = 0
    async for message in mesh.messages():
        share.opened_ms.append((time.time() - float(message.text.split(" ", 1)[0])) * 1000)
        share.ids.add(message.id)
        count += 1
        if count >= expected:
            break


async def _play(share: Share, home: str, barrier: Barrier) -> None:
    async with AsyncExitStack() as stack:
        meshes = {
            number: await stack.enter_async_context(
                Mesh.connect(home=home, name=name(number), resume=name(number), wait_s=60)
            )
            for number in share.mine
        }
        expected = _expected(share)
        # The peers live as long as the process: nothing of them is for the collector of cycles,
        # which at its own pace would take a twelfth of the time to find nothing.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_COLLECTED_AFTER, 20, 100)
        await anyio.to_thread.run_sync(barrier.wait)
        share.began = time.time()
        cpu = _cpu_s()
        with anyio.move_on_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                for number, mesh in meshes.items():
                    tasks.start_soon(_read_all, mesh, expected[number], share)
                    tasks.start_soon(_send_all, mesh, number, share)
        share.ended = time.time()
        share.cpu_s = _cpu_s() - cpu
        # Nobody leaves while others still read.
        await anyio.to_thread.run_sync(partial(barrier.wait, PATIENCE_S))


def _expected(share: Share) -> dict[int, int]:
    """Count what each peer will be sent."""
    counts = dict.fromkeys(range(share.peers), 0)
    for number in range(share.peers):
        others = [other for other in range(share.peers) if other != number]
        for index in range(share.messages):
            counts[others[(number + index) % len(others)]] += 1
    return counts


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _client(share: Share, home: str, barrier: Barrier, results: Any) -> None:
    anyio.run(_play, share, home, barrier)
    results.put(share)


def _broker_use(pid: int) -> tuple[float, float]:
    """Read the most memory that a process had resident (MB), and its CPU time (s)."""
    status = Path(f"/proc/{pid}/status").read_text()
    peak_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return peak_kb / 1024, ticks / os.sysconf("SC_CLK_TCK")


def _quantiles(values: list[float]) -> dict[str, float]:
    if len(values) < 2:
        return dict.fromkeys(("p50", "p95", "p99"), values[0] if values else 0.0)
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {f"p{percent}": round(cuts[percent - 1], 2) for percent in (50, 95, 99)}


async def _start_broker(home: str) -> int:
    settings = Settings.load({"home": home})
    opened = Home.open(settings.paths())
    open_identity(opened, settings)
    return (await Launcher(opened).ensure()).pid


def _run(options: argparse.Namespace, home: str) -> dict[str, Any]:
    pid = anyio.run(_start_broker, home)
    context = multiprocessing.get_context("spawn")
    # One more than the processes of clients: this one reads what the broker used at the start.
    barrier, results = context.Barrier(options.processes + 1), context.Queue()
    numbers = list(range(options.peers))
    processes = []
    for index in range(options.processes):
        share = Share(
            numbers[index :: options.processes], options.peers, options.messages, options.window
        )
        processes.append(context.Process(target=_client, args=(share, home, barrier, results)))
    try:
        for process in processes:
            process.start()
        barrier.wait(PATIENCE_S)
        _, before_s = _broker_use(pid)
        barrier.wait(2 * PATIENCE_S)
        shares: list[Share] = [results.get(timeout=2 * PATIENCE_S) for _ in processes]
        for process in processes:
            process.join()
        peak_mb, cpu_s = _broker_use(pid)
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
        os.kill(pid, signal.SIGTERM)
    return _figures(options, shares) | {
        "broker_peak_mb": round(peak_mb, 1),
        "broker_cpu_s": round(cpu_s - before_s, 2),
    }


def _figures(options: argparse.Namespace, shares: list[Share]) -> dict[str, Any]:
    seconds = max(one.ended for one in shares) - min(one.began for one in shares)
    read = set[str]().union(*(one.ids for one in shares))
    accepted = set[str]().union(*(one.accepted for one in shares))
    return {
        "peers": options.peers,
        "messages": options.peers * options.messages,
        "window": options.window,
        "delivered": len(read),
        "lost": len(accepted - read),
        "pending": sum(one.pending for one in shares),
        "seconds": round(seconds, 2),
        "messages_per_s": round(len(read) / seconds, 1),
        "accepted_ms": _quantiles([ms for one in shares for ms in one.accepted_ms]),
        "opened_ms": _quantiles([ms for one in shares for ms in one.opened_ms]),
        "clients_cpu_s": round(sum(one.cpu_s for one in shares), 2),
    }


def main() -> int:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peers", type=int)
    parser.add_argument("messages", type=int, help="sent by each peer")
    parser.add_argument("--window", type=int, default=16, help="unanswered at once")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    # Told to end, it ends what it started too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    os.environ.update(SETTINGS)  # noqa: TID251 - for the broker and the clients it starts
    home = tempfile.mkdtemp(prefix="claudemesh-load-")
    try:
        figures = _run(options, home)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    print(json.dumps(figures))
    is_whole = 0 < figures["delivered"] == figures["messages"] and figures["lost"] == 0
    return 0 if is_whole else 1


if __name__ == "__main__":
    sys.exit(main())
