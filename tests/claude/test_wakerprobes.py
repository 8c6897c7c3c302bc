"""Wakers of a real client are probed at its first tool boundary, within the turn that is there."""

import json
from pathlib import Path

from tests.support.claude.asked import Place
from tests.support.claude.beside import (
    IDLE,
    a_plugin,
    file_of,
    meshed,
    result_in,
    until_met,
    until_shown,
    until_told,
)
from tests.support.claude.client import Claude
from tests.support.claude.room import Room
from tests.support.claude.script import Call, Rule, mesh
from tests.support.claude.terminal import Terminal, at_terminal

READY = "claudemesh: ready. Nothing waits"
PROBED = "SELECT 1 FROM facts WHERE key = 'route.probe.{}' AND value <> ''"
SILENT = (
    "SELECT 1 FROM facts WHERE key = 'route.probe.monitor' AND value LIKE '% 0'"
    " AND substr(value, 18, 13) + 10000 < strftime('%s', 'now') * 1000"
)
"""Finds a probe of the monitor that has not come back, and counts as unheard by now."""


def a_client(room: Room) -> Claude:
    return meshed(
        room,
        "ada",
        Rule("How are you reached", mesh("mesh_info")),
        Rule("Run something", Call("Bash", {"command": "echo heron"})),
        Rule('"routes"', "So it is."),
        Rule("heron", "It ran."),
        ENABLE_TOOL_SEARCH="false",
    )


async def met(room: Room, terminal: Terminal) -> None:
    await room.present("ada")
    await until_met(room, terminal.pid)


async def test_a_monitor_is_probed_at_the_first_tool_boundary_and_costs_no_turn(
    room: Room, tmp_path: Path
) -> None:
    bob = await room.live.join("bob")
    ada = a_client(room)
    async with at_terminal(ada, *a_plugin(tmp_path / "plugin")) as terminal:
        await met(room, terminal)
        # Without a tool there is no boundary: a line would be a turn.
        await terminal.prompt("Good morning.")
        await until_shown(bob, "hooks")
        assert ada.model.arrivals(READY) == []
        await terminal.type("Run something.")
        await terminal.shows("It ran.")
        arrival = ada.model.arrival(READY)
        assert arrival.place is Place.SYSTEM
        # In the very request that has the tool's result.
        assert "heron" in result_in(arrival.asked)
        await until_shown(bob, "hooks", "monitor")
        await terminal.type("How are you reached?")
        await terminal.shows("So it is.")
        info = json.loads(result_in(ada.model.turns[-1]))
        assert (info["routes"]["hooks"], info["routes"]["monitor"]) == ("works", "works")
        await terminal.leave()
    assert len(ada.model.arrivals(READY)) == 1
    assert len(ada.model.turns) == 5


async def test_a_session_that_a_probe_has_shown_to_be_heard_is_woken_by_that_route(
    room: Room, tmp_path: Path
) -> None:
    bob = await room.live.join("bob")
    ada = a_client(room)
    ada.model.rules.append(Rule("Three swans", "Three, says bob."))
    async with at_terminal(ada, *a_plugin(tmp_path / "plugin", wakers=["rewake"])) as terminal:
        await met(room, terminal)
        await terminal.type("Run something.")
        await terminal.shows("It ran.")
        assert "heron" in result_in(ada.model.arrival(READY).asked)
        await until_shown(bob, "hooks", "rewake")
        # The hook that rang has ended; the end of the turn has started another.
        await until_told(file_of(room, terminal.pid), IDLE)
        sent = await bob.call("send", to="ada", text="Three swans.")
        await terminal.shows("Three, says bob.")
        assert (await bob.reached("seen", sent))["route"] == "rewake"
        await terminal.leave()
    assert len(ada.model.turns) == 3


async def test_a_monitor_that_nobody_hears_is_silent_and_the_rewake_hook_is_probed_behind_it(
    room: Room, tmp_path: Path
) -> None:
    bob = await room.live.join("bob")
    ada = a_client(room)
    words = a_plugin(tmp_path / "plugin", wakers=["deaf", "rewake"])
    async with at_terminal(ada, *words) as terminal:
        await met(room, terminal)
        await terminal.type("Run something.")
        await terminal.shows("It ran.")
        file = file_of(room, terminal.pid)
        await until_told(file, PROBED.format("monitor"))
        await until_shown(bob, "hooks")
        await until_told(file, SILENT)
        assert ada.model.arrivals(READY) == []
        await terminal.type("How are you reached?")
        await terminal.shows("So it is.")
        assert json.loads(result_in(ada.model.turns[-1]))["routes"]["monitor"] == "silent"
        await until_shown(bob, "hooks", "rewake")
        await terminal.leave()
    assert len(ada.model.arrivals(READY)) == 1
    assert len(ada.model.turns) == 4
