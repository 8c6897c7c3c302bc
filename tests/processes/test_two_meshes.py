"""One client with a server in each of two meshes, one of them behind a wrapper that forks."""

import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from claudemesh_mcp.routes import records
from tests.support.live import LIMIT_S, SESSION, Live, alive
from tests.support.plugin import HELLO, Served
from tests.support.routing import ALONE, PROGRAMS

ID = "3b241101-e2bb-4255-8caf-4136c566a962"
WRAPPED = ("sh", "-c", '"$0" "$@"; true', *SESSION)


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    async with alive(tmp_path) as live:
        yield live


@contextmanager
def a_server(live: Live, *command: str, mesh: str) -> Iterator[dict[str, Any]]:
    """Be the client of a server; gives what it says of the mesh."""
    told = {"CLAUDEMESH_NAME": "ada", "CLAUDEMESH_MESH": mesh, "CLAUDE_CODE_SESSION_ID": ID}
    with subprocess.Popen(
        command,
        env=live.environment(**told),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            served = Served(process)
            served.ask("initialize", **HELLO)
            yield served.call("mesh_info")
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(LIMIT_S)


def hook(live: Live, event: str, **told: Any) -> str:
    """Run the hook of an event; gives what it prints."""
    own = {"CLAUDE_PID": str(os.getpid()), "CLAUDE_CODE_SESSION_ID": ID}
    ran = subprocess.run(
        [*ALONE, str(PROGRAMS / "hook.py"), event],
        input=json.dumps({"session_id": ID, **told}).encode(),
        env=live.environment(**own, CLAUDE_CODE_ENTRYPOINT="cli"),
        capture_output=True,
        check=True,
    )
    return ran.stdout.decode()


async def test_the_hooks_of_a_client_serve_both_of_its_meshes(live: Live) -> None:
    in_thread = anyio.to_thread.run_sync
    create = [*SESSION[:-1], "mesh", "create", "work", "--no-use"]
    await anyio.run_process(create, env=live.environment())
    here = await live.join("bob")
    there = await live.join("cleo", CLAUDEMESH_MESH="work")
    servers = a_server(live, *SESSION, mesh="local"), a_server(live, *WRAPPED, mesh="work")
    with servers[0] as one, servers[1] as other:
        found = records.of_client(live.home.data, os.getpid())
        assert {record.peer for record in found} == {one["me"]["peer"], other["me"]["peer"]}
        # The session of the client leads to the peer of each mesh.
        owners = {records.peer_of(live.home.data, ID, record.mesh_id) for record in found}
        assert owners == {record.peer for record in found}
        sent = await here.call("send", to="ada", text="Two herons.")
        also = await there.call("send", to="ada", text="Three swans.")
        await here.reached("delivered", sent)
        await there.reached("delivered", also)
        shown = await in_thread(lambda: hook(live, "UserPromptSubmit", prompt="Go on."))
        assert "Two herons." in shown
        assert "Three swans." in shown
        await in_thread(lambda: hook(live, "Stop"))
        assert (await here.reached("seen", sent))["route"] == "prompt"
        assert (await there.reached("seen", also))["route"] == "prompt"
    assert records.of_client(live.home.data, os.getpid()) == []


async def test_a_server_behind_a_wrapper_is_found_by_the_hooks_of_its_client(live: Live) -> None:
    bob = await live.join("bob")
    with a_server(live, *WRAPPED, mesh="local"):
        sent = await bob.call("send", to="ada", text="Two herons.")
        await bob.reached("delivered", sent)
        shown = await anyio.to_thread.run_sync(lambda: hook(live, "SessionStart", source="startup"))
        assert "Two herons." in shown
