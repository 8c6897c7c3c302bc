"""What TLS costs beside plain: the time to connect and be let in, and the broker's CPU per message.

    python tests/bench/tls.py [PEERS] [MESSAGES] [--rounds 3] [--connects 40]

A broker with ``--tls off`` and one with ``--tls auto`` take turns on loopback, so that both meet
the same machine. A connect is TCP, TLS if there is, the WebSocket, challenge, hello and welcome.
Messages are as in ``broker_only.py``. The last line is one JSON object.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from broker_only import Home, Peer, Running, measure, percentiles, running


async def connects(broker: Running, count: int) -> list[float]:
    """Give the milliseconds of so many connects, one after the other."""
    peer = Peer(0, Home())
    taken: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        socket = await peer.connect(broker.url, broker.token)
        taken.append((time.perf_counter() - began) * 1000)
        await socket.close()
    return taken


def one_round(mode: str, options: argparse.Namespace) -> tuple[list[float], dict[str, Any]]:
    """Measure one broker, from its start to its end."""
    with running("--tls", mode) as broker:
        taken = asyncio.run(connects(broker, options.connects))
        return taken, asyncio.run(measure(broker.url, broker.token, options, broker.pid))


def main() -> int:
    """Measure both in turns, and print one line; gives whether all came through once."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("peers", type=int, nargs="?", default=10)
    parser.add_argument("messages", type=int, nargs="?", default=200)
    parser.add_argument("--window", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connects", type=int, default=40)
    options = parser.parse_args()
    taken: dict[str, list[float]] = {"off": [], "auto": []}
    measured: dict[str, list[dict[str, Any]]] = {"off": [], "auto": []}
    for _ in range(options.rounds):
        for mode in taken:
            times, result = one_round(mode, options)
            taken[mode] += times
            measured[mode].append(result)
    summaries = {mode: summary(taken[mode], measured[mode]) for mode in taken}
    print(json.dumps(summaries))
    return 1 if any(one["lost"] or one["repeated"] for one in summaries.values()) else 0


def summary(taken: list[float], measured: list[dict[str, Any]]) -> dict[str, Any]:
    """Give what one way came to: medians over the rounds, sums of what must be none."""
    return {
        "connect_ms": percentiles(taken),
        "messages_per_s": median(measured, "messages_per_s"),
        "broker_cpu_ms_per_message": round(1000 / median(measured, "messages_per_broker_cpu_s"), 3),
        "broker_rss_mb": median(measured, "broker_rss_mb"),
        "lost": sum(one["lost"] for one in measured),
        "repeated": sum(one["repeated"] for one in measured),
        "rounds": len(measured),
    }


def median(measured: list[dict[str, Any]], name: str) -> float:
    """Give the median of one number over the rounds."""
    return statistics.median(one[name] for one in measured)


if __name__ == "__main__":
    sys.exit(main())
