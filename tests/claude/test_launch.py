"""A session that `claudemesh launch` starts, with the real client and nothing installed."""

import os
import sys

import anyio

from tests.support.checkout import BROKER, ROOT
from tests.support.claude.client import CLIENT, LIMIT_S
from tests.support.claude.room import Room
from tests.support.claude.script import Rule, mesh


async def test_a_launched_run_is_in_its_group_and_reads_what_goes_to_it(room: Room) -> None:
    await room.live.join("bob")
    ada = room.claude(
        "ada",
        Rule("Listen", mesh("inbox", wait_s=60)),
        Rule("Two herons", "Two, says bob."),
        ENABLE_TOOL_SEARCH="false",
    )
    tools = ada.folder / "bin"
    tools.mkdir()
    (tools / "claude").symlink_to(CLIENT)
    environment = {
        **room.live.environment(),
        **ada.environment,
        "PATH": f"{tools}{os.pathsep}/usr/bin:/bin",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{BROKER.parent}",
    }
    launch = [sys.executable, "-m", "claudemesh_mcp", "launch", "--name", "ada", "--groups", "ops"]
    words = ["--", "-p", "Listen to the mesh.", "--allowedTools", "mcp__claudemesh"]
    with anyio.fail_after(LIMIT_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tell_the_group, room)
            done = await anyio.run_process(
                [*launch, *words], env=environment, cwd=ada.project, stdin=None, check=False
            )
    assert (done.returncode, done.stdout.decode().strip()) == (0, "Two, says bob.")
    assert len(ada.model.arrivals("Two herons.")) == 1


async def tell_the_group(room: Room) -> None:
    """Send to the group, once somebody is in it."""
    await room.present("ada")
    (bob,) = room.live.sessions
    with anyio.fail_after(LIMIT_S):
        while not (await bob.call("search_peers", query="ada"))["peers"][0]["groups"]:
            await anyio.lowlevel.checkpoint()
    await bob.call("send", to="@ops", text="Two herons.")
