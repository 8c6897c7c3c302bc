"""Hooks put messages before the model of a real client; what they brought is seen by evidence.

What has arrived is read from the requests of the client; each proof has its negative beside it.
"""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.claude.asked import Place
from tests.support.claude.beside import (
    SPOILT,
    a_plugin,
    file_of,
    meshed,
    spoilt,
    until_met,
    until_told,
)
from tests.support.claude.client import Claude
from tests.support.claude.room import Room
from tests.support.claude.script import Answer, Rule, mesh
from tests.support.claude.terminal import Terminal, at_terminal
from tests.support.live import LiveSession

QUESTION = "Which branch?"
ANSWER = "It is main."
ACCEPTED = '"status": ?"(accepted|queued|delivered)"'
LOOK = mesh("search_peers")
WHOLE: Mapping[str, Any] = {}


class Asking:
    """A client whose model asks bob, and is busy until the test lets it go on."""

    def __init__(self, room: Room) -> None:
        self.asked = threading.Event()
        self.client = meshed(
            room,
            "ada",
            Rule("Ask bob", mesh("send", to="bob", text=QUESTION)),
            Rule(ANSWER, "Main, says bob."),
            Rule(ACCEPTED, "Asked.", until=self.asked),
            ENABLE_TOOL_SEARCH="false",
        )


async def answer(bob: LiveSession, **more: Any) -> dict[str, Any]:
    """Answer the question as bob; gives what was sent, once it is in the inbox."""
    (question,) = await bob.read(1)
    assert question["text"] == QUESTION
    told: dict[str, Any] = {"to": "ada", "text": ANSWER, "reply_to": question["id"], **more}
    sent = await bob.call("send", **told)
    await bob.reached("delivered", sent)
    return sent


async def printed(
    room: Room, plugin: Path, parts: Mapping[str, Any] = WHOLE, **more: Any
) -> tuple[Claude, LiveSession, dict[str, Any]]:
    """Run ``claude -p`` that asks bob, who answers while the model still works."""
    bob = await room.live.join("bob")
    asking = Asking(room)
    async with asking.client.asking("Ask bob for the branch.", *a_plugin(plugin, **parts)):
        # The first tool boundary makes up for the prompt, which came before the server.
        await asking.client.model.turned(2)
        sent = await answer(bob, **more)
        asking.asked.set()
    return asking.client, bob, sent


async def test_a_run_goes_on_with_the_answer_to_what_it_asked(room: Room, tmp_path: Path) -> None:
    ada, bob, sent = await printed(room, tmp_path / "plugin")
    arrival = ada.model.arrival(ANSWER)
    # The client puts what a Stop hook says there twice.
    assert set(arrival.places) == {Place.USER, Place.SYSTEM}
    assert arrival.asked is ada.model.turns[-1]
    seen = await bob.reached("seen", sent)
    assert (seen["proved"], seen["route"]) == (True, "stop")


async def test_a_run_does_not_go_on_with_what_it_did_not_ask_for(
    room: Room, tmp_path: Path
) -> None:
    ada, bob, sent = await printed(room, tmp_path / "plugin", reply_to=None)
    assert ada.model.arrivals(ANSWER) == []
    assert await bob.how_far(sent) == "delivered"


@pytest.mark.parametrize("how", SPOILT)
async def test_without_its_stop_hook_a_run_ends_and_has_seen_nothing(
    room: Room, tmp_path: Path, how: str
) -> None:
    ada, bob, sent = await printed(room, tmp_path / "plugin", spoilt(how, "Stop"))
    assert ada.model.arrivals(ANSWER) == []
    assert await bob.how_far(sent) == "delivered"


class Looking:
    """A client whose model is to look around, and does once the test lets it."""

    def __init__(self, room: Room, *rules: Rule, looks: Answer = LOOK) -> None:
        self.room = room
        self.looked = threading.Event()
        self.client = meshed(
            room,
            "ada",
            Rule("Look around", looks, until=self.looked),
            *rules,
            ENABLE_TOOL_SEARCH="false",
        )

    async def meanwhile(self, terminal: Terminal, bob: LiveSession) -> dict[str, Any]:
        """Have it look around when an urgent message is in its inbox; gives what was sent."""
        await self.room.present("ada")
        await terminal.type("Look around.")
        await self.client.model.turned(1)
        sent = await bob.call("send", to="ada", text=ANSWER, priority="now")
        await bob.reached("delivered", sent)
        self.looked.set()
        return sent


