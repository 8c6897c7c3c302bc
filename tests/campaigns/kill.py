"""Kills broker and sessions under load, and counts what was lost, repeated or out of order.

Run it by ``python tests/campaigns/kill.py``, or with ``--tls`` on two homes and a broker over TLS
between them. Real `claudemesh mcp` processes write to each other at
a given rate while a seeded schedule sends SIGKILL to the broker and to sessions: at any moment,
while a send or an inbox call is under way, and between a printed inbox and the request that would
prove it. The last line is one JSON object; the exit code is 1 when anything was lost, repeated
without its mark, or out of order, or nothing was sent at all.

A message counts, once for each of its readers, as acknowledged when a `send` with its idempotency
key has answered, pending or not; the driver repeats a send whose process died. Deliveries are
counted at what `inbox` printed.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from actor import Actor, Gone, Refused
from places import OneHome, TwoHomes, environment, throw_away

DRAIN_S = 120
RETRY_S = 0.2
THINK_S = 0.1


@dataclass(frozen=True)
class Stream:
    """One sender's numbered messages to one conversation.

    Args:
        sender: Who sends.
        to: The address as the tool takes it.
        readers: Who must read each of them.
    """

    sender: str
    to: str | list[str]
    readers: list[str]

    @property
    def name(self) -> str:
        """What its messages begin with."""
        return f"{self.sender}>{self.to if isinstance(self.to, str) else '+'.join(self.to)}"


def streams_of(sender: str, names: list[str]) -> list[Stream]:
    """Give a sender's streams: to its neighbour, to all others by name, and to everybody."""
    others = [name for name in names if name != sender]
    neighbour = names[(names.index(sender) + 1) % len(names)]
    return [
        Stream(sender, neighbour, [neighbour]),
        Stream(sender, others, others),
        Stream(sender, "*", others),
    ]


