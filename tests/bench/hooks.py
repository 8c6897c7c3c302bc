"""Times the hooks from start to exit as a client starts them: `python -m tests.bench.hooks [RUNS]`.

Of each event with an empty inbox and with a full one: median and 95th percentile in ms, and the
least of the processor's time, which is to be compared with that of an interpreter that does nothing
(``bare``) where the machine has other work. The last line is JSON.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from claudemesh_mcp.routes import facts
from tests.support.routing import ALONE, SESSION, Beside, beside

EVENTS: Final = ("SessionStart", "UserPromptSubmit", "PostToolUse", "Stop", "SessionEnd")
FULL: Final = 1_000
GOAL_MS: Final = 60
_TOLD: Final = {
    "source": "startup",
    "prompt": "Go on.",
    "tool_use_id": "t",
    "reason": "other",
    # Some file: with one the first hook of a start prints a probe.
    "transcript_path": __file__,
}


def once(bob: Beside, event: str) -> tuple[float, float]:
    """Run a hook; gives its time from start to exit, and the processor's, in ms."""
    said = json.dumps({"session_id": SESSION, "hook_event_name": event, **_TOLD}).encode()
    before, start = _processor_ms(), time.perf_counter()
    ran = bob.feed(event, said)
    took = (time.perf_counter() - start) * 1000
    assert (ran.code, ran.err) == (0, "")
    return took, _processor_ms() - before


def _processor_ms() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * 1000


def told(times: list[tuple[float, float]]) -> dict[str, float]:
    """Sum up the times of one kind of run."""
    took, used = zip(*times, strict=True)
    return {
        "median_ms": round(statistics.median(took), 1),
        "p95_ms": round(statistics.quantiles(took, n=20)[-1], 1),
        "processor_ms": round(min(used), 1),
    }


def bare() -> tuple[float, float]:
    """Start an interpreter that does nothing."""
    before, start = _processor_ms(), time.perf_counter()
    subprocess.run([*ALONE, "-c", "pass"], check=True)
    return (time.perf_counter() - start) * 1000, _processor_ms() - before


def measure(runs: int) -> dict[str, Any]:
    """Time all events."""
    result: dict[str, Any] = {"goal_ms": GOAL_MS, "bare": told([bare() for _ in range(runs)])}
    for state in ("empty", "full"):
        with tempfile.TemporaryDirectory() as folder, beside(Path(folder) / "home") as bob:
            for event in EVENTS:
                times: list[tuple[float, float]] = []
                for _ in range(runs):
                    _prepare(bob, state)
                    times.append(once(bob, event))
                result[f"{event} {state}"] = told(times)
    return result


def _prepare(bob: Beside, state: str) -> None:
    """Let the session be in the midst of a turn, with an inbox as it is to be."""
    bob.sql.execute("BEGIN")
    bob.sql.execute("DELETE FROM inbox")
    bob.sql.execute("DELETE FROM pushes")
    for number in range(FULL if state == "full" else 0):
        priority = ("now", "next", "low")[number % 3]
        bob.put("x" * 300, priority=priority, sender=f"p_{number}")
    facts.put(bob.sql, facts.ACTIVITY, "working")
    facts.put(bob.sql, facts.ACTIVITY_MS, time.time_ns() // 1_000_000)
    facts.put(bob.sql, facts.CONTINUED, 0)
    bob.sql.execute("COMMIT")


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 20)))
