"""A session that `claudemesh launch` starts, with the real client and nothing installed."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import anyio
import pytest
from anyio.abc import Process

from tests.support.checkout import BROKER, ROOT
from tests.support.claude.asked import Place
from tests.support.claude.client import CLIENT, LIMIT_S, Claude
from tests.support.claude.room import Room
from tests.support.claude.script import Rule, mesh
from tests.support.live import LiveSession, a_moment


async def launched(room: Room, client: Claude, *words: str) -> Process:
    """Launch a client's session from its project."""
    tools = client.folder / "bin"
    tools.mkdir()
    (tools / "claude").symlink_to(CLIENT)
    environment = {
        **room.live.environment(),
        **client.environment,
        "PATH": f"{tools}{os.pathsep}/usr/bin:/bin",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{BROKER.parent}",
    }
    launch = [sys.executable, "-m", "claudemesh_mcp", "launch", "--name", "ada", "--groups", "ops"]
    return await anyio.open_process(
        [*launch, "--", *words, "--allowedTools", "mcp__claudemesh"],
        env=environment,
        cwd=client.project,
        stdin=subprocess.DEVNULL,
    )


async def tell_the_group(room: Room, bob: LiveSession) -> dict[str, object]:
    """Send to the group, once somebody is in it."""
    await room.present("ada")
    with anyio.fail_after(LIMIT_S):
        while not (await bob.call("search_peers", query="ada"))["peers"][0]["groups"]:
            await a_moment()
    return await bob.call("send", to="@ops", text="Two herons.", priority="now")


OWN = '{"env": {"ANTHROPIC_CUSTOM_HEADERS": "x-own: yes"}}'


@pytest.mark.parametrize("own", ["none", "text", "file"])
async def test_a_launched_run_is_in_its_group_and_shown_what_goes_to_it(
    room: Room, tmp_path: Path, own: str
) -> None:
    file = tmp_path / "own.json"
    file.write_text(OWN, "utf-8")
    settings = {"none": [], "text": ["--settings", OWN], "file": [f"--settings={file}"]}[own]
    bob = await room.live.join("bob")
    sent = threading.Event()
    ada = room.claude(
        "ada",
        Rule("Two herons", "Two, says bob."),
        Rule("Who is there", mesh("search_peers"), until=sent, times=1),
        ENABLE_TOOL_SEARCH="false",
    )
    async with await launched(room, ada, *settings, "-p", "Who is there?") as process:
        told = await tell_the_group(room, bob)
        sent.set()
        assert process.stdout
        with anyio.fail_after(LIMIT_S):
            assert await process.stdout.receive() == b"Two, says bob.\n"
            assert await process.wait() == 0
    assert ada.model.arrival("Two herons.").place is Place.SYSTEM
    assert (await bob.reached("seen", told))["route"] == "tool-boundary"
    assert ("x-own" in ada.model.turns[-1].headers) == (own != "none")
