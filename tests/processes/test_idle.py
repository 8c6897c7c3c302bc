"""A session that is connected and left alone: what it must not have in memory."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from claudemesh_mcp.config import Paths, broker_environment
from claudemesh_mcp.home import Home
from claudemesh_mcp.launcher import Launcher

# The session as `claudemesh mcp` starts it, once `initialize` has been answered.
PROGRAM: Final = """
import json, sys
before = set(sys.modules)
import asyncio
from claudemesh_mcp.config import Settings
from claudemesh_mcp.front import ComingSession

async def main():
    session = ComingSession(Settings.load())
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(session.start())
        await session._came.wait()
        mesh = await session._session._opened()
        await mesh.ready()
        print(json.dumps(sorted(set(sys.modules) - before)))
        await session.close()

asyncio.run(main())
"""
UNUSED: Final = {
    "claudemesh_mcp.results": "a tool's",
    "claudemesh_mcp.tools": "a tool's",
    "claudemesh_wire.search": "a tool's",
    "cryptography.hazmat.primitives.asymmetric.rsa": "the library's, to make any key",
    "difflib": "a mistake's",
    "email": "the metadata's",
    "http.client": "the WebSocket library's own shell's",
    "keyring": "the keyring's, and asked in another process",
    "logging.handlers": "a log file's that rotates for one process",
    "platformdirs": "a home's that no variable names",
    "tomllib": "a config file's",
    "urllib.request": "the WebSocket library's own shell's",
    "websockets.asyncio": "the WebSocket library's own shell's",
    "zipfile": "the metadata's",
}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(Paths.of(tmp_path / "home"))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def modules_of_a_session(home: Home) -> set[str]:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=broker_environment() | {"CLAUDEMESH_HOME": str(home.data)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(json.loads(ended.stdout))


async def test_an_idle_session_has_nothing_in_memory_that_it_does_not_use(home: Home) -> None:
    try:
        loaded = modules_of_a_session(home)
    finally:
        await Launcher(home).stop(10, force=True)
    assert {"claudemesh_mcp.client", "pydantic.main", "sqlite3"} <= loaded
    assert {name: use for name, use in UNUSED.items() if name in loaded} == {}
