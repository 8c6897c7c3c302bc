"""Servers that real sessions offer: called from another process, and gone with their session."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from claudemesh_mcp.config import Settings
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.errors import MeshError
from tests.support.backends.found import handmade
from tests.support.live import LIMIT_S, Live, LiveSession, a_moment, alive

SECRET = "s3cret-of-the-provider"
TELLING = "import os, sys; sys.exit('bad key ' + os.environ['KEY'])"
# The other end of the pipe sees when the server is gone, and all that it started.
WATCHED = 'exec 9>"$0"; exec "$@"'


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    async with alive(tmp_path) as live:
        yield live


class Server:
    """A server by hand, and whether it runs.

    Args:
        folder: Where it leaves word.
    """

    def __init__(self, folder: Path) -> None:
        self.said = folder / "said"
        self._pipe = folder / "pipe"
        os.mkfifo(self._pipe)
        self._handle = os.open(self._pipe, os.O_RDONLY | os.O_NONBLOCK)

    @property
    def start(self) -> dict[str, Any]:
        """How it is started."""
        launch = handmade("handshake", self.said)
        args = ["-c", WATCHED, str(self._pipe), launch.command, *launch.args]
        return {"command": "sh", "args": args}

    async def until_it_waits(self) -> None:
        """Wait until it has begun with a call of ``waiting``."""
        with anyio.fail_after(LIMIT_S):
            while not (self.said.exists() and "waits" in self.said.read_text("utf-8")):
                await a_moment()

    async def ended(self) -> None:
        """Wait until its process is gone."""
        with anyio.fail_after(LIMIT_S):
            await anyio.wait_readable(self._handle)
        assert os.read(self._handle, 1) == b""
        os.close(self._handle)


@asynccontextmanager
async def a_caller(live: Live) -> AsyncIterator[Mesh]:
    """Be a program of the same user, which only calls."""
    settings = Settings.load({"home": live.home.data, "keyring": False}, environ={})
    async with Mesh.connect(settings=settings, attach=False) as mesh:
        yield mesh


async def called(caller: Mesh, tool: str, server: str = "ada/hand") -> str:
    """Call a tool, for its text or for the code of the refusal."""
    with anyio.fail_after(LIMIT_S):
        try:
            return (await caller.servers.call(server, tool))["content"][0]["text"]
        except MeshError as error:
            return error.code


async def registered(session: LiveSession, server: Server) -> dict[str, Any]:
    return await session.call("register_mcp", name="hand", **server.start)


async def test_a_server_is_called_from_another_process_until_it_is_taken_back(
    live: Live, tmp_path: Path
) -> None:
    ada, server = await live.join("ada"), Server(tmp_path)
    told = await registered(ada, server)
    assert (told["name"], told["visible_to"], told["warnings"]) == ("ada/hand", ["own"], [])
    assert "seen" in told["tools"]
    async with a_caller(live) as caller:
        assert await called(caller, "seen") == "seen"
        assert await ada.call("unregister_mcp", name="hand") == {"name": "hand"}
        await server.ended()
        assert await called(caller, "seen") == "unknown_server"


async def test_a_killed_session_leaves_no_server_and_its_callers_learn_at_once(
    live: Live, tmp_path: Path
) -> None:
    ada, server, codes = await live.join("ada"), Server(tmp_path), list[str]()
    await registered(ada, server)

    async def call(caller: Mesh) -> None:
        codes.append(await called(caller, "waiting"))

    async with a_caller(live) as caller:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, caller)
            await server.until_it_waits()
            await ada.kill()
        assert codes == ["outcome_unknown"]
        assert await called(caller, "seen") == "peer_offline"
    await server.ended()


async def test_a_session_that_ends_takes_its_servers_with_it(live: Live, tmp_path: Path) -> None:
    ada, server = await live.join("ada"), Server(tmp_path)
    await registered(ada, server)
    assert await ada.end() == 0
    await server.ended()
    async with a_caller(live) as caller:
        assert await called(caller, "seen") == "unknown_server"


async def test_a_broker_that_was_killed_knows_the_server_again_by_itself(
    live: Live, tmp_path: Path
) -> None:
    ada, server = await live.join("ada"), Server(tmp_path)
    await registered(ada, server)
    async with a_caller(live) as caller:
        assert await called(caller, "seen") == "seen"
        live.kill_broker()
        with anyio.fail_after(LIMIT_S):
            while await called(caller, "seen") != "seen":
                await a_moment()


async def test_a_registration_that_is_refused_says_why_and_leaves_nothing(
    live: Live, tmp_path: Path
) -> None:
    ada, server = await live.join("ada"), Server(tmp_path)
    await registered(ada, server)
    taken = await ada.refusal("register_mcp", name="hand", **server.start)
    assert taken["code"] == "name_taken"
    unknown = await ada.refusal(
        "register_mcp", name="more", tools_allowed=["seeen"], **server.start
    )
    assert unknown["code"] == "unknown_tool"
    assert "seen" in unknown["hint"]
    neither = await ada.refusal("register_mcp", name="more")
    assert neither["code"] == "bad_launch"
    failing = {"command": sys.executable, "args": ["-c", TELLING], "env": {"KEY": SECRET}}
    failed = await ada.refusal("register_mcp", name="more", **failing)
    assert failed["code"] == "server_exited"
    assert "bad key ***" in failed["message"]
    async with a_caller(live) as caller:
        assert await called(caller, "seen", "ada/more") == "unknown_server"
        assert await called(caller, "seen") == "seen"
    assert await ada.end() == 0
    told = [ada.errors, live.log, str(failed)]
    assert [text for text in told if SECRET in text] == []
    assert files_with(SECRET, live.home.data) == []


def files_with(text: str, folder: Path) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if text.encode() in path.read_bytes()]
