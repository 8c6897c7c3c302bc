"""The plugin as the client's users get it: added as a marketplace, installed, and started.

What reaches the model is read from the requests of the client. The plugin is that of the checkout,
or a copy whose libraries come from a registry of the test's own.
"""

import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from claudemesh_mcp.plugin.entries import file_of_the_plugin
from claudemesh_wire import VERSION
from tests.support.checkout import BROKER, ROOT
from tests.support.claude.asked import Place
from tests.support.claude.beside import SILENT, SPOILT, dying, file_of, until_told
from tests.support.claude.client import CLIENT, LIMIT_S, Claude, Told
from tests.support.claude.expected import tools
from tests.support.claude.room import Room
from tests.support.claude.script import Call, Rule
from tests.support.claude.terminal import at_terminal
from tests.support.live import LiveSession
from tests.support.plugin import Registry, a_registry, base_python, copy_plugin

NAME = "plugin_claudemesh_mesh"
TOOLS = tools(NAME)


@pytest.fixture
def registry() -> Iterator[Registry]:
    with a_registry() as registry:
        yield registry


def tool(name: str, **arguments: object) -> Call:
    return Call(f"mcp__{NAME}__{name}", arguments)


def claude(client: Claude, *words: str) -> str:
    """Run a command of the client; gives what it printed."""
    done = subprocess.run(
        [str(CLIENT), *words],
        env=client.environment,
        cwd=client.project,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def install(client: Claude, folder: Path) -> Claude:
    """Install the plugin as the README says."""
    client.plugin = NAME
    claude(client, "plugin", "marketplace", "add", str(folder))
    claude(client, "plugin", "install", "claudemesh@claudemesh")
    return client


def a_user(room: Room, name: str, *rules: Rule, **settings: str) -> Claude:
    """Make a client whose plugin finds the home of the room."""
    mesh = {key: value for key, value in room.live.environment().items() if key != "PATH"}
    return room.claude(name, *rules, **{**mesh, "CLAUDEMESH_NAME": name, **settings})


def with_this_code(
    room: Room, name: str, *rules: Rule, plugin: Path = ROOT, **settings: str
) -> Claude:
    """Make a client that has the plugin, and finds the program of this checkout on its PATH."""
    path = f"{ROOT}:{BROKER.parent}"
    return install(a_user(room, name, *rules, PYTHONPATH=path, **settings), plugin)


def spoil(folder: Path, how: str, *events: str) -> Path:
    """Copy the plugin; hooks are taken out of the copy, or the first dies behind its offer."""
    file = copy_plugin(folder) / ".claude-plugin" / "hooks.json"
    content = json.loads(file.read_text("utf-8"))
    for event in events:
        (entry, *_) = content["hooks"].pop(event)[0]["hooks"]
        if how == "killed" and event == events[0]:
            words = dying([entry["command"], *entry["args"]])
            run = {**entry, "command": words[0], "args": words[1:]}
            content["hooks"][event] = [{"hooks": [run]}]
    file.write_text(json.dumps(content), "utf-8")
    return folder


def switch_hooks_off(client: Claude) -> None:
    """Switch all hooks off, as a user does that in the settings."""
    file = client.config / "settings.json"
    told = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps({**told, "disableAllHooks": True}), "utf-8")


class Looking:
    """A client with the plugin whose model looks around once the test lets it."""

    def __init__(self, room: Room, plugin: Path = ROOT) -> None:
        self.room = room
        self.sent = threading.Event()
        self.client = with_this_code(
            room,
            "ada",
            Rule("Two herons", "Two, says bob."),
            Rule("Who is there", tool("search_peers"), until=self.sent, times=1),
            plugin=plugin,
            ENABLE_TOOL_SEARCH="false",
        )

    async def run(self, bob: LiveSession) -> tuple[Told, dict[str, Any]]:
        """Run it; gives what it printed, and what bob sent before it looked around."""
        async with self.client.asking("Who is there?") as run:
            await self.room.present("ada")
            sent = await bob.call("send", to="ada", text="Two herons.", priority="now")
            await bob.reached("delivered", sent)
            self.sent.set()
        return run.told, sent


async def test_the_checkout_is_a_plugin_without_a_warning(room: Room) -> None:
    told = claude(room.claude("ada"), "plugin", "validate", "--strict", str(ROOT))
    assert "skills: claudemesh:claudemesh" in told
    assert "monitors: messages" in told
    assert told.count("hooks: ") == 7


def test_the_plugin_says_what_the_code_says() -> None:
    folder = ROOT / ".claude-plugin"
    assert (folder / "hooks.json").read_text("utf-8") == file_of_the_plugin()
    manifest = json.loads((folder / "plugin.json").read_text("utf-8"))
    assert (manifest["name"], manifest["version"]) == ("claudemesh", VERSION)
    (listed,) = json.loads((folder / "marketplace.json").read_text("utf-8"))["plugins"]
    assert listed["description"] == manifest["description"]


