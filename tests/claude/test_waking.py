"""Idle sessions at their terminals are woken by a bell, and by nothing else."""

from pathlib import Path

from tests.support.claude.asked import Place
from tests.support.claude.beside import a_plugin, meshed
from tests.support.claude.room import Room
from tests.support.claude.script import Rule
from tests.support.claude.terminal import at_terminal


async def test_an_idle_session_is_woken_by_its_monitor(room: Room, tmp_path: Path) -> None:
    bob = await room.live.join("bob")
    ada = meshed(room, "ada", Rule("Two herons", "Two, says bob."))
    async with at_terminal(ada, *a_plugin(tmp_path / "plugin", wakers=["monitor"])) as terminal:
        await room.present("ada")
        sent = await bob.call("send", to="ada", text="Two herons.")
        arrival = await ada.model.arrived("Two herons.")
        await terminal.shows("Two, says bob.")
        assert arrival.place is Place.SYSTEM
        seen = await bob.reached("seen", sent)
        assert (seen["proved"], seen["route"]) == (True, "monitor")
        await terminal.leave()
    assert len(ada.model.arrivals("Two herons.")) == 1
