"""Tools of one real Claude Code session that the model of another one calls.

A model registers a server that is a program of its machine, and other sessions' models call it.
What they have of it is read from the requests that their clients sent.
"""

import os
import re
import shlex
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from claudemesh_mcp.offer import INSTRUCTIONS
from tests.support.backends.found import everything, handmade
from tests.support.checkout import BROKER, ROOT
from tests.support.claude.asked import Asked, Block, Place
from tests.support.claude.beside import file_of, until_met, until_told
from tests.support.claude.client import LIMIT_S, Claude
from tests.support.claude.room import Room
from tests.support.claude.script import Call, Rule, mesh
from tests.support.claude.terminal import Terminal, at_terminal
from tests.support.hosting import ok
from tests.support.live import a_moment
from tests.support.shell import Shell
from tests.support.twohomes import joined

PLUGIN = "plugin_claudemesh_mesh"
IMPORTED = "mcp__claudemesh__hand__seen"
CURSOR_ON_ACCEPT = "\N{HEAVY RIGHT-POINTING ANGLE QUOTATION MARK ORNAMENT} Accept"
TOLD = "SELECT 1 FROM facts WHERE key = 'route.started'"
"""Finds in a peer's file that it has started a server which comes back, told or not yet."""


def register(name: str, launch: Any, **more: Any) -> dict[str, Any]:
    """Give what ``register_mcp`` is called with."""
    return {"name": name, "command": launch.command, "args": [*launch.args], **more}


def use(tool: str, **arguments: Any) -> Call:
    """Call a tool of the server by hand."""
    return mesh("call_tool", server="hand", tool=tool, arguments=arguments)


def result(asked: Asked) -> Block:
    """Give the one result that is new in a request."""
    (block,) = [block for block in asked.fresh if block.place is Place.RESULT]
    return block


def pictures(asked: Asked) -> list[str]:
    """Give the kinds of the pictures that stand in results of a request."""
    parts = [part for message in asked.body["messages"] for part in message["content"]]
    results = [part for part in parts if isinstance(part, dict) and part["type"] == "tool_result"]
    held = [part["content"] for part in results if not isinstance(part["content"], str)]
    return [one["source"]["media_type"] for content in held for one in content if "source" in one]