@dataclass
class Tally:
    """What was sent and what was printed, by (stream, reader).

    Args:
        acked: Numbers acknowledged.
        printed: (number, whether marked), in the order of printing.
    """

    acked: dict[tuple[str, str], set[int]] = field(default_factory=lambda: defaultdict(set))
    printed: dict[tuple[str, str], list[tuple[int, bool]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    refusals: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def shown(self, pair: tuple[str, str]) -> set[int]:
        """Give the numbers that were printed at least once."""
        return {number for number, _ in self.printed[pair]}

    def missing(self) -> int:
        """Count what was acknowledged and not printed yet."""
        return sum(len(numbers - self.shown(pair)) for pair, numbers in self.acked.items())

    def sums(self) -> dict[str, int]:
        """Give the figures of the last line."""
        unmarked = marked = disorder = 0
        for printed in self.printed.values():
            seen: set[int] = set()
            highest = 0
            for number, mark in printed:
                if number in seen:
                    marked += mark
                    unmarked += not mark
                    continue
                seen.add(number)
                disorder += number < highest
                highest = max(highest, number)
        return {
            "acknowledged": sum(len(numbers) for numbers in self.acked.values()),
            "lost": self.missing(),
            "unmarked_repeats": unmarked,
            "marked_repeats": marked,
            "order_violations": disorder,
        }


class Campaign:
    """One run.

    Args:
        options: The command line.
        folder: A throw-away home.
    """

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        self.errors = folder / "stderr.log"
        self.chance = random.Random(options.seed)  # noqa: S311 - it chooses victims
        self.tally = Tally()
        self.sending = True
        self.kills = {"broker": 0, "session": 0}
        self.place = (TwoHomes if options.tls else OneHome)(folder, environment())
        self.actors = {
            f"s{i}": Actor(f"s{i}", self.place.environment(i)) for i in range(options.sessions)
        }
        names = list(self.actors)
        self.streams = [stream for name in names for stream in streams_of(name, names)]
        self.weight = sum(len(stream.readers) for stream in self.streams)
        self.up = {name: asyncio.Event() for name in self.actors}
        self.after_print: dict[str, asyncio.Event] = {}

    async def run(self) -> dict[str, object]:
        """Play the whole campaign and give its figures."""
        await self.place.open()
        for actor in self.actors.values():
            await self._start(actor)
        began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            readers = [tasks.create_task(self._read(actor)) for actor in self.actors.values()]
            writers = [
                tasks.create_task(self._write(self.actors[stream.sender], stream))
                for stream in self.streams
            ]
            await self._kill_all()
            self.sending = False
            await asyncio.gather(*writers)
            seconds = time.monotonic() - began
            await self._drain()
            for reader in readers:
                reader.cancel()
        sums = self.tally.sums()
        return {
            "seed": self.options.seed,
            "homes": 2 if self.options.tls else 1,
            "sessions": len(self.actors),
            **{f"{name}_kills": count for name, count in self.kills.items()},
            **sums,
            "messages_per_s": round(sums["acknowledged"] / seconds, 1),
            "seconds": round(seconds, 1),
            "refusals": dict(self.tally.refusals),
        }

    async def _start(self, actor: Actor) -> None:
        await actor.start(self.errors)
        while True:
            try:
                await actor.call("search_peers", limit=1)
                break
            except Refused:
                await asyncio.sleep(RETRY_S)
        self.up[actor.name].set()

    async def _write(self, actor: Actor, stream: Stream) -> None:
        """Send numbered messages on one stream, repeating what has no answer, in order."""
        pause_s = self.weight / self.options.rate
        number = 0
        while self.sending:
            number += 1
            began = time.monotonic()
            await self._send(actor, stream, number)
            await asyncio.sleep(max(0.0, pause_s - (time.monotonic() - began)))

    async def _send(self, actor: Actor, stream: Stream, number: int) -> None:
        key = f"{stream.name}:{number}"
        while True:
            await self.up[actor.name].wait()
            try:
                await actor.call("send", to=stream.to, text=key, idempotency_key=key)
            except Gone:
                await asyncio.sleep(0)
            except Refused as refusal:
                self.tally.refusals[refusal.code] += 1
                await asyncio.sleep(RETRY_S)
            else:
                for reader in stream.readers:
                    self.tally.acked[stream.name, reader].add(number)
                return

    async def _read(self, actor: Actor) -> None:
        while True:
            await self.up[actor.name].wait()
            try:
                result = await actor.call("inbox", limit=50, wait_s=1)
            except Gone:
                await asyncio.sleep(0)
                continue
            except Refused as refusal:
                self.tally.refusals[refusal.code] += 1
                await asyncio.sleep(RETRY_S)
                continue
            for message in result["messages"]:
                stream, _, number = message["text"].partition(":")
                self.tally.printed[stream, actor.name].append(
                    (int(number), bool(message.get("redelivered")))
                )
            waits = self.after_print.pop(actor.name, None) if result["messages"] else None
            if waits is not None:
                # The victim was to die between its print and the proof: nothing more is asked.
                waits.set()
                self.up[actor.name].clear()
            # Whoever reads does something with it before it asks again.
            await asyncio.sleep(THINK_S)

    async def _kill_all(self) -> None:
        """Kill by the seeded schedule, spread over the campaign's length."""
        plan = ["broker"] * self.options.broker_kills + ["session"] * self.options.session_kills
        self.chance.shuffle(plan)
        for victim in plan:
            await asyncio.sleep(self.options.pause * self.chance.uniform(0.5, 1.5))
            if victim == "broker":
                await self.place.kill_broker()
            else:
                await self._kill_session(self.chance.choice(list(self.actors.values())))
            self.kills[victim] += 1
        await asyncio.sleep(self.options.pause)

    async def _kill_session(self, actor: Actor) -> None:
        if self.chance.random() < 0.5:
            printed = self.after_print[actor.name] = asyncio.Event()
            try:
                async with asyncio.timeout(self.options.pause * 4):
                    await printed.wait()
            except TimeoutError:
                self.after_print.pop(actor.name, None)
        self.up[actor.name].clear()
        await actor.kill()
        await self._start(actor)

    async def _drain(self) -> None:
        deadline = time.monotonic() + DRAIN_S
        # What is still to come is printed by other processes: there is nothing here to wait on.
        while self.tally.missing() and time.monotonic() < deadline:  # noqa: ASYNC110 - see above
            await asyncio.sleep(RETRY_S)

    async def close(self) -> None:
        """End everything that was started."""
        for actor in self.actors.values():
            try:
                await asyncio.wait_for(actor.end(), 10)
            except TimeoutError:
                await actor.kill()
            except Gone:  # it never ran
                continue
        await self.place.close()


async def play(options: argparse.Namespace) -> int:
    """Run one campaign in a throw-away home."""
    with throw_away("kill", keep=options.keep) as folder:
        campaign = Campaign(options, folder)
        try:
            figures = await campaign.run()
        finally:
            await campaign.close()
    print(json.dumps(figures))
    bad = (figures["lost"], figures["unmarked_repeats"], figures["order_violations"])
    # Where nothing was sent, nothing was shown.
    return 0 if figures["acknowledged"] and bad == (0, 0, 0) else 1


def main() -> int:
    """Read the command line and play."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sessions", type=int, default=4)
    parser.add_argument(
        "--rate", type=float, default=2000, help="messages to readers a second, in all"
    )
    parser.add_argument("--broker-kills", type=int, default=20)
    parser.add_argument("--session-kills", type=int, default=10)
    parser.add_argument("--pause", type=float, default=3.0, help="mean seconds between two kills")
    parser.add_argument("--tls", action="store_true", help="two homes, a broker over TLS")
    parser.add_argument("--keep", action="store_true", help="keep the home for a look")
    return asyncio.run(play(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
