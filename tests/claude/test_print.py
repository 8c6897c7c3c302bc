"""One prompt to a real Claude Code, run to its end: what its model sees and does of the mesh.

``claude -p`` is the client here; the other end is a session that an independent client drives.
What has arrived at the model is read from the requests that its client sent.
"""

import json
import threading
import uuid
from typing import Any

from tests.support.claude.asked import Asked, Place
from tests.support.claude.client import Claude
from tests.support.claude.expected import CORE, LAST, SENDING, UNTRUSTED, tools
from tests.support.claude.room import Room
from tests.support.claude.script import Call, Rule, mesh
from tests.support.live import LiveSession

TOOLS = tools("claudemesh")


async def ask_ada(room: Room, bob: LiveSession) -> dict[str, Any]:
    """Send a question, once ada is there."""
    await room.present("ada")
    return await bob.call("send", to="ada", text="Do you know a quokka?")


def assert_shown_again(ada: Claude) -> None:
    """The last result has the question, marked as one that may have been shown before."""
    (result,) = [one for one in ada.model.turns[-1].fresh if one.place is Place.RESULT]
    (message,) = json.loads(result.text)["messages"]
    assert (message["text"], message["redelivered"]) == ("Do you know a quokka?", True)


def ours(asked: Asked) -> set[str]:
    """Give those tools that are listed to the model and are claudemesh's."""
    return {name for name in asked.tools if name.startswith("mcp__claudemesh__")}


async def test_the_core_tools_are_loaded_and_the_others_named_to_the_model(room: Room) -> None:
    ada = room.claude("ada")
    told = await ada.ask("What can you do?")
    assert (told.code, told.servers) == (0, {"claudemesh": "connected"})
    (asked,) = ada.model.turns
    core = tools("claudemesh", CORE)
    assert ours(asked) == core
    assert "to" in asked.tools["mcp__claudemesh__send"]["input_schema"]["required"]
    deferred = {name for name in TOOLS - core if asked.places_of(f"\n{name}\n") == [Place.SYSTEM]}
    assert deferred == TOOLS - core
    assert asked.places_of(UNTRUSTED) == asked.places_of(LAST) == [Place.SYSTEM]


async def test_without_tool_search_all_tools_are_loaded(room: Room) -> None:
    ada = room.claude("ada", ENABLE_TOOL_SEARCH="false")
    await ada.ask("What can you do?")
    (asked,) = ada.model.turns
    assert ours(asked) == TOOLS
    assert asked.tools["mcp__claudemesh__send"]["description"].startswith(SENDING)
    assert all(asked.tools[name]["description"] for name in TOOLS)


async def test_a_deferred_tool_is_found_by_the_search_and_called(room: Room) -> None:
    ada = room.claude(
        "ada",
        Rule("Where am I", Call("ToolSearch", {"query": "select:mcp__claudemesh__mesh_info"})),
        Rule('"members":1', "You are alone."),
        Rule("mesh_info", mesh("mesh_info"), times=1),
    )
    told = await ada.ask("Where am I?")
    assert told.result == "You are alone."


async def test_what_the_model_sends_reaches_another_session_once(room: Room) -> None:
    bob = await room.live.join("bob")
    ada = room.claude(
        "ada",
        Rule("Tell bob", mesh("send", to="bob", text="The build is red.")),
        Rule('"status": ?"accepted"', "Bob has it."),
    )
    told = await ada.ask("Tell bob how the build is.")
    assert told.result == "Bob has it."
    (got,) = await bob.read(1)
    assert (got["handle"], got["text"]) == ("ada", "The build is red.")
    assert (await bob.call("inbox"))["messages"] == []
    assert len(ada.model.turns) == 2


async def test_a_send_to_nobody_tells_the_model_what_to_do(room: Room) -> None:
    await room.live.join("bobby")
    ada = room.claude("ada", Rule("Tell bob", mesh("send", to="bob", text="Hello.")))
    await ada.ask("Tell bob hello.")
    (result,) = [one for one in ada.model.turns[1].fresh if one.place is Place.RESULT]
    assert "bobby" in result.text
    assert '"hint"' in result.text


async def test_what_the_model_reads_is_seen_only_by_a_request_that_comes_later(room: Room) -> None:
    bob = await room.live.join("bob")
    read = threading.Event()
    ada = room.claude(
        "ada",
        Rule("Listen", mesh("inbox", wait_s=60)),
        Rule("quokka", mesh("search_peers"), until=read),
    )
    async with ada.asking("Listen to the mesh."):
        sent = await ask_ada(room, bob)
        arrival = await ada.model.arrived("Do you know a quokka?")
        # The model has the text. Its session can't know that yet, and so does not say it.
        assert arrival.place is Place.RESULT
        await bob.reached("delivered", sent)
        assert await bob.how_far(sent) == "delivered"
        read.set()
        seen = await bob.reached("seen", sent)
        assert (seen["proved"], seen["route"]) == (True, "tool")
    assert len(ada.model.arrivals("Do you know a quokka?")) == 1


async def test_a_run_that_ends_with_what_it_read_has_it_offered_again_marked(room: Room) -> None:
    bob = await room.live.join("bob")
    ada = room.claude("ada", Rule("Listen", mesh("inbox", wait_s=60)))
    async with ada.asking("Listen to the mesh.") as run:
        sent = await ask_ada(room, bob)
    assert ada.model.arrival("quokka").place is Place.RESULT
    assert await bob.how_far(sent) == "delivered"

    again = await ada.ask("Listen to the mesh.", "--resume", run.told.session)
    assert again.session == run.told.session
    assert_shown_again(ada)
    assert await bob.how_far(sent) == "delivered"


async def test_a_client_killed_as_its_model_reads_saw_nothing(room: Room) -> None:
    bob = await room.live.join("bob")
    never = threading.Event()
    ada = room.claude(
        "ada",
        Rule("Listen", mesh("inbox", wait_s=60)),
        Rule("quokka", "A small kangaroo.", until=never, times=1),
    )
    session = str(uuid.uuid4())
    async with ada.asking("Listen to the mesh.", "--session-id", session) as run:
        sent = await ask_ada(room, bob)
        await ada.model.arrived("quokka")
        run.process.kill()
    await bob.reached("delivered", sent)
    assert await bob.how_far(sent) == "delivered"

    told = await ada.ask("Listen to the mesh.", "--resume", session)
    assert told.session == session
    assert_shown_again(ada)