def has_said(file: Path, text: str) -> bool:
    """Tell whether a server has written a text."""
    return file.exists() and text in file.read_text("utf-8")


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds that gives no sign."""
    with anyio.fail_after(LIMIT_S):
        while not holds():
            await a_moment()


async def test_what_one_session_shares_another_calls_imports_and_learns_the_end_of(
    room: Room, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    ada = room.claude(
        "ada",
        Rule(
            "Share both",
            (
                mesh("register_mcp", **register("hand", handmade("handshake", said))),
                mesh("register_mcp", **register("other", everything())),
            ),
        ),
        Rule('"ada/hand".*"ada/other"', "Both are shared."),
    )
    bob = room.claude(
        "bob",
        Rule("What is there", mesh("mesh_tools", query="tiny")),
        Rule('"get-tiny-image"', mesh("call_tool", server="other", tool="get-tiny-image")),
        Rule("the image you requested", use("seen", heron=1)),
        Rule('"heron"', "It saw the heron."),
        Rule("Import it", mesh("import_tools", server="hand", tools=["seen"])),
        Rule('"hand__seen"', Call(IMPORTED, {"swan": 2})),
        Rule('"swan"', "It saw the swan."),
        Rule("Wait for it", use("waiting")),
        Rule("outcome_unknown", use("seen")),
        Rule("peer_offline", "It has gone."),
        ENABLE_TOOL_SEARCH="false",
    )
    async with at_terminal(ada) as at_ada, at_terminal(bob) as at_bob:
        await room.present("ada", "bob")
        await at_ada.prompt("Share both.")
        await at_ada.shows("Both are shared.")
        await at_bob.prompt("What is there?")
        await at_bob.shows("It saw the heron.")
        first, found, picture, called = bob.model.turns
        assert '"own":true' in result(found).text
        assert pictures(picture) == ["image/png"]
        # Who calls reaches the server, as the mesh has proved it.
        assert '"arguments":{"heron":1}' in result(called).text
        assert '"handle":"bob"' in result(called).text
        assert first.places_of(INSTRUCTIONS) == [Place.SYSTEM]

        await at_bob.prompt("Import it.")
        await at_bob.shows("It saw the swan.")
        assert '"arguments":{"swan":2}' in result(bob.model.turns[-1]).text
        assert IMPORTED not in called.tools
        assert IMPORTED in bob.model.turns[-1].tools

        await at_bob.prompt("Wait for it.")
        await until(lambda: has_said(said, "waits"))
        assert len(ada.model.turns) == 2
        # Its server is in the client's process group.
        os.killpg(at_ada.pid, signal.SIGKILL)
        await at_bob.shows("It has gone.")
        unknown, offline = (result(asked).text for asked in bob.model.turns[-2:])
        assert "Whether ada/hand ran the call is not known" in unknown
        assert "nothing was run" in offline
        assert len(ada.model.turns) == 2
        await at_bob.leave()


async def accept(terminal: Terminal, tool: str) -> None:
    """Wait until the human is asked for a tool, and let them allow it."""
    await terminal.shows(f"wants to call the tool {tool} of max (anna/hand)")
    # An Enter that was meant for a prompt allows nothing.
    await terminal.press_until("Down", lambda screen: CURSOR_ON_ACCEPT in screen)
    await terminal.press_until("Enter", lambda screen: "This field is required" in screen)
    await terminal.press_until("Space", lambda screen: "☒" in screen)
    await terminal.press_until("Enter", lambda screen: CURSOR_ON_ACCEPT in screen)
    await terminal.press_until("Enter", lambda screen: "requests your input" not in screen)


async def test_a_human_allows_another_members_tool_on_the_screen_or_by_a_command(
    room: Room, ada: Shell, bob: Shell
) -> None:
    await anyio.to_thread.run_sync(joined, ada, bob)
    ok(await ada.runs("grant", "bob", "tool"))
    approved = threading.Event()
    desk = room.claude_of(
        bob,
        "desk",
        Rule("Look at it", use("seen", heron=1)),
        Rule('"heron"', "It saw the heron."),
    )
    printing = room.claude_of(
        bob,
        "printing",
        Rule("Look at it", use("steps")),
        Rule("needs_approval", use("steps"), until=approved, times=1),
        Rule("done", "It is done."),
    )
    async with ada.session("anna") as anna:
        await anna.call(
            "register_mcp", **register("hand", handmade("handshake"), visible_to="mesh")
        )
        async with at_terminal(desk) as terminal:
            await terminal.prompt("Look at it.")
            await accept(terminal, "seen")
            await terminal.shows("It saw the heron.")
            assert '"heron":1' in result(desk.model.turns[-1]).text
            await terminal.leave()
        async with printing.asking("Look at it.") as run:
            refused = result(await printing.model.turned(2)).text
            command = re.search(
                r"claudemesh (--mesh \S+ mcp-server approve anna/hand steps)", refused
            )
            assert command, refused
            ok(await bob.runs(*shlex.split(command[1])))
            approved.set()
        assert run.told.result == "It is done."
        assert result(printing.model.turns[-1]).text.startswith("done")


async def until_offered(room: Room, server: str) -> None:
    """Wait until another session is shown a server whose host is there."""
    watcher = room.live.sessions[0]
    with anyio.fail_after(LIMIT_S):
        while True:
            (found,) = (await watcher.call("mesh_tools", server=server))["servers"]
            if any(one["online"] for one in found["providers"]):
                return
            await a_moment()


def with_the_plugin(room: Room, name: str, *rules: Rule) -> Claude:
    """Make a client that has the plugin and finds the program of this checkout on its PATH."""
    home = {key: value for key, value in room.live.environment().items() if key != "PATH"}
    code = {"PYTHONPATH": f"{ROOT}:{BROKER.parent}", "ENABLE_TOOL_SEARCH": "false"}
    client = room.claude(name, *rules, **{**home, **code, "CLAUDEMESH_NAME": name})
    client.plugin = PLUGIN
    return client


async def test_a_server_that_comes_back_is_called_again_and_told_to_who_runs_it(
    room: Room,
) -> None:
    hand = handmade("handshake")
    is_there, may_end, is_back = threading.Event(), threading.Event(), threading.Event()
    wish = register("hand", hand, persistent=True)
    ada = with_the_plugin(
        room,
        "ada",
        Rule("Share it", Call(f"mcp__{PLUGIN}__register_mcp", wish), until=is_there, times=1),
        Rule('"name": ?"ada/hand"', "It is shared.", until=may_end),
    )
    bob = room.claude(
        "bob",
        Rule("Look at it", use("seen", heron=1)),
        Rule('"heron":1', use("seen", heron=2), until=is_back),
        Rule('"heron":2', "It saw both."),
    )
    words = ("--plugin-dir", str(ROOT))
    async with ada.asking("Share it.", *words) as sharing:
        await room.present("ada")
        is_there.set()
        await ada.model.turned(2)
        async with bob.asking("Look at it.") as looking:
            await bob.model.turned(2)
            may_end.set()
            with anyio.fail_after(LIMIT_S):
                await sharing.process.wait()
            async with at_terminal(ada, *words) as terminal:
                await until_met(room, terminal.pid)
                await until_told(file_of(room, terminal.pid), TOLD)
                await until_offered(room, "hand")
                is_back.set()
                await bob.model.arrived('"heron":2')
                asked = await terminal.prompt("Good morning.")
                assert asked.places_of(f"- hand: {hand.command_line}") == [Place.SYSTEM]
                assert asked.places_of(INSTRUCTIONS) == [Place.SYSTEM]
                assert Place.SYSTEM in asked.places_of("- claudemesh:claudemesh: ")
                await terminal.leave()
    assert sharing.told.result == "It is shared."
    assert looking.told.result == "It saw both."
