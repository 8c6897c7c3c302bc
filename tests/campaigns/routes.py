"""Plays mixed runs of a real Claude Code with random kills, and counts at its model's requests.

Run it by ``python -m tests.campaigns.routes``. Each run is one session with the checkout's plugin,
at a terminal or by ``-p``, to which another session sends messages while it is idle, works, or is
away; one of its hooks, its monitor, its server, the broker or the whole client is killed meanwhile,
and the session is resumed. A run ends when a human's prompt has drained what waited. The last line
is one JSON object; the exit code is 1 when a text was lost, came again without its mark, was called
seen before any request had it, when a run broke off, or a process was left behind.

``marked`` counts what came again with its mark; ``ms`` has the time from the call of `send` to the
first request with the text, by the route and by what the session did when it was sent, where nobody
was to be killed, and ``ms_with_kills`` the rest. What comes with a prompt or a start has waited for
the campaign's human. ``--only N`` plays run N of a seed alone.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from tests.campaigns.places import throw_away
from tests.support.claude.client import lacking
from tests.support.claude.room import a_room
from tests.support.mixed.plan import a_plan
from tests.support.mixed.run import Outcome, Run
from tests.support.mixed.stage import Stage, a_working_model

RUN_S = 300
LEFT_S = 5


@dataclass
class Campaign:
    """All runs.

    Args:
        options: The command line.
        folder: A throw-away one.
    """

    options: argparse.Namespace
    folder: Path
    outcomes: list[Outcome] = field(default_factory=list[Outcome])
    until_s: float = float("inf")

    async def play(self) -> None:
        """Play all runs, some side by side."""
        if self.options.minutes:
            self.until_s = time.monotonic() + self.options.minutes * 60
        self.stage = Stage(self.folder / "stage")
        only = self.options.only
        numbers = iter([only] if only is not None else range(self.options.runs))
        async with anyio.create_task_group() as tasks:
            for job in range(self.options.jobs):
                place = self.folder / f"job-{job}"
                place.mkdir()
                tasks.start_soon(self._work, place, numbers)

    async def _work(self, folder: Path, numbers: Iterator[int]) -> None:
        """Play runs in one room, one after the other."""
        async with a_room(folder) as room:
            bob = await room.live.join("bob")
            for number in numbers:
                if time.monotonic() > self.until_s:
                    break
                outcome = Outcome(number)
                place = folder / f"run-{number}"
                began = time.monotonic()
                try:
                    with a_working_model() as model:
                        plan = a_plan(self.options.seed, number)
                        run = Run(plan, (room.live, bob), self.stage, place, model)
                        outcome = run.outcome
                        with anyio.fail_after(RUN_S):
                            await run.play()
                except (Exception, ExceptionGroup) as fault:  # noqa: BLE001 - the others go on
                    outcome.broken = _told(fault)
                outcome.left = await end_all(place)
                self.outcomes.append(outcome)
                self._tell(outcome, time.monotonic() - began)
                if not self.options.keep:
                    shutil.rmtree(place, ignore_errors=True)

    def _tell(self, outcome: Outcome, seconds: float) -> None:
        bad = {
            name: found
            for name in ("lost", "unmarked", "false_seen", "broken", "left")
            if (found := getattr(outcome, name))
        }
        if bad:
            again = f"--seed {self.options.seed} --only {outcome.number}"
            print(f"run {outcome.number}: {bad}; again by {again}", file=sys.stderr)
        elif self.options.verbose:
            print(f"run {outcome.number}: {outcome} {seconds:.0f} s", file=sys.stderr)

    def figures(self) -> dict[str, object]:
        """Give the figures of the last line."""
        kills = sum((one.kills for one in self.outcomes), Counter[str]())
        return {
            "runs": len(self.outcomes),
            "seed": self.options.seed,
            "messages": sum(one.messages for one in self.outcomes),
            "seen": sum(one.seen for one in self.outcomes),
            "lost": sum(len(one.lost) for one in self.outcomes),
            "unmarked": sum(len(one.unmarked) for one in self.outcomes),
            "false_seen": sum(len(one.false_seen) for one in self.outcomes),
            "marked": sum(one.marked for one in self.outcomes),
            "broken": sum(bool(one.broken) for one in self.outcomes),
            "left": sum(len(one.left) for one in self.outcomes),
            "kills": dict(sorted(kills.items())),
            "ms": _spread(self.outcomes, calm=True),
            "ms_with_kills": _spread(self.outcomes, calm=False),
        }


def _spread(outcomes: list[Outcome], *, calm: bool) -> dict[str, dict[str, dict[str, float]]]:
    times: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for outcome in outcomes:
        for time_ in outcome.times:
            if time_.calm is calm:
                times[time_.route][time_.state].append(time_.ms)
    return {
        route: {state: _points(found) for state, found in sorted(states.items())}
        for route, states in sorted(times.items())
    }


def _points(found: list[float]) -> dict[str, float]:
    ordered = sorted(found)
    at = lambda share: round(ordered[min(len(ordered) - 1, int(share * len(ordered)))])  # noqa: E731 - it is one line
    return {"n": len(ordered), "p50": at(0.5), "p95": at(0.95)}


def _told(fault: BaseException) -> str:
    if isinstance(fault, BaseExceptionGroup):
        return "; ".join(_told(one) for one in fault.exceptions)
    return f"{type(fault).__name__}: {fault}"


async def end_all(folder: Path) -> list[str]:
    """End what a run has left: every process with its folder in its environment; names them."""
    with anyio.move_on_after(LEFT_S):
        # Processes that are no children give no sign of their end.
        while _of(folder):  # noqa: ASYNC110
            await anyio.sleep(0.2)
    found = _of(folder)
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return list(found.values())


def _of(folder: Path) -> dict[int, str]:
    mark = os.fsencode(folder) + b"/"
    found: dict[int, str] = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (
                (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            )
            # A broker that a run's session has started is the room's, which ends it.
            if mark in (process / "environ").read_bytes() and "claudemesh_broker" not in command:
                found[int(process.name)] = command
    return found


def main() -> int:
    """Read the command line and play."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    parser.add_argument("--only", type=int, help="play this run alone")
    parser.add_argument("--minutes", type=float, help="begin no run after so long")
    parser.add_argument("--verbose", action="store_true", help="tell what came of each run")
    parser.add_argument("--keep", action="store_true", help="keep all folders for a look")
    options = parser.parse_args()
    if missing := lacking():
        sys.exit(missing)
    began = time.monotonic()
    # Interrupted, it gives the figures of what it has played.
    with throw_away("routes", keep=options.keep) as folder:
        campaign = Campaign(options, folder)
        with suppress(KeyboardInterrupt):
            anyio.run(campaign.play)
    figures = campaign.figures()
    figures["seconds"] = round(time.monotonic() - began, 1)
    print(json.dumps(figures))
    bad = ("lost", "unmarked", "false_seen", "broken", "left")
    # Where nothing was sent, nothing was shown.
    return 0 if figures["messages"] and not any(figures[name] for name in bad) else 1


if __name__ == "__main__":
    sys.exit(main())
