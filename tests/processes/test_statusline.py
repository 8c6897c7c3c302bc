"""The status line beside a real session: what it says, and when it says nothing.

The line is run as Claude Code runs it, by its path and with the pid of the client in the
environment. This process is the client of its session's server, and so the pid is its own.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from claudemesh_mcp import statusline
from claudemesh_mcp.home import file_lock
from claudemesh_mcp.routes import glances, places, records
from tests.support.live import LIMIT_S, Live, LiveSession, a_moment, alive

LINE = [sys.executable, "-I", "-S", str(Path(statusline.__file__))]
CONSOLE = [sys.executable, "-m", "claudemesh_mcp", "statusline"]
INPUT = json.dumps({"session_id": "5e55", "cwd": "/"})


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    async with alive(tmp_path) as live:
        yield live


def client_of(live: Live, session: LiveSession) -> int:
    """Give the client of a session's server: the process that watches over it."""
    for file in (live.home.run / "clients").glob("*.json"):
        record = records.find(live.home.data, int(file.name.partition(".")[0]))
        if record is not None and record.server == session.pid:
            return record.pid
    raise AssertionError("the session has no record")


async def line(live: Live, pid: int, command: list[str] = LINE, told: str = INPUT) -> str:
    """Run the status line of a client; it always ends well and complains of nothing."""
    environment = live.environment(CLAUDE_PID=str(pid) if pid else "")
    done = await anyio.run_process(
        command, input=told.encode(), env=environment, check=False, stderr=subprocess.PIPE
    )
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode()


async def until(live: Live, pid: int, wanted: str, command: list[str] = LINE) -> None:
    """Look at the line again and again, as the client does, until it says this."""
    said = ""
    with anyio.move_on_after(LIMIT_S):
        # What the server leaves gives no sign here.
        while (said := await line(live, pid, command)) != wanted:
            await a_moment()
        return
    raise AssertionError(f"it says {said!r}")


async def test_the_line_tells_the_mesh_who_is_online_and_what_is_unread(live: Live) -> None:
    ada, bob = await live.join("ada"), await live.join("bob")
    pid = client_of(live, ada)
    await until(live, pid, "local · 2 online · 0 unread\n")
    for text in ("One heron.", "Two herons."):
        await bob.reached("delivered", await bob.call("send", to="ada", text=text))
    await until(live, pid, "local · 2 online · 2 unread\n")
    assert await line(live, pid, CONSOLE) == "local · 2 online · 2 unread\n"
    await ada.read(2)
    await ada.call("search_peers")
    await until(live, pid, "local · 2 online · 0 unread\n")


async def test_the_line_is_empty_offline_and_when_the_session_has_ended(live: Live) -> None:
    ada = await live.join("ada")
    pid = client_of(live, ada)
    await until(live, pid, "local · 1 online · 0 unread\n")
    os.kill(live.broker.pid, signal.SIGSTOP)
    os.kill(ada.pid, signal.SIGKILL)
    await until(live, pid, "")
    os.kill(live.broker.pid, signal.SIGCONT)


async def test_the_line_comes_back_with_the_broker(live: Live) -> None:
    ada = await live.join("ada")
    pid = client_of(live, ada)
    await until(live, pid, "local · 1 online · 0 unread\n")
    # The session would have another one sooner than the line is looked at.
    with file_lock(live.home.run / "start.lock", LIMIT_S):
        os.kill(live.broker.pid, signal.SIGTERM)
        await until(live, pid, "")
    await ada.call("search_peers")
    await until(live, pid, "local · 1 online · 0 unread\n")


@pytest.mark.parametrize("told", ["", "{bad", "[]", '{"session_id": 7}', '{"session_id": "../x"}'])
async def test_whatever_the_line_is_fed_it_says_nothing_and_ends_well(
    live: Live, told: str
) -> None:
    for pid in (0, os.getpid(), 2**40):
        assert await line(live, pid, told=told) == ""


@pytest.mark.parametrize("platform", ["linux", "darwin"])
@pytest.mark.parametrize(
    "environ",
    [
        {"HOME": "/home/ada"},
        {"HOME": "/home/ada", "XDG_DATA_HOME": "/data"},
        {"HOME": "/home/ada", "XDG_DATA_HOME": "data"},
        {"HOME": "/home/ada", "XDG_DATA_HOME": "/data", "CLAUDEMESH_HOME": "/mesh"},
        {"HOME": "/home/ada", "CLAUDEMESH_HOME": "mesh"},
    ],
)
def test_the_line_looks_where_the_hooks_do(environ: dict[str, str], platform: str) -> None:
    assert statusline.home(environ, platform) == places.places(environ, platform).data


def test_the_line_takes_as_old_what_the_server_does() -> None:
    assert statusline.FRESH_S == glances.FRESH_S


async def test_what_was_left_long_ago_is_not_shown(live: Live) -> None:
    ada = await live.join("ada")
    pid = client_of(live, ada)
    await until(live, pid, "local · 1 online · 0 unread\n")
    os.kill(ada.pid, signal.SIGSTOP)
    try:
        long_ago = 1.0
        os.utime(records.place(live.home.data, pid, "glance"), (long_ago, long_ago))
        assert await line(live, pid) == ""
    finally:
        os.kill(ada.pid, signal.SIGCONT)
