"""The broker is killed between two turns of real clients: no message is lost, and none is made up.

What has arrived at a model is read from the requests that its client sent; each proof has its
negative beside it.
"""

import os
import signal
from pathlib import Path

import anyio
import pytest

from claudemesh_mcp.home import file_lock
from tests.support.claude.asked import Place
from tests.support.claude.beside import SPOILT, a_plugin, meshed, spoilt
from tests.support.claude.client import Claude
from tests.support.claude.room import Room
from tests.support.claude.script import Rule, mesh
from tests.support.claude.terminal import at_terminal
from tests.support.live import LIMIT_S, a_moment

TEXT = "Two herons."


def a_client(room: Room) -> Claude:
    return meshed(room, "ada", Rule("Two herons", "Two, says bob."))


async def test_a_broker_killed_between_two_turns_costs_no_message(room: Room) -> None:
    ada = room.claude(
        "ada",
        Rule("Tell bob the first", mesh("send", to="bob", text="One heron.")),
        Rule("Tell bob the second", mesh("send", to="bob", text="Two herons.")),
        Rule("Listen", mesh("inbox", wait_s=60)),
        Rule('"status":"(accepted|queued|pending)"', "It is on its way."),
        Rule("Three herons", "Three, says bob."),
    )
    bob = await room.live.join("bob")
    async with at_terminal(ada) as terminal:
        await room.present("ada")
        await terminal.prompt("Tell bob the first number.")
        (first,) = await bob.read(1)
        await terminal.shows("It is on its way.")
        killed = room.live.kill_broker()
        await terminal.prompt("Tell bob the second number.")
        (second,) = await bob.read(1)
        assert [first["text"], second["text"]] == ["One heron.", "Two herons."]
        assert room.live.broker.pid != killed.pid
        await bob.call("send", to=second["from"], text="Three herons.")
        await terminal.prompt("Listen to bob.")
        await terminal.shows("Three, says bob.")
        await terminal.leave()
    assert ada.model.arrival("Three herons.").place is Place.RESULT
    assert (await bob.call("inbox"))["messages"] == []


async def test_both_sessions_go_on_after_their_broker_was_killed(room: Room) -> None:
    ada = room.claude(
        "ada",
        Rule("Tell bob (.*)[.]", lambda found: mesh("send", to="bob", text=f"News: {found[1]}.")),
        Rule('"status":"(accepted|queued|pending)"', "It is on its way."),
    )
    bob = room.claude(
        "bob",
        Rule("Listen", mesh("inbox", wait_s=60)),
        Rule("News: ([^.]*)", lambda found: f"Ada says {found[1]}"),
    )
    async with at_terminal(ada) as at_ada, at_terminal(bob) as at_bob:
        await room.present("ada", "bob")
        for news in ("the build is red", "the build is green"):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(at_bob.prompt, f"Listen until {news}")
                tasks.start_soon(at_ada.prompt, f"Tell bob {news}.")
            await at_bob.shows(f"Ada says {news}")
            assert bob.model.arrival(f"News: {news}.").place is Place.RESULT
            room.live.kill_broker()


async def test_what_no_broker_takes_is_before_no_model_until_one_runs_again(
    room: Room, tmp_path: Path
) -> None:
    bob = await room.live.join("bob")
    ada = a_client(room)
    async with at_terminal(ada, *a_plugin(tmp_path / "plugin", wakers=["monitor"])) as terminal:
        await room.present("ada")
        await bob.call("send", to="ada", text="Good morning.", priority="low")
        with file_lock(room.live.home.run / "start.lock", LIMIT_S):
            # It answers nothing any more: what is sent waits in the outbox.
            os.kill(room.live.broker.pid, signal.SIGSTOP)
            sent = await bob.call("send", to="ada", text=TEXT)
            room.live.kill_broker()
            await terminal.prompt("Is there news?")
            await terminal.shows("Good.")
            assert (ada.model.arrivals(TEXT), await bob.how_far(sent)) == ([], "pending")
        arrival = await ada.model.arrived(TEXT)
        assert arrival.place is Place.SYSTEM
        assert arrival.asked is ada.model.turns[1]
        assert (await bob.reached("seen", sent))["proved"] is True
        await terminal.leave()


@pytest.mark.parametrize("how", SPOILT)
async def test_behind_a_killed_broker_nothing_is_seen_where_the_hooks_bring_nothing(
    room: Room, tmp_path: Path, how: str
) -> None:
    bob = await room.live.join("bob")
    ada = a_client(room)
    bad = spoilt(how, "UserPromptSubmit", "Stop")
    async with at_terminal(ada, *a_plugin(tmp_path / "plugin", wakers=[], **bad)) as terminal:
        await room.present("ada")
        await terminal.prompt("Good morning.")
        await terminal.shows("Good.")
        await restarted(room)
        sent = await bob.call("send", to="ada", text=TEXT)
        await bob.reached("delivered", sent)
        await terminal.prompt("Is there news?")
        await ada.model.turned(2)
        await terminal.leave()
    assert ada.model.arrivals(TEXT) == []
    assert await bob.how_far(sent) == "delivered"


async def restarted(room: Room) -> None:
    """Kill the broker, and wait until a session has started another."""
    killed = room.live.kill_broker()
    with anyio.fail_after(LIMIT_S):
        # Another process's start gives no sign here.
        while (found := room.live.launcher.find()) is None or found.pid == killed.pid:
            await a_moment()
