"""Kills sessions that offer servers, their servers and the broker in mid-call; counts what was run.

Run it by ``python tests/campaigns/providers.py``. Real `claudemesh mcp` processes call all the time
what others of them offer: ``solo`` of one session, and ``pair`` of two, which come back after each
restart. Their server appends a line to a file for each call it runs (``ledger.py``). A seeded
schedule sends SIGKILL to a session that offers one, at any moment and while a call is under way,
alone, with its server or with the broker; and to a server or the broker alone. After each kill the
session is started again, and all servers have to give results again without anybody doing more.

The last line is one JSON object. The exit code is 1 when a provider ran a call twice, or two ran
one that may not be repeated (``repeated``); a result came of a call that was not run
(``unfounded``); one was run that was refused in other words than ``outcome_unknown`` (``denied``);
one was not answered (``hung``); who called learned later than a second after the kill, or was told
later than that that nobody is there (``late``); a server did not come back (``gone``); or one
outlived all (``left``).

``learned_ms`` has the time from a kill to the answer of the calls that it met, by what was killed;
``away_ms`` that of calls of a session that was away; ``back_ms`` that from the kill to the next
result of what was killed.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from actor import Actor, Refused
from places import OneHome, environment, throw_away

LEDGER = Path(__file__).parents[1] / "support" / "backends" / "ledger.py"
PROVIDERS = {"ada": "solo", "bob": "pair", "cleo": "pair"}
KINDS = (("solo", "append"), ("pair", "append"), ("pair", "again"))
RESULT, UNKNOWN, HUNG = "result", "outcome_unknown", "hung"
LIMIT_S = 1.0
HUNG_S = 30
BACK_S = 60
LEFT_S = 10
WORK_S = 0.03
THINK_S = 0.05
RETRY_S = 0.05


@dataclass
class Call:
    """One call, and what came of it.

    Args:
        id: What its line begins with.
        service: Whose tool is called.
        tool: The tool.
        began_s: When.
        ended_s: When it was answered.
        code: ``result``, ``hung``, or how it was refused.
        provider: The handle of who ran it, or may have.
    """

    id: str
    service: str
    tool: str
    began_s: float
    ended_s: float = 0.0
    code: str = ""
    provider: str = ""

    def was_open_at(self, moment_s: float) -> bool:
        """Whether it was under way at a moment."""
        return self.began_s < moment_s < self.ended_s


@dataclass
class Kill:
    """One kill.

    Args:
        what: ``session``, ``server``, ``broker``, or several with a plus.
        victim: The handle of the session; empty where the broker alone was killed.
        at_s: When.
        back_s: When all servers gave results again.
    """

    what: str
    victim: str
    at_s: float
    back_s: float = float("inf")

    def met(self, call: Call) -> bool:
        """Whether a call learned by it that it may have been run, or was not."""
        if call.code == RESULT or not call.was_open_at(self.at_s):
            return False
        if "broker" in self.what:
            return call.code == UNKNOWN
        return call.provider == self.victim or call.service == PROVIDERS[self.victim]


@dataclass
class Campaign:
    """One run.

    Args:
        options: The command line.
        folder: A throw-away one.
    """

    options: argparse.Namespace
    folder: Path
    calls: list[Call] = field(default_factory=list[Call])
    open: dict[str, Call] = field(default_factory=dict[str, Call])
    kills: list[Kill] = field(default_factory=list[Kill])
    back_ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    gone: int = 0
    left: int = 0
    calling: bool = True

    def __post_init__(self) -> None:
        """Make the actors; nothing is started."""
        self.errors = self.folder / "stderr.log"
        self.ledger = self.folder / "ledger"
        self.chance = random.Random(self.options.seed)  # noqa: S311 - it chooses victims
        self.place = OneHome(self.folder, environment())
        self.providers = {name: self._actor(name) for name in PROVIDERS}
        self.callers = [self._actor(f"caller{i}") for i in range(self.options.callers)]
        self.checker = self._actor("checker")

    def _actor(self, name: str) -> Actor:
        project = self.folder / name
        project.mkdir()
        found = self.place.environment(0) | {"CLAUDE_PROJECT_DIR": str(project)}
        return Actor(name, found)

    async def run(self) -> dict[str, object]:
        """Play the whole campaign and give its figures."""
        self.ledger.mkdir()
        os.mkfifo(self.ledger / "alive")
        # Open until the end: each server has it open for writing, and the last one's end shows.
        alive = os.open(self.ledger / "alive", os.O_RDONLY | os.O_NONBLOCK)
        await self.place.open()
        for actor in (*self.providers.values(), *self.callers, self.checker):
            await actor.start(self.errors)
        for name in PROVIDERS:
            await self._register(name)
        began_s = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for actor in self.callers:
                for service, tool in KINDS:
                    tasks.create_task(self._call_all(actor, service, tool))
            await self._kill_all()
            self.calling = False
        seconds = time.monotonic() - began_s
        await self.close()
        await self._until_all_have_ended(alive)
        return self._figures(seconds)

    async def _register(self, name: str) -> None:
        launch = {"command": sys.executable, "args": [str(LEDGER), str(self.ledger), name]}
        register = self.providers[name].call
        await register("register_mcp", name=PROVIDERS[name], **launch, persistent=True)

    # ---- Those who call ----------------------------------------------------------------------

    async def _call_all(self, actor: Actor, service: str, tool: str) -> None:
        chance = random.Random(f"{self.options.seed} {actor.name} {service} {tool}")  # noqa: S311
        number = 0
        while self.calling:
            number += 1
            pauses = (chance.uniform(0, WORK_S), chance.uniform(0, WORK_S))
            call = Call(f"{actor.name}-{service}-{tool}-{number}", service, tool, 0)
            await self._call(actor, service, call, pauses)
            await asyncio.sleep(chance.uniform(0, THINK_S))

    async def _call(
        self, actor: Actor, server: str, call: Call, pauses: tuple[float, float] = (0, 0)
    ) -> None:
        """Call, and note what came of it."""
        given = {"id": call.id, "before": pauses[0], "after": pauses[1]}
        call.began_s = time.monotonic()
        self.open[call.id] = call
        try:
            async with asyncio.timeout(HUNG_S):
                told = await actor.result(
                    "call_tool", server=server, tool=call.tool, arguments=given
                )
        except Refused as refused:
            call.code = refused.code
            call.provider = str(refused.details.get("provider", "")).partition("/")[0]
        except TimeoutError:
            call.code = HUNG
        else:
            call.code, call.provider = RESULT, told["_meta"]["claudemesh/provider"]["handle"]
        call.ended_s = time.monotonic()
        del self.open[call.id]
        self.calls.append(call)

    # ---- The kills ---------------------------------------------------------------------------

    async def _kill_all(self) -> None:
        """Kill by the seeded schedule, each time when all were back."""
        await self._all_back(set(PROVIDERS))
        plan = ["server"] * self.options.server_kills + ["broker"] * self.options.broker_kills
        for _ in range(self.options.kills):
            plan += self.chance.choices(["session", "session+server", "session+broker"], [3, 1, 1])
        self.chance.shuffle(plan)
        for what in plan:
            victim = self.chance.choice(list(PROVIDERS))
            await asyncio.sleep(self.options.pause * self.chance.uniform(0.2, 1))
            await self._moment(victim)
            kill = Kill(what, "" if what == "broker" else victim, time.monotonic())
            self.kills.append(kill)
            await self._strike(kill)
            awaited = set(PROVIDERS) if "broker" in what else {victim}
            await self._all_back(awaited, kill)
            if self.options.verbose:
                print(f"{len(self.kills)}: {kill}", file=sys.stderr)

    async def _moment(self, victim: str) -> None:
        """Wait until something is to be killed: while a call of it runs, or at any moment."""
        if self.chance.random() < 0.8:
            # Others call all the time.
            while not any(one.service == PROVIDERS[victim] for one in self.open.values()):  # noqa: ASYNC110
                await asyncio.sleep(0)
        await asyncio.sleep(self.chance.uniform(0, 4 * WORK_S))

    async def _strike(self, kill: Kill) -> None:
        if "server" in kill.what:
            pid = int((self.ledger / f"{kill.victim}.pid").read_text("utf-8"))
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if "broker" in kill.what:
            await self.place.kill_broker()
        if "session" in kill.what:
            actor = self.providers[kill.victim]
            await actor.kill()
            await actor.start(self.errors)

    async def _all_back(self, names: Iterable[str], kill: Kill | None = None) -> None:
        """Call servers by who offers them until each gives a result; nobody helps them."""
        for name in sorted(names):
            until_s = time.monotonic() + BACK_S
            while not await self._gives_a_result(name):
                if time.monotonic() > until_s:
                    self.gone += 1
                    break
                await asyncio.sleep(RETRY_S)
        if kill is not None:
            kill.back_s = time.monotonic()
            self.back_ms[kill.what].append((kill.back_s - kill.at_s) * 1000)

    async def _gives_a_result(self, name: str) -> bool:
        service = PROVIDERS[name]
        call = Call(f"check-{len(self.calls)}-{name}", service, "append", 0)
        await self._call(self.checker, f"{name}/{service}", call)
        return (call.code, call.provider) == (RESULT, name)

    # ---- The end -----------------------------------------------------------------------------

    async def close(self) -> None:
        """End everything that was started, once."""
        while self.providers or self.callers:
            actor = self.providers.popitem()[1] if self.providers else self.callers.pop()
            await _end(actor)
        await _end(self.checker)
        await self.place.close()

    async def _until_all_have_ended(self, alive: int) -> None:
        until_s = time.monotonic() + LEFT_S
        while time.monotonic() < until_s:
            with suppress(BlockingIOError):
                if os.read(alive, 1) == b"":
                    os.close(alive)
                    return
            await asyncio.sleep(RETRY_S)
        self.left = 1

    def _figures(self, seconds: float) -> dict[str, object]:
        runs, begun = self._counted("lines"), self._counted("steps", "begun ")
        learned = {one.what: list[float]() for one in self.kills}
        for kill in self.kills:
            met = [call for call in self.calls if kill.met(call)]
            learned[kill.what] += [(call.ended_s - kill.at_s) * 1000 for call in met]
        away = [(one.ended_s - one.began_s) * 1000 for one in self.calls if self._was_away(one)]
        told = [*away, *(ms for found in learned.values() for ms in found)]
        return {
            "seed": self.options.seed,
            "callers": self.options.callers,
            "kills": dict(sorted(Counter(one.what for one in self.kills).items())),
            "kills_in_mid_call": sum(any(map(kill.met, self.calls)) for kill in self.kills),
            "calls": len(self.calls),
            "outcomes": dict(Counter(one.code for one in self.calls).most_common()),
            "unknown_and_run": sum(one.code == UNKNOWN and one.id in runs for one in self.calls),
            "moved": sum(len(places) > 1 for places in begun.values()),
            **_broken(self.calls, runs),
            "hung": sum(one.code == HUNG for one in self.calls),
            "late": sum(ms > LIMIT_S * 1000 for ms in told),
            "gone": self.gone,
            "left": self.left,
            "learned_ms": {what: _points(found) for what, found in sorted(learned.items())},
            "away_ms": _points(away),
            "back_ms": {what: _points(found) for what, found in sorted(self.back_ms.items())},
            "seconds": round(seconds, 1),
        }

    def _counted(self, file: str, kind: str = "") -> dict[str, Counter[str]]:
        """Count, for each call, how often each provider has written a line about it."""
        found: dict[str, Counter[str]] = defaultdict(Counter)
        for line in (self.ledger / file).read_text("utf-8").splitlines():
            if line.startswith(kind):
                name, provider, *_ = line.removeprefix(kind).split()
                found[name][provider] += 1
        return found

    def _was_away(self, call: Call) -> bool:
        """Whether a call was told that nobody is there, by a broker that was."""
        without_broker = (one for one in self.kills if "broker" in one.what)
        return call.code == "peer_offline" and not any(
            one.at_s < call.ended_s and call.began_s < one.back_s for one in without_broker
        )


def _broken(calls: list[Call], runs: dict[str, Counter[str]]) -> dict[str, int]:
    """Count what must not be, by what was run."""
    repeated = unfounded = denied = 0
    for call in calls:
        ran = runs.get(call.id, Counter[str]())
        may_move = call.tool == "again"
        repeated += max(ran.values(), default=0) > 1 or (len(ran) > 1 and not may_move)
        unfounded += call.code == RESULT and not ran[call.provider]
        denied += call.code not in {RESULT, UNKNOWN, HUNG} and bool(ran)
    strange = runs.keys() - {call.id for call in calls}
    return {"repeated": repeated + len(strange), "unfounded": unfounded, "denied": denied}


def _points(found: list[float]) -> dict[str, float]:
    ordered = sorted(found) or [0.0]
    at = lambda share: round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)  # noqa: E731 - it is one line
    return {"n": len(found), "p50": at(0.5), "p95": at(0.95), "max": round(ordered[-1], 1)}


async def _end(actor: Actor) -> None:
    try:
        await asyncio.wait_for(actor.end(), LEFT_S)
    except TimeoutError:
        await actor.kill()


async def play(options: argparse.Namespace) -> int:
    """Run one campaign in a throw-away home."""
    with throw_away("providers", keep=options.keep) as folder:
        campaign = Campaign(options, folder)
        try:
            figures = await campaign.run()
        finally:
            await campaign.close()
    print(json.dumps(figures))
    bad = ("repeated", "unfounded", "denied", "hung", "late", "gone", "left")
    # Where no kill met a call, nothing was shown.
    return 0 if figures["kills_in_mid_call"] and not any(figures[name] for name in bad) else 1


def main() -> int:
    """Read the command line and play."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--callers", type=int, default=3, help="sessions that call, thrice each")
    parser.add_argument("--kills", type=int, default=50, help="of sessions that offer servers")
    parser.add_argument("--server-kills", type=int, default=10, help="of servers alone")
    parser.add_argument("--broker-kills", type=int, default=10, help="of the broker alone")
    parser.add_argument("--pause", type=float, default=2.0, help="most seconds before a kill")
    parser.add_argument("--verbose", action="store_true", help="tell of each kill")
    parser.add_argument("--keep", action="store_true", help="keep the home for a look")
    return asyncio.run(play(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
