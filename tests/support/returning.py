"""A project with a server that comes back, its sessions and its command line as real processes."""

import hashlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
from anyio import to_thread

from claudemesh_mcp.config import Settings
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.errors import MeshError
from tests.support.backends.found import handmade
from tests.support.live import LIMIT_S, Live, LiveSession, a_moment, alive
from tests.support.shell import Done, Shell

HAND: Final = handmade("handshake")
COMMAND: Final = ("--", HAND.command, *HAND.args)
_WRAPPED: Final = """
import hashlib, os, pathlib, sys
digest = hashlib.sha256(os.environ.get("TOKEN", "").encode()).hexdigest()
pathlib.Path(__file__).with_name("digest").write_text(digest, "utf-8")
sys.stderr.write("the server begins\\n")
sys.stderr.flush()
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@dataclass
class Returning:
    """A home with a project.

    Args:
        live: The home's processes.
        shop: The folder of the project.
    """

    live: Live
    shop: Path

    @property
    def shell(self) -> Shell:
        """A shell on the same home."""
        return Shell(self.live.folder)

    async def join(self, name: str, session: str, folder: Path | None = None) -> LiveSession:
        """Open a session in the project, or in another folder."""
        where = str(folder or self.shop)
        return await self.live.join(name, session=session, CLAUDE_PROJECT_DIR=where)

    async def runs(self, *words: str, **variables: str) -> Done:
        """Run a command of the group in the project's folder."""
        environment = {"CLAUDE_PROJECT_DIR": str(self.shop), **variables}
        return await to_thread.run_sync(
            lambda: self.shell.run("mcp-server", *words, stdin=b"", **environment)
        )

    async def add(self, *words: str, **variables: str) -> Done:
        """Add a server, which is none that is refused."""
        done = await self.runs("add", *words, **variables)
        assert done.code == 0, done.err
        return done

    async def listed(self) -> dict[str, Any]:
        """Give what ``list`` says."""
        return (await self.runs("list", "--json")).json

    async def until_offered(self, **wanted: bool) -> dict[str, Any]:
        """Wait until the mesh offers exactly this: ``shop_hand=True``; gives what is listed."""
        names = {name.replace("_", "/"): online for name, online in wanted.items()}
        with anyio.fail_after(LIMIT_S):
            while True:
                listed = await self.listed()
                if {one["name"]: one["online"] for one in listed["offered"]} == names:
                    return listed
                await a_moment()

    async def until_one_is_here(self, name: str) -> None:
        """Wait until the mesh offers one server alone, by whatever handle, and it is here."""
        with anyio.fail_after(LIMIT_S):
            while True:
                offered = (await self.listed())["offered"]
                if [(one["name"].partition("/")[2], one["online"]) for one in offered] == [
                    (name, True)
                ]:
                    return
                await a_moment()

    async def until_state(self, name: str, *states: str) -> dict[str, Any]:
        """Wait until a server that comes back is in one of these states; gives its row."""
        with anyio.fail_after(LIMIT_S):
            while True:
                rows = {one["name"]: one for one in (await self.listed())["kept"]}
                if rows[name]["state"] in states:
                    return rows[name]
                await a_moment()

    async def answers(self, server: str = "hand") -> None:
        """Wait until a call of the server gives its result."""
        result = await self.called(server, "seen", {"a": 1})
        assert result["structuredContent"]["arguments"] == {"a": 1}

    async def called(self, server: str, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Call until there is a result, and give it."""
        settings = Settings.load({"home": self.live.home.data, "keyring": False}, environ={})
        async with Mesh.connect(settings=settings, resume="caller", attach=False) as caller:
            with anyio.fail_after(LIMIT_S):
                while True:
                    with suppress(MeshError):
                        return await caller.servers.call(server, tool, arguments)
                    await a_moment()


@asynccontextmanager
async def returning(folder: Path, **settings: str) -> AsyncIterator[Returning]:
    """Open a home with an empty project beside it."""
    shop = folder / "shop"
    shop.mkdir()
    async with alive(folder, CLAUDEMESH_BROKER_LEASE_S="1", **settings) as live:
        yield Returning(live, shop)


def wrapped(folder: Path) -> tuple[str, ...]:
    """Write a program that notes what secret it was given, and is then the server by hand."""
    program = folder / "wrapped.py"
    program.write_text(_WRAPPED, "utf-8")
    return ("--", sys.executable, str(program), *HAND.args)


def digest_of(secret: str) -> str:
    """Sum up a secret as that program does."""
    return hashlib.sha256(secret.encode()).hexdigest()
