"""Wakers of a real client are probed behind its first turn, and no request is made by that."""

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from tests.support.claude.beside import (
    EVENTS,
    IDLE,
    a_plugin,
    file_of,
    killed,
    meshed,
    result_in,
    told_in,
    until_met,
    until_shown,
    until_told,
)
from tests.support.claude.client import LIMIT_S, Claude
from tests.support.claude.room import Room
from tests.support.claude.script import Call, Rule, mesh
from tests.support.claude.terminal import Terminal, at_terminal
from tests.support.live import a_moment

TRIES = "tries whether it can wake this session"
HEARD = "claudemesh tried whether messages can wake this session: they can."
PROBED = "SELECT 1 FROM facts WHERE key = 'route.probe.monitor'"
SILENT = (
    "SELECT 1 FROM facts WHERE key = 'route.probe.{}' AND value LIKE '% 0'"
    " AND substr(value, -15, 13) + 10000 < strftime('%s', 'now') * 1000"
)
"""Finds the probe of a waker that has not come back, and counts as unheard by now."""


def a_client(room: Room) -> Claude:
    return meshed(
        room,
        "ada",
        Rule("How are you reached", mesh("mesh_info")),
        Rule("Run something", Call("Bash", {"command": "sleep 60", "run_in_background": True})),
        Rule("Take a minute", Call("Bash", {"command": "tail -f /dev/null"})),
        Rule('"routes"', "So it is."),
        Rule("Three swans", "Three, says bob."),
        ENABLE_TOOL_SEARCH="false",
    )


async def begun(room: Room, terminal: Terminal) -> Path:
    """Let the session have its first turn; gives the file of its peer."""
    await room.present("ada")
    await until_met(room, terminal.pid)
    await terminal.prompt("Good morning.")
    return file_of(room, terminal.pid)


async def until_queued(client: Claude, text: str) -> None:
    """Wait until the client has taken a notice, which it keeps until it can make a prompt of it."""
    with anyio.fail_after(LIMIT_S):
        # Another process's file gives no sign here.
        while not any(
            text in path.read_text() for path in client.config.glob("projects/*/*.jsonl")
        ):
            await a_moment()


@pytest.mark.parametrize("waker", ["monitor", "rewake"])
async def test_a_waker_is_probed_behind_the_first_turn_and_then_wakes_the_session(
    room: Room, tmp_path: Path, waker: str
) -> None:
    bob = await room.live.join("bob")
    ada = a_client(room)
    async with at_terminal(ada, *a_plugin(tmp_path / "plugin", wakers=[waker])) as terminal:
        file = await begun(room, terminal)
        await terminal.shows(HEARD)
        await until_shown(bob, "hooks", waker)
        assert (len(ada.model.turns), told_in(file, IDLE)) == (1, [(1,)])
        # What rang for the probe has ended if it was a hook: the next one is there.
        sent = await bob.call("send", to="ada", text="Three swans.")
        await terminal.shows("Three, says bob.")
        assert (await bob.reached("seen", sent))["route"] == waker
        await terminal.leave()
    # Neither a turn was made of it, nor has the model read of it since.
    assert len(ada.model.turns) == 2
    assert ada.model.arrivals(TRIES) == []


async def test_a_monitor_that_nobody_hears_is_silent_and_the_rewake_hook_is_probed_behind_it(
    room: Room, tmp_path: Path
) -> None:
    bob = await room.live.join("bob")
    ada = a_client(room)
    words = a_plugin(tmp_path / "plugin", wakers=["deaf", "rewake"])
    async with at_terminal(ada, *words) as terminal:
        file = await begun(room, terminal)
        await until_shown(bob, "hooks")
        await until_told(file, SILENT.format("monitor"))
        await until_shown(bob, "hooks", "rewake")
        await terminal.type("How are you reached?")
        await terminal.shows("So it is.")
        assert '"hooks":"works","monitor":"silent"' in result_in(ada.model.turns[-1])
        await terminal.leave()
    assert len(ada.model.turns) == 3
    assert ada.model.arrivals(TRIES) == []


async def test_where_no_waker_is_heard_none_is_called_a_way_to_the_model(
    room: Room, tmp_path: Path
) -> None:
    bob = await room.live.join("bob")
    ada = a_client(room)
    words = a_plugin(tmp_path / "plugin", wakers=["deaf", "dying"])
    async with at_terminal(ada, *words) as terminal:
        file = await begun(room, terminal)
        await until_told(file, SILENT.format("monitor"))
        await until_told(file, SILENT.format("rewake"))
        await until_shown(bob, "hooks")
        await terminal.leave()
    assert len(ada.model.turns) == 1


