"""An installation for one project alone: a plain `claude` elsewhere has nothing of it."""

import os
import subprocess
import sys
from pathlib import Path

import anyio

from tests.support.checkout import BROKER, ROOT
from tests.support.claude.client import CLIENT, LIMIT_S, Claude, Told
from tests.support.claude.expected import UNTRUSTED, tools
from tests.support.claude.room import Room


async def run(client: Claude, folder: Path, *command: str) -> "subprocess.CompletedProcess[bytes]":
    """Run something in a folder as the client's user does, to its end."""
    with anyio.fail_after(LIMIT_S):
        return await anyio.run_process(
            command, env=client.environment, cwd=folder, stdin=subprocess.DEVNULL
        )


async def asked_in(client: Claude, folder: Path) -> tuple[Told, set[str]]:
    """Ask a plain `claude` something in a folder; gives what it said, and its tools of ours."""
    printed = ("--output-format", "stream-json", "--verbose")
    done = await run(client, folder, str(CLIENT), "-p", "Who is there?", *printed)
    told = Told.of(done.returncode, done.stdout, done.stderr)
    return told, {name for name in client.model.turns[-1].tools if "mesh" in name}


async def test_what_is_installed_for_one_project_leaves_plain_claude_elsewhere_alone(
    room: Room, tmp_path: Path
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "claude").symlink_to(CLIENT)
    found = {
        **room.live.environment(),
        "PATH": f"{programs}{os.pathsep}/usr/bin:/bin",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{BROKER.parent}",
        "ENABLE_TOOL_SEARCH": "false",
    }
    ada = room.claude("ada", **found)
    install = (sys.executable, "-m", "claudemesh_mcp", "install", "--scope", "local")
    await run(ada, ada.project, *install)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    told, ours = await asked_in(ada, elsewhere)
    assert (told.result, told.servers, told.hooks, ours) == ("Good.", {}, [], set())
    assert ada.model.arrivals(UNTRUSTED) == []

    told, ours = await asked_in(ada, ada.project)
    assert (told.result, list(told.servers)) == ("Good.", ["claudemesh"])
    assert "SessionStart" in told.hooks
    # The first request may leave before the server has answered.
    assert ours <= tools("claudemesh")
