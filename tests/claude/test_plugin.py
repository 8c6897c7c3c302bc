"""The plugin as the client's users get it: added as a marketplace, installed, and started.

What reaches the model is read from the requests of the client. The plugin is that of the checkout,
or a copy whose libraries come from a registry of the test's own.
"""

import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from claudemesh_mcp.plugin.entries import file_of_the_plugin
from claudemesh_wire import VERSION
from tests.support.checkout import BROKER, ROOT
from tests.support.claude.asked import Place
from tests.support.claude.client import CLIENT, LIMIT_S, Claude
from tests.support.claude.room import Room
from tests.support.claude.script import Call, Rule
from tests.support.claude.terminal import at_terminal
from tests.support.documents import definitions
from tests.support.plugin import Registry, a_registry, base_python, copy_plugin

NAME = "plugin_claudemesh_mesh"
TOOLS = {f"mcp__{NAME}__{tool['name']}" for tool in definitions()}


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


def with_this_code(room: Room, name: str, *rules: Rule, **settings: str) -> Claude:
    """Make a client that finds the program of this checkout on its PATH."""
    path = f"{ROOT}:{BROKER.parent}"
    return install(a_user(room, name, *rules, PYTHONPATH=path, **settings), ROOT)


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
    sent = threading.Event()
    ada = with_this_code(
        room,
        "ada",
        Rule("Two herons", "Two, says bob."),
        Rule("Who is there", tool("search_peers"), until=sent, times=1),
        ENABLE_TOOL_SEARCH="false",
    )
    async with ada.asking("Who is there?") as run:
        await room.present("ada")
        told = await bob.call("send", to="ada", text="Two herons.", priority="now")
        sent.set()
    # The first request may leave before the server has answered.
    assert list(run.told.servers) == ["plugin:claudemesh:mesh"]
    assert set(ada.model.turns[-1].tools) >= TOOLS
    assert ada.model.arrival("Two herons.").place is Place.SYSTEM
    assert run.told.result == "Two, says bob."
    assert (await bob.reached("seen", told))["route"] == "tool-boundary"


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
