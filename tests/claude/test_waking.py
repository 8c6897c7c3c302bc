"""Idle sessions at their terminals are woken by a bell, and what it brings is seen by evidence.

What has arrived is read from the requests of the client; each proof has its negative beside it.
"""

from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.support.claude.asked import Place
from tests.support.claude.beside import (
    IDLE,
    SILENT,
    a_plugin,
    end_leases,
    file_of,
    killed,
    meshed,
    spoilt,
    told_in,
    until_met,
    until_shown,
    until_told,
)
from tests.support.claude.client import LIMIT_S, Claude
from tests.support.claude.room import Room
from tests.support.claude.script import Rule
from tests.support.claude.terminal import Terminal, at_terminal
from tests.support.live import LiveSession, a_moment

TEXT = "Two herons."
RUNG = "SELECT 1 FROM bells"


def a_client(room: Room) -> Claude:
    return meshed(room, "ada", Rule("Two herons", "Two, says bob."))


async def send(room: Room, bob: LiveSession, **more: Any) -> dict[str, Any]:
    """Send the text, once ada is there."""
    await room.present("ada")
    return await bob.call("send", to="ada", text=TEXT, **more)


async def assert_shown_with_a_prompt(terminal: Terminal, bob: LiveSession, sent: Any) -> None:
    """Let the human send a prompt: now the text comes, and is seen."""
    asked = await terminal.prompt("Is there news?")
    assert (await terminal.client.model.arrived(TEXT)).asked is asked
    assert (await bob.reached("seen", sent))["route"] == "prompt"


async def test_an_idle_session_is_woken_by_its_monitor(room: Room, tmp_path: Path) -> None:
    bob = await room.live.join("bob")
    ada = a_client(room)
    async with at_terminal(ada, *a_plugin(tmp_path / "plugin")) as terminal:
        sent = await send(room, bob)
        arrival = await ada.model.arrived(TEXT)
        await terminal.shows("Two, says bob.")
        assert arrival.place is Place.SYSTEM
        seen = await bob.reached("seen", sent)
        assert (seen["proved"], seen["route"]) == (True, "monitor")
        await terminal.leave()
    assert len(ada.model.arrivals(TEXT)) == 1
    assert len(ada.model.turns) == 1


async def test_what_others_do_and_say_to_all_is_no_turn_of_an_idle_session(
    room: Room, tmp_path: Path
) -> None:
    # Who was killed is said to be away when its lease is over.
    bob = await room.live.join("bob", CLAUDEMESH_BROKER_LEASE_S="1")
    ada = a_client(room)
    async with at_terminal(ada, *a_plugin(tmp_path / "plugin")) as terminal:
        await room.present("ada")
        await until_met(room, terminal.pid)
        cleo, dan = await room.live.join_all("cleo", "dan")
        await cleo.call("set_profile", handle="clara", summary="Counts herons.")
        await cleo.call("join", address="@ops")
        await cleo.call("set_profile", status="dnd")
        await cleo.end()
        await dan.kill()
        await bob.sees_gone("clara", "dan")
        everybody = await bob.call("send", to="*", text="One swan.")
        # What came before it is dealt with by now: a session takes all that it hears in order.
        await got_by(bob, everybody, "ada")
        file = file_of(room, terminal.pid)
        assert (told_in(file, RUNG), ada.model.turns) == ([], [])
        sent = await send(room, bob)
        await ada.model.arrived(TEXT)
        assert (await bob.reached("seen", sent))["route"] == "monitor"
        await terminal.leave()
    assert len(ada.model.turns) == 1


async def got_by(bob: LiveSession, sent: dict[str, Any], handle: str) -> None:
    """Wait until one of several recipients has a message."""
    with anyio.fail_after(LIMIT_S):
        while True:
            rows = (await bob.call("message_status", id=sent["id"]))["recipients"]
            if ("delivered", handle) in {(row["status"], row["handle"]) for row in rows}:
                return
            await a_moment()


async def test_the_routes_of_a_session_are_shown_as_they_were_proven(
    room: Room, tmp_path: Path
) -> None:
    bob = await room.live.join("bob")
    ada = a_client(room)
    async with at_terminal(ada, *a_plugin(tmp_path / "plugin", wakers=["monitor"])) as terminal:
        await room.present("ada")
        await until_met(room, terminal.pid)
        # A turn of its human's proves the hooks, and costs no request more; no bell has come back.
        await terminal.prompt("Good morning.")
        await until_shown(bob, "hooks")
        await until_told(file_of(room, terminal.pid), IDLE)
        assert len(ada.model.turns) == 1
        await bob.call("send", to="ada", text=TEXT)
        await ada.model.arrived(TEXT)
        await until_shown(bob, "hooks", "monitor")
        await terminal.leave()
    assert len(ada.model.turns) == 2


