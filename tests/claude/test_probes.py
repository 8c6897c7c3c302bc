"""Whether what hooks print reaches the model of a real client is found out, and told to others."""

import re
from collections.abc import Sequence
from pathlib import Path

from tests.support.claude.beside import (
    EVENTS,
    a_plugin,
    file_of,
    hook,
    meshed,
    result_in,
    shown,
    until_met,
    until_shown,
    until_told,
)
from tests.support.claude.client import Claude
from tests.support.claude.room import Room
from tests.support.claude.script import Rule, mesh
from tests.support.claude.terminal import at_terminal

READY = "claudemesh: ready. (probe "
SILENT = "SELECT 1 FROM facts WHERE key = 'route.hooks' AND value = 'silent'"


def a_client(room: Room) -> Claude:
    return meshed(
        room,
        "ada",
        Rule("How are you reached", mesh("mesh_info")),
        Rule('"routes"', "So it is."),
        ENABLE_TOOL_SEARCH="false",
    )


def unheard(event: str) -> Sequence[str]:
    """Give a command in the place of an event's hook whose print is dropped."""
    return ["sh", "-c", '"$@" >/dev/null', "sh", *hook(event)]


def nonces(ada: Claude) -> list[str]:
    """Give the nonces that the model has read, in the order of its requests."""
    blocks = [block.text for asked in ada.model.turns for block in asked.fresh]
    return [one for text in blocks for one in re.findall(rf"{re.escape(READY)}(\w+)\)", text)]


async def test_a_session_is_probed_with_its_first_prompt_and_others_see_that_it_is_reached(
    room: Room, tmp_path: Path
) -> None:
    bob = await room.live.join("bob")
    ada = a_client(room)
    async with at_terminal(ada, *a_plugin(tmp_path / "plugin", wakers=[])) as terminal:
        await room.present("ada")
        await until_met(room, terminal.pid)
        assert await shown(bob) == []
        asked = await terminal.prompt("Good morning.")
        assert ada.model.arrival(READY).asked is asked
        await until_shown(bob, "hooks")
        assert len(ada.model.turns) == 1
        await terminal.type("How are you reached?")
        await terminal.shows("So it is.")
        assert '"hooks":"works"' in result_in(ada.model.turns[-1])
        # Once for each start, and another one when the session starts anew.
        await terminal.type("/clear")
        await until_shown(bob)
        await terminal.prompt("Good evening.")
        await until_shown(bob, "hooks")
        await terminal.leave()
    assert len(nonces(ada)) == len(set(nonces(ada))) == 2
    assert len(ada.model.turns) == 4


async def test_hooks_whose_print_is_dropped_are_not_called_a_way_to_the_model(
    room: Room, tmp_path: Path
) -> None:
    bob = await room.live.join("bob")
    ada = a_client(room)
    dropped = {event: unheard(event) for event in EVENTS}
    words = a_plugin(tmp_path / "plugin", wakers=[], faults=dropped)
    async with at_terminal(ada, *words) as terminal:
        await room.present("ada")
        await until_met(room, terminal.pid)
        await terminal.prompt("Good morning.")
        await until_told(file_of(room, terminal.pid), SILENT)
        assert await shown(bob) == []
        await terminal.type("How are you reached?")
        await terminal.shows("So it is.")
        assert '"hooks":"silent"' in result_in(ada.model.turns[-1])
        await terminal.leave()
    assert nonces(ada) == []
