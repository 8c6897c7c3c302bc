"""Times what the probe of a waker costs a real client: `python -m tests.bench.probing [RUNS]`.

Each run is a new client at a terminal, whose model calls a tool twice in its first turn. The first
boundary is held open, the second is not: the difference of the two is what the probe costs. Told
are also how many probes were in the request of that very boundary, as they should be, and how many
turns they made of their own. The last line is JSON.
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import anyio

from tests.support.claude.asked import Asked
from tests.support.claude.beside import a_plugin, meshed, until_met
from tests.support.claude.room import a_room
from tests.support.claude.script import Call, Rule
from tests.support.claude.terminal import at_terminal

READY: Final = "claudemesh: ready. Nothing waits"
WAKERS: Final = ("monitor", "rewake")
_TURN: Final = 3
"""The requests of a turn that calls a tool twice."""


async def once(folder: Path, waker: str) -> tuple[float, bool, int]:
    """Run a client; gives the cost in ms, whether the probe was folded in, and turns too many."""
    async with a_room(folder) as room:
        ada = meshed(
            room,
            "ada",
            Rule("Run something", Call("Bash", {"command": "echo heron"})),
            Rule("heron", Call("Bash", {"command": "echo swan"})),
            Rule("swan", "It ran."),
        )
        async with at_terminal(ada, *a_plugin(folder / "plugin", wakers=[waker])) as terminal:
            await room.present("ada")
            await until_met(room, terminal.pid)
            await terminal.type("Run something.")
            await terminal.shows("It ran.")
            await terminal.leave()
        turns: list[Asked] = ada.model.turns
        first, second, third = turns[:_TURN]
        held = (second.at - first.at) - (third.at - second.at)
        return held * 1000, bool(second.places_of(READY)), len(turns) - _TURN


async def measure(runs: int) -> dict[str, Any]:
    """Measure each waker."""
    found: dict[str, Any] = {}
    for waker in WAKERS:
        ran: list[tuple[float, bool, int]] = []
        for _ in range(runs):
            with tempfile.TemporaryDirectory() as folder:
                ran.append(await once(Path(folder), waker))
        cost = [one[0] for one in ran]
        found[waker] = {
            "median_ms": round(statistics.median(cost)),
            "most_ms": round(max(cost)),
            "folded_in": sum(one[1] for one in ran),
            "turns_of_their_own": sum(one[2] for one in ran),
            "runs": runs,
        }
    return found


if __name__ == "__main__":
    sys.stdout.write(f"{json.dumps(anyio.run(measure, int((sys.argv[1:] or ['10'])[0])))}\n")