async def test_what_is_for_now_comes_with_the_next_tool_boundary(
    room: Room, tmp_path: Path
) -> None:
    bob = await room.live.join("bob")
    # The client may write a reply down behind its hook: then one of the next boundaries proves.
    going_on = Rule(f'{ANSWER}|"peers"', LOOK)
    looking = Looking(room, going_on, Rule('"peers"', "Looked."))
    model = looking.client.model
    async with at_terminal(looking.client, *a_plugin(tmp_path / "plugin")) as terminal:
        sent = await looking.meanwhile(terminal, bob)
        arrival = await model.arrived(ANSWER)
        assert (arrival.asked.number, arrival.place) == (1, Place.SYSTEM)
        # By the call of a later reply: the turn can't end yet.
        assert (await bob.reached("seen", sent))["route"] == "tool-boundary"
        model.rules.remove(going_on)
        await terminal.shows("Looked.")
        await terminal.leave()


@pytest.mark.parametrize("how", SPOILT)
async def test_without_the_hook_of_a_tool_boundary_nothing_comes_with_it_nor_is_seen(
    room: Room, tmp_path: Path, how: str
) -> None:
    bob = await room.live.join("bob")
    looking = Looking(room, Rule('"peers"', "Looked."))
    words = a_plugin(tmp_path / "plugin", **spoilt(how, "PostToolUse", "Stop"))
    async with at_terminal(looking.client, *words) as terminal:
        sent = await looking.meanwhile(terminal, bob)
        await terminal.shows("Looked.")
        await terminal.leave()
    assert looking.client.model.arrivals(ANSWER) == []
    assert len(looking.client.model.turns) == 2
    assert await bob.how_far(sent) == "delivered"


async def test_a_second_call_of_the_same_reply_proves_nothing(room: Room, tmp_path: Path) -> None:
    bob = await room.live.join("bob")
    ended = threading.Event()
    both = (LOOK, mesh("mesh_info"))
    looking = Looking(room, Rule(ANSWER, "Main, says bob.", until=ended), looks=both)
    async with at_terminal(looking.client, *a_plugin(tmp_path / "plugin")) as terminal:
        sent = await looking.meanwhile(terminal, bob)
        arrival = await looking.client.model.arrived(ANSWER)
        assert arrival.place is Place.SYSTEM
        assert len([one for one in arrival.asked.fresh if one.place is Place.RESULT]) == 2
        assert await bob.how_far(sent) == "delivered"
        ended.set()
        assert (await bob.reached("seen", sent))["route"] == "tool-boundary"
        await terminal.leave()


async def turn_with_bob(room: Room, terminal: Terminal, asking: Asking) -> dict[str, Any]:
    """Type the prompt that asks bob, who answers before the turn ends."""
    await room.present("ada")
    await terminal.type("Ask bob for the branch.")
    sent = await answer(room.live.sessions[0])
    asking.asked.set()
    await asking.client.model.wait(lambda: len(asking.client.model.turns) >= 2, "an end")
    return sent


async def test_a_turn_at_a_terminal_goes_on_with_what_is_next(room: Room, tmp_path: Path) -> None:
    bob = await room.live.join("bob")
    asking = Asking(room)
    async with at_terminal(asking.client, *a_plugin(tmp_path / "plugin")) as terminal:
        sent = await turn_with_bob(room, terminal, asking)
        await terminal.shows("Main, says bob.")
        assert (await bob.reached("seen", sent))["route"] == "stop"
        await terminal.leave()
    arrival = asking.client.model.arrival(ANSWER)
    assert set(arrival.places) == {Place.USER, Place.SYSTEM}
    assert len(asking.client.model.turns) == 3


@pytest.mark.parametrize("how", SPOILT)
async def test_a_turn_at_a_terminal_without_its_stop_hook_ends_and_has_seen_nothing(
    room: Room, tmp_path: Path, how: str
) -> None:
    bob = await room.live.join("bob")
    asking = Asking(room)
    words = a_plugin(tmp_path / "plugin", **spoilt(how, "Stop"))
    async with at_terminal(asking.client, *words) as terminal:
        sent = await turn_with_bob(room, terminal, asking)
        await terminal.shows("Asked.")
        await terminal.leave()
    assert asking.client.model.arrivals(ANSWER) == []
    assert len(asking.client.model.turns) == 2
    assert await bob.how_far(sent) == "delivered"


