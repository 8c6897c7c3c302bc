"""A plugin of a test's own: the hooks and the monitor that it wants to have beside a session.

They are started as the project's plugin starts them, without the search for a Python; a test
leaves some out, or puts a fault in the place of one.
"""

import json
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import anyio

from claudemesh_mcp import routes
from claudemesh_mcp.plugin import entries
from claudemesh_mcp.routes import records
from tests.support.claude.asked import Asked, Place
from tests.support.claude.client import LIMIT_S, Claude
from tests.support.claude.room import Room
from tests.support.claude.script import Rule
from tests.support.live import LiveSession, a_moment

EVENTS: Final = ("SessionStart", "UserPromptSubmit", "PostToolUse", "Stop", "SessionEnd")
MONITOR: Final = "Messages wait"
SILENT: Final = "SELECT 1 FROM bells WHERE rung_ms < strftime('%s', 'now') * 1000 - 10000"
"""Finds in a peer's file a bell that was rung so long ago that its route counts as silent."""
IDLE: Final = "SELECT 1 FROM facts WHERE key = 'route.activity' AND value = 'idle'"
_PROGRAMS: Final = Path(routes.__file__).parent
_ALONE: Final = (sys.executable, "-I", "-S")
KILLED: Final = Path(__file__).with_name("killed_hook.py")
"""Runs a hook and kills it between its offer and its print."""

SPOILT: Final = ("removed", "killed")
"""What the negative of a proof does to hooks: they are not there, or die behind their offer."""
_DEAF: Final = " >/dev/null"
_DYING: Final = ("sh", "-c", '"$@"; kill -9 $$', "rewake")

Faults = Mapping[str, Sequence[str]]


def hook(event: str) -> list[str]:
    """Give the command of a hook."""
    return [*_ALONE, str(_PROGRAMS / "hook.py"), event]


def dying(command: Sequence[str]) -> list[str]:
    """Give a command in the place of a hook's that kills it when it has made its offer."""
    return [sys.executable, str(KILLED), *command]


def killed(event: str) -> list[str]:
    """Give a command in the place of an event's hook, by which it dies behind its offer."""
    return dying(hook(event))


def a_plugin(
    folder: Path,
    events: Sequence[str] = EVENTS,
    wakers: Sequence[str] = ("monitor", "rewake"),
    faults: Faults = {},  # noqa: B006 - read only
) -> list[str]:
    """Write a plugin; gives the words by which the client loads it.

    Args:
        folder: Where, made anew.
        events: The hooks that it has.
        wakers: ``monitor``, ``rewake``; ``deaf`` is a monitor whose lines reach nobody, ``dying``
            a rewake hook that is killed as it rings.
        faults: Commands in the place of hooks, by event.
    """
    hooks: dict[str, list[Any]] = {
        event: [{"hooks": [_run(list(faults.get(event, hook(event))))]}] for event in events
    }
    before = {"rewake": (), "dying": _DYING}
    for waker in [waker for waker in wakers if waker in before]:
        waits = {"asyncRewake": True, "timeout": entries.WAIT_S, "rewakeSummary": MONITOR}
        run = _run([*before[waker], *hook("rewake")])
        for event in sorted(entries.REWAKING):
            rewake = {**run, **waits, "rewakeMessage": "claudemesh:"}
            hooks.setdefault(event, []).append({"hooks": [rewake]})
    (folder / "hooks").mkdir(parents=True)
    (folder / ".claude-plugin").mkdir()
    _write(folder / "hooks" / "hooks.json", {"hooks": hooks})
    manifest = {"name": "beside", "version": "1.0.0", "description": "Parts under test."}
    _write(folder / ".claude-plugin" / "plugin.json", manifest)
    heard = {"monitor": "", "deaf": _DEAF}
    for waker in [waker for waker in wakers if waker in heard]:
        program = " ".join(f"'{word}'" for word in (*_ALONE, str(_PROGRAMS / "monitor.py")))
        (folder / "monitors").mkdir()
        command = f"exec {program}{heard[waker]}"
        told = [{"name": "messages", "command": command, "description": MONITOR}]
        _write(folder / "monitors" / "monitors.json", told)
    return ["--plugin-dir", str(folder)]


def spoilt(how: str, *events: str) -> dict[str, Any]:
    """Give what makes a plugin one whose hooks of some events bring nothing.

    Args:
        how: One of ``SPOILT``.
        events: Whose hooks. Only the first is killed: the others are removed in any case, for they
            would show what it had offered.
    """
    dies = events[:1] if how == "killed" else ()
    kept = [event for event in EVENTS if event in dies or event not in events]
    return {"events": kept, "faults": {event: killed(event) for event in dies}}


def meshed(room: Room, name: str, *rules: Rule, **settings: str) -> Claude:
    """Make a client whose hooks find the home of its session."""
    home = str(room.live.home.data)
    return room.claude(name, *rules, CLAUDEMESH_HOME=home, **settings)


def _run(command: list[str]) -> dict[str, Any]:
    return {"type": "command", "command": command[0], "args": command[1:], "timeout": 30}


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), "utf-8")


def file_of(room: Room, client_pid: int) -> Path:
    """Give the peer's file of a client's session, which its server has named."""
    record = records.find(room.live.home.data, client_pid)
    assert record is not None
    return Path(record.file)


async def until_met(room: Room, client_pid: int) -> None:
    """Wait until the hooks of a client find its session."""
    with anyio.fail_after(LIMIT_S):
        # Another process's file gives no sign here.
        while records.find(room.live.home.data, client_pid) is None:
            await a_moment()


def told_in(file: Path, question: str) -> list[tuple[Any, ...]]:
    """Ask a peer's file something."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as sql:
        return sql.execute(question).fetchall()


async def until_told(file: Path, question: str) -> None:
    """Wait until a peer's file answers a question with a row."""
    with anyio.fail_after(LIMIT_S):
        # Another process's commit gives no sign here.
        while not told_in(file, question):
            await a_moment()


def end_leases(file: Path) -> None:
    """Let the leases of what was offered and not printed be over."""
    with closing(sqlite3.connect(file, timeout=LIMIT_S)) as sql:
        sql.execute("UPDATE inbox SET lease_until_ms = 0 WHERE printed IS NULL")
        sql.commit()


async def shown(bob: LiveSession, handle: str = "ada") -> list[str]:
    """Give the routes by which others see that a session is reached."""
    (row,) = (await bob.call("search_peers", query=handle))["peers"]
    return row["routes"]


async def until_shown(bob: LiveSession, *routes: str) -> None:
    """Wait until others are shown these routes of ada's."""
    with anyio.fail_after(LIMIT_S):
        while await shown(bob) != list(routes):
            await a_moment()


def result_in(asked: Asked) -> str:
    """Give what a request has, new, as the result of a tool."""
    return [block for block in asked.fresh if block.place is Place.RESULT][-1].text