async def test_an_installed_plugin_lists_its_tools_and_shows_what_arrives(room: Room) -> None:
    bob = await room.live.join("bob")
    looking = Looking(room)
    told, sent = await looking.run(bob)
    model = looking.client.model
    # The first request may leave before the server has answered.
    assert list(told.servers) == ["plugin:claudemesh:mesh"]
    assert set(model.turns[-1].tools) >= TOOLS
    assert model.arrival("Two herons.").place is Place.SYSTEM
    assert told.result == "Two, says bob."
    assert (await bob.reached("seen", sent))["route"] == "tool-boundary"


@pytest.mark.parametrize("how", [*SPOILT, "switched off"])
async def test_an_installed_plugin_whose_hooks_bring_nothing_has_let_nothing_be_seen(
    room: Room, tmp_path: Path, how: str
) -> None:
    bob = await room.live.join("bob")
    spoilt = how in SPOILT
    events = ("PostToolUse", "UserPromptSubmit", "Stop") if spoilt else ()
    looking = Looking(room, spoil(tmp_path / "copy", how, *events))
    if not spoilt:
        switch_hooks_off(looking.client)
    told, sent = await looking.run(bob)
    model = looking.client.model
    assert list(told.servers) == ["plugin:claudemesh:mesh"]
    assert set(model.turns[-1].tools) >= TOOLS
    assert [one.place for one in model.turns[-1].fresh if '"peers"' in one.text] == [Place.RESULT]
    assert model.arrivals("Two herons.") == []
    assert await bob.how_far(sent) == "delivered"


async def test_the_monitor_of_an_installed_plugin_wakes_an_idle_session(room: Room) -> None:
    bob = await room.live.join("bob")
    ada = with_this_code(room, "ada", Rule("Two herons", "Two, says bob."))
    async with at_terminal(ada) as terminal:
        await room.present("ada")
        sent = await bob.call("send", to="ada", text="Two herons.")
        await ada.model.arrived("Two herons.")
        await terminal.shows("Two, says bob.")
        assert (await bob.reached("seen", sent))["route"] == "monitor"
        await terminal.leave()


async def test_an_installed_plugin_whose_monitor_is_silent_wakes_nobody_and_nothing_is_seen(
    room: Room, tmp_path: Path
) -> None:
    bob = await room.live.join("bob")
    # Without Stop and SessionStart no rewake hook is there either.
    copy = spoil(tmp_path / "copy", "removed", "SessionStart", "Stop")
    file = copy / ".claude-plugin" / "monitors.json"
    (monitor,) = json.loads(file.read_text("utf-8"))
    silent = f"( {monitor['command']}\n) >/dev/null"
    file.write_text(json.dumps([{**monitor, "command": silent}]), "utf-8")
    ada = with_this_code(room, "ada", Rule("Two herons", "Two, says bob."), plugin=copy)
    async with at_terminal(ada) as terminal:
        await room.present("ada")
        sent = await bob.call("send", to="ada", text="Two herons.")
        await until_told(file_of(room, terminal.pid), f"{SILENT} AND route = 'monitor'")
        assert (ada.model.turns, await bob.how_far(sent)) == ([], "delivered")
        asked = await terminal.prompt("Is there news?")
        assert ada.model.arrival("Two herons.").asked is asked
        await terminal.leave()
    # There is no hook that would tell the end of that turn.
    assert await bob.how_far(sent) == "delivered"


@pytest.mark.timeout(240)  # pip runs twice; on a busy machine that takes as long as all else.
async def test_a_first_start_without_a_registry_harms_no_session_and_goes_on_with_one(
    room: Room, tmp_path: Path, registry: Registry
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    ada = a_user(
        room,
        "ada",
        Rule("How far is it", tool("setup_status", wait_s=60), times=1),
        Rule("registry_unreachable", "It can't be reached."),
        Rule("Try again", tool("setup_status", wait_s=60, retry=True), times=1),
        Rule('"state": ?"ready"', "It is ready."),
        Rule("Who is there", tool("search_peers"), times=1),
        Rule('"handle": ?"watcher"', "A watcher is there."),
        PATH=f"{tools}:/usr/bin:/bin",
        PIP_INDEX_URL=registry.url,
        ENABLE_TOOL_SEARCH="false",
    )
    (tools / "python3").symlink_to(base_python())
    data = ada.config / "plugins" / "data" / "claudemesh-claudemesh"
    data.mkdir(parents=True)
    (data / "python").write_text(f"{tools / 'python3'}\n", "utf-8")
    install(ada, copy_plugin(tmp_path / "copy"))
    async with at_terminal(ada) as terminal:
        await terminal.type("How far is it?")
        await terminal.shows("It can't be reached.")
        assert not TOOLS & set(ada.model.turns[-1].tools)
        with registry.open():
            await terminal.type("Try again.")
            await terminal.shows("It is ready.")
        await room.present("ada")
        await terminal.type("Who is there?")
        await terminal.shows("A watcher is there.")
        await terminal.leave()
    assert set(ada.model.turns[-1].tools) >= TOOLS