async def test_without_a_monitor_a_rewake_hook_wakes_it_again_and_again(
    room: Room, tmp_path: Path
) -> None:
    bob = await room.live.join("bob")
    ada = a_client(room)
    ada.model.rules.append(Rule("Three swans", "Three, says bob."))
    async with at_terminal(ada, *a_plugin(tmp_path / "plugin", wakers=["rewake"])) as terminal:
        sent = await send(room, bob)
        assert (await ada.model.arrived(TEXT)).place is Place.SYSTEM
        assert (await bob.reached("seen", sent))["route"] == "rewake"
        await terminal.shows("Two, says bob.")
        again = await bob.call("send", to="ada", text="Three swans.")
        assert (await ada.model.arrived("Three swans.")).place is Place.SYSTEM
        assert (await bob.reached("seen", again))["route"] == "rewake"
        await terminal.leave()
    assert len(ada.model.turns) == 2


async def test_a_monitor_that_nobody_hears_leaves_the_waking_to_a_rewake_hook(
    room: Room, tmp_path: Path
) -> None:
    bob = await room.live.join("bob")
    ada = a_client(room)
    words = a_plugin(tmp_path / "plugin", wakers=["deaf", "rewake"])
    async with at_terminal(ada, *words) as terminal:
        sent = await send(room, bob)
        await ada.model.arrived(TEXT)
        assert (await bob.reached("seen", sent))["route"] == "rewake"
        await terminal.leave()


@pytest.mark.parametrize("waker", ["deaf", "dying"])
async def test_what_a_waker_said_that_nobody_hears_wakes_nobody_and_is_not_seen(
    room: Room, tmp_path: Path, waker: str
) -> None:
    bob = await room.live.join("bob")
    ada = a_client(room)
    async with at_terminal(ada, *a_plugin(tmp_path / "plugin", wakers=[waker])) as terminal:
        sent = await send(room, bob)
        await until_told(file_of(room, terminal.pid), SILENT)
        assert (ada.model.turns, await bob.how_far(sent)) == ([], "delivered")
        await assert_shown_with_a_prompt(terminal, bob, sent)
        await terminal.leave()


async def test_where_no_waker_is_heard_both_have_rung_and_the_session_sleeps_on(
    room: Room, tmp_path: Path
) -> None:
    bob = await room.live.join("bob")
    ada = a_client(room)
    words = a_plugin(tmp_path / "plugin", wakers=["deaf", "dying"])
    async with at_terminal(ada, *words) as terminal:
        sent = await send(room, bob)
        await until_told(file_of(room, terminal.pid), f"{SILENT} AND route = 'rewake'")
        assert (ada.model.turns, await bob.how_far(sent)) == ([], "delivered")
        await assert_shown_with_a_prompt(terminal, bob, sent)
        await terminal.leave()


async def test_without_a_prompt_hook_a_bell_brings_no_text_and_nothing_is_seen(
    room: Room, tmp_path: Path
) -> None:
    bob = await room.live.join("bob")
    ada = a_client(room)
    removed = spoilt("removed", "UserPromptSubmit", "Stop")
    words = a_plugin(tmp_path / "plugin", wakers=["monitor"], **removed)
    async with at_terminal(ada, *words) as terminal:
        sent = await send(room, bob)
        bell = await ada.model.arrived("1 message from bob.")
        assert bell.asked.places_of("call inbox. (bell ") == [bell.place]
        await terminal.shows("Good.")
        await terminal.leave()
    assert ada.model.arrivals(TEXT) == []
    assert await bob.how_far(sent) == "delivered"


async def test_a_prompt_hook_killed_behind_its_offer_has_shown_nothing(
    room: Room, tmp_path: Path
) -> None:
    bob = await room.live.join("bob")
    ada = a_client(room)
    dies = {"UserPromptSubmit": killed("UserPromptSubmit")}
    words = a_plugin(tmp_path / "plugin", wakers=["monitor"], faults=dies)
    async with at_terminal(ada, *words) as terminal:
        sent = await send(room, bob)
        await ada.model.arrived("1 message from bob.")
        file = file_of(room, terminal.pid)
        await until_told(file, IDLE)
        assert (ada.model.arrivals(TEXT), await bob.how_far(sent)) == ([], "delivered")
        end_leases(file)
        arrival = await ada.model.arrived(TEXT)
        (block, *_) = [one for one in arrival.asked.fresh if TEXT in one.text]
        assert 'redelivered="true"' in block.text
        await terminal.leave()
