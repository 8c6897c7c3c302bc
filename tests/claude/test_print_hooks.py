"""The hooks of one prompt to a real Claude Code, whose server is there later than the first."""

import threading
from pathlib import Path

from tests.support.claude.asked import Place
from tests.support.claude.beside import a_plugin, meshed
from tests.support.claude.room import Room
from tests.support.claude.script import Rule, mesh


async def test_what_waited_for_a_run_is_shown_at_its_first_tool_boundary(
    room: Room, tmp_path: Path
) -> None:
    bob = await room.live.join("bob")
    has_arrived = threading.Event()
    ada = meshed(
        room,
        "ada",
        Rule("Two herons", "Two, says bob."),
        Rule("Good morning", mesh("search_peers"), times=1),
        Rule("Is there news", mesh("search_peers"), until=has_arrived, times=1),
    )
    words = a_plugin(tmp_path / "plugin", wakers=[])
    first = await ada.ask("Good morning.", *words)
    # The server of that run would take it, and the next one begin before it has one.
    await bob.sees_gone("ada")
    sent = await bob.call("send", to="ada", text="Two herons.")
    async with ada.asking("Is there news?", *words, "--resume", first.session) as run:
        await bob.reached("delivered", sent)
        has_arrived.set()
    arrival = ada.model.arrival("Two herons.")
    assert arrival.place is Place.SYSTEM
    assert (await bob.reached("seen", sent))["route"] == "tool-boundary"
    assert run.told.result == "Two, says bob."


async def test_a_run_goes_on_for_an_answer_to_it_and_for_no_stranger(
    room: Room, tmp_path: Path
) -> None:
    bob, cleo = await room.live.join_all("bob", "cleo")
    is_answered = threading.Event()
    ada = meshed(
        room,
        "ada",
        Rule("Ask bob", mesh("send", to="bob", text="How many herons?")),
        Rule("Two herons", "Two, says bob."),
        Rule('"accepted"', "I have asked him.", until=is_answered, times=1),
    )
    async with ada.asking("Ask bob.", *a_plugin(tmp_path / "plugin", wakers=[])) as run:
        (question,) = await bob.read(1)
        # The first tool boundary, which shows all that waits, is over.
        await ada.model.turned(2)
        stranger = await cleo.call("send", to="ada", text="Three swans.", reply_to=question["id"])
        answer = await bob.call("send", to="ada", text="Two herons.", reply_to=question["id"])
        await cleo.reached("delivered", stranger)
        await bob.reached("delivered", answer)
        is_answered.set()
    assert run.told.result == "Two, says bob."
    assert (await bob.reached("seen", answer))["route"] == "stop"
    assert ada.model.arrivals("Three swans.") == []
    await cleo.reached("delivered", stranger)