async def test_hooks_that_would_not_refuse_it_have_no_waker_probed(
    room: Room, tmp_path: Path
) -> None:
    await room.live.join("bob")
    ada = a_client(room)
    dies = {"UserPromptSubmit": killed("UserPromptSubmit")}
    async with at_terminal(ada, *a_plugin(tmp_path / "plugin", faults=dies)) as terminal:
        file = await begun(room, terminal)
        await until_told(file, IDLE)
        await terminal.type("How are you reached?")
        await terminal.shows("So it is.")
        await until_told(file, IDLE)
        await terminal.leave()
    assert told_in(file, PROBED) == []
    assert len(ada.model.turns) == 3


async def test_without_a_hook_of_prompts_no_waker_is_probed_though_others_are_heard(
    room: Room, tmp_path: Path
) -> None:
    bob = await room.live.join("bob")
    ada = a_client(room)
    events = [event for event in EVENTS if event != "UserPromptSubmit"]
    words = a_plugin(tmp_path / "plugin", events, wakers=["monitor"])
    async with at_terminal(ada, *words) as terminal:
        await room.present("ada")
        await until_met(room, terminal.pid)
        await terminal.type("How are you reached?")
        await terminal.shows("So it is.")
        file = file_of(room, terminal.pid)
        await until_told(file, IDLE)
        await bob.call("send", to="ada", text="Three swans.")
        # The monitor has looked and rings, and what it says becomes a turn.
        await ada.model.arrived("1 message from bob.")
    assert told_in(file, PROBED) == []
    assert ada.model.arrivals(TRIES) == []


async def test_nobody_is_probed_while_the_client_has_something_in_the_background(
    room: Room, tmp_path: Path
) -> None:
    bob = await room.live.join("bob")
    ada = a_client(room)
    async with at_terminal(ada, *a_plugin(tmp_path / "plugin")) as terminal:
        await room.present("ada")
        await until_met(room, terminal.pid)
        await terminal.prompt("Run something.")
        file = file_of(room, terminal.pid)
        await until_told(file, "SELECT 1 FROM facts WHERE key = 'route.background' AND value = '1'")
        await until_shown(bob, "hooks")
        # The next message's bell is what tries it: the monitor has looked, and rings.
        await bob.call("send", to="ada", text="Three swans.")
        await terminal.shows("Three, says bob.")
    assert told_in(file, PROBED) == []


async def test_a_session_that_a_rewake_hook_wakes_is_woken_behind_a_turn_that_was_broken_off(
    room: Room, tmp_path: Path
) -> None:
    bob = await room.live.join("bob")
    ada = a_client(room)
    async with at_terminal(ada, *a_plugin(tmp_path / "plugin", wakers=["rewake"])) as terminal:
        file = await begun(room, terminal)
        await terminal.shows(HEARD)
        await terminal.prompt("Take a minute.")
        await terminal.shows("tail -f")
        await terminal.press_until("Escape", lambda screen: "Interrupted" in screen)
        # No hook has said that the turn has ended: for ten minutes it counts as going on.
        with closing(sqlite3.connect(file, timeout=LIMIT_S)) as sql:
            sql.execute("UPDATE facts SET value = '1' WHERE key = 'route.activity_ms'")
            sql.commit()
        sent = await bob.call("send", to="ada", text="Three swans.")
        await terminal.shows("Three, says bob.")
        assert (await bob.reached("seen", sent))["route"] == "rewake"
        await terminal.leave()


async def test_a_message_behind_a_probe_that_a_dialog_kept_back_comes_when_that_is_closed(
    room: Room, tmp_path: Path
) -> None:
    bob = await room.live.join("bob")
    ada, go = a_client(room), threading.Event()
    ada.model.rules.insert(0, Rule("Wait for me", "Done.", until=go))
    async with at_terminal(ada, *a_plugin(tmp_path / "plugin")) as terminal:
        await room.present("ada")
        await until_met(room, terminal.pid)
        await terminal.prompt("Wait for me.")
        await terminal.type("/status")
        await terminal.shows("Session ID")
        go.set()
        file = file_of(room, terminal.pid)
        await until_told(file, SILENT.format("monitor"))
        sent = await bob.call("send", to="ada", text="Three swans.")
        await until_queued(ada, "1 message from bob.")
        await terminal.press_until("Escape", lambda screen: "Session ID" not in screen)
        await terminal.shows("Three, says bob.")
        assert (await bob.reached("seen", sent))["proved"]
        await terminal.leave()
    # Nothing of it was shown twice, and no turn was made beside.
    assert len(ada.model.arrivals("Three swans.")) == 1
    assert len(ada.model.turns) == 2
