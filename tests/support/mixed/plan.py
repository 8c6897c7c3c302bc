"""Plans of mixed runs: all that chance decides about a run, by the campaign's seed and its number.

``run.py`` plays one. What a plan says is the same each time; how fast programs are is not, and so a
kill need not hit the same line again.
"""

import random
from dataclasses import dataclass
from typing import Final

TERMINAL: Final = "terminal"
PRINT: Final = "print"
MONITOR: Final = "monitor"
REWAKE: Final = "rewake"
HOOKS: Final = "hooks"
HOOK: Final = "hook"
SERVER: Final = "server"
BROKER: Final = "broker"
CLIENT: Final = "client"
OFFER: Final = "offer"
PRINTED: Final = "printed"
TAKEN: Final = "taken"
_MOST: Final = 6
_LOOK: Final = "search_peers"
_INBOX: Final = "inbox"
_VICTIMS: Final = {"": 6, HOOK: 6, MONITOR: 2, REWAKE: 2, SERVER: 2, BROKER: 2, CLIENT: 3}


@dataclass(frozen=True)
class Shot:
    """One message.

    Args:
        gap_s: How long after the one before.
        priority: Its priority.
    """

    gap_s: float
    priority: str


@dataclass(frozen=True)
class Kill:
    """One SIGKILL.

    Args:
        what: Whom it hits; nobody if empty.
        after_s: How long after the beginning of the act.
        event: The hook, if it hits one.
        how: Of a hook: behind its offer, behind its print, or the ms after its start. ``taken`` is
            behind the print too, but the client does not learn of it, and takes what was printed.
    """

    what: str
    after_s: float
    event: str
    how: str


@dataclass(frozen=True)
class Act:
    """A part of a run.

    Args:
        calls: The tools that a turn calls meanwhile; the session is idle if there are none.
        pace_s: How long the model takes for each.
        shots: The messages.
        kill: Who is killed.
        command: What the human types at the end of it.
    """

    calls: tuple[str, ...]
    pace_s: float
    shots: tuple[Shot, ...]
    kill: Kill
    command: str


@dataclass(frozen=True)
class Plan:
    """A run.

    Args:
        number: Which of the campaign's.
        mode: ``terminal`` or ``print``.
        setup: ``monitor`` has all routes, ``rewake`` no monitor, ``hooks`` neither.
        acts: Its parts.
        back_s: How long the human takes to resume a session that has died.
    """

    number: int
    mode: str
    setup: str
    acts: tuple[Act, ...]
    back_s: float


def a_plan(seed: int, number: int) -> Plan:
    """Let chance decide about a run."""
    chance = random.Random(f"{seed}.{number}")  # noqa: S311 - it plans tests
    mode = chance.choices((TERMINAL, PRINT), (3, 1))[0]
    setup = chance.choices((MONITOR, REWAKE, HOOKS), (2, 2, 1))[0]
    count = chance.randint(1, _MOST)
    parts = min(count, chance.randint(1, 2))
    first = count if parts == 1 else chance.randint(1, count - 1)
    acts = [
        _act(chance, mode, setup, shots, must_work=mode == PRINT and not place)
        for place, shots in enumerate((first, count - first)[:parts])
    ]
    return Plan(number, mode, setup, tuple(acts), chance.uniform(0, 1.5))


def _act(chance: random.Random, mode: str, setup: str, count: int, *, must_work: bool) -> Act:
    works = must_work or chance.random() < 0.5
    tools = chance.choices((_LOOK, _INBOX), (4, 1), k=chance.randint(2, 6))
    priorities = chance.choices(("now", "next", "low"), (3, 4, 2), k=count)
    gaps = [chance.choice((0.0, chance.uniform(0, 1))) for _ in range(count)]
    commands = chance.choices(("", "/clear", "/compact"), (6, 1, 1))
    return Act(
        calls=tuple(tools) if works else (),
        pace_s=chance.uniform(0.05, 0.6),
        shots=tuple(Shot(*one) for one in zip(gaps, priorities, strict=True)),
        kill=_kill(chance, _there(mode, setup)),
        command=commands[0] if mode == TERMINAL else "",
    )


def _there(mode: str, setup: str) -> dict[str, int]:
    """Say who can be killed, and how often each is to be."""
    lacking = {MONITOR} if setup == REWAKE else {MONITOR, REWAKE} if setup == HOOKS else set[str]()
    if mode == PRINT:
        lacking = {MONITOR, REWAKE}
    return {what: weight for what, weight in _VICTIMS.items() if what not in lacking}


def _kill(chance: random.Random, there: dict[str, int]) -> Kill:
    events = ("SessionStart", "UserPromptSubmit", "PostToolUse", "Stop")
    ways = (OFFER, PRINTED, TAKEN, str(chance.randint(0, 150)))
    return Kill(
        what=chance.choices(list(there), list(there.values()))[0],
        after_s=chance.uniform(0, 2),
        event=chance.choices(events, (1, 3, 3, 3))[0],
        how=chance.choices(ways, (3, 2, 2, 3))[0],
    )