@pytest.mark.parametrize("how", [*SPOILT, "deaf"])
async def test_a_session_is_told_that_nothing_was_seen_by_one_whose_hooks_or_bell_bring_nothing(
    room: Room, tmp_path: Path, how: str
) -> None:
    ada = meshed(
        room,
        "ada",
        Rule("Ask bob", mesh("send", to="bob", text=QUESTION)),
        Rule("Did he see it", lambda _: mesh("message_status", id=asked_id(ada))),
        Rule('"status":"delivered"', "He has not seen it."),
        # Bob's receipt may still be on its way.
        Rule('"accepted_at"', lambda _: mesh("message_status", id=asked_id(ada))),
        Rule(ACCEPTED, "Asked."),
        ENABLE_TOOL_SEARCH="false",
    )
    bob = meshed(room, "bob")
    words = a_plugin(tmp_path / "ada")
    is_woken = how != "deaf"
    deaf: dict[str, Any] = {"wakers": [how]}
    parts = spoilt(how, "UserPromptSubmit", "Stop") if is_woken else deaf
    bad = a_plugin(tmp_path / "bob", **parts)
    async with at_terminal(ada, *words) as at_ada, at_terminal(bob, *bad) as at_bob:
        await room.present("ada", "bob")
        await until_met(room, at_bob.pid)
        await at_ada.type("Ask bob for the branch.")
        # The bell wakes bob, if it is heard; what it is for is not before his model.
        await until_told(file_of(room, at_bob.pid), "SELECT 1 FROM bells")
        if is_woken:
            await bob.model.arrived("1 message from ada.")
            await at_bob.shows("Good.")
        await at_ada.type("Did he see it?")
        await at_ada.shows("He has not seen it.")
        await at_ada.leave()
        await at_bob.leave()
    assert bob.model.arrivals(QUESTION) == []
    assert bool(bob.model.turns) == is_woken
    (told,) = [one for one in ada.model.turns[-1].fresh if one.place is Place.RESULT]
    assert '"seen"' not in told.text


async def test_two_sessions_converse_by_hooks_alone_and_each_is_told_what_was_seen(
    room: Room, tmp_path: Path
) -> None:
    ada = meshed(
        room,
        "ada",
        Rule("Ask bob", mesh("send", to="bob", text=QUESTION)),
        Rule(
            f'id="(msg_[^"]+)" from="bob".*{ANSWER}',
            lambda _: mesh("message_status", id=asked_id(ada)),
        ),
        Rule('"status":"seen"', "Bob read it and says main."),
        Rule('"status":"(queued|delivered)"', lambda _: mesh("message_status", id=asked_id(ada))),
        Rule(ACCEPTED, "Asked."),
        ENABLE_TOOL_SEARCH="false",
    )
    bob = meshed(
        room,
        "bob",
        Rule(
            f'id="(msg_[^"]+)" from="ada".*{QUESTION[:-1]}',
            lambda found: mesh("send", to="ada", text=ANSWER, reply_to=found[1]),
        ),
        Rule(ACCEPTED, "Answered."),
        ENABLE_TOOL_SEARCH="false",
    )
    words = [a_plugin(tmp_path / name) for name in ("ada", "bob")]
    async with at_terminal(ada, *words[0]) as at_ada, at_terminal(bob, *words[1]) as at_bob:
        await room.present("ada", "bob")
        await at_ada.type("Ask bob for the branch.")
        await at_bob.shows("Answered.")
        await at_ada.shows("Bob read it and says main.")
        await at_ada.leave()
        await at_bob.leave()
    assert bob.model.arrival(QUESTION).place is Place.SYSTEM
    arrival = ada.model.arrival(ANSWER)
    assert set(arrival.places) in ({Place.SYSTEM}, {Place.USER, Place.SYSTEM})
    last = ada.model.turns[-1].fresh[0].text
    assert '"proved":true' in last
    assert '"route":"monitor"' in last


def asked_id(ada: Claude) -> str:
    """Give the id of the message that ada sent, from the result that her model read."""
    for asked in ada.model.turns:
        for block in asked.blocks:
            if block.place is Place.RESULT and '"id":"msg_' in block.text:
                return block.text.partition('"id":"')[2].partition('"')[0]
    raise AssertionError("no message was sent")
