"""How a command reaches the mesh: as the one lasting peer that the command line has per home.

``messages.py``, ``peers.py`` and ``brokers.py`` open it for the time of one command.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar

import anyio

from claudemesh_mcp.config import Settings

if TYPE_CHECKING:
    from claudemesh_mcp.sdk import Mesh

PEER: Final = "cli"
Given = TypeVar("Given")


@asynccontextmanager
async def open_mesh(*, attach: bool = False) -> AsyncGenerator["Mesh"]:
    """Open the mesh as the command line's own peer.

    Args:
        attach: Be present, and be told of what arrives; else only ask.

    Raises:
        Invalid: the settings make no sense.
        MeshError: why there is no broker, or no connection to it.
    """
    from claudemesh_mcp.home import Home
    from claudemesh_mcp.launcher import Launcher
    from claudemesh_mcp.logs import log_to_file
    from claudemesh_mcp.sdk import Mesh

    # A variable with a name is what the session around this command is called, not its user.
    settings = replace(Settings.load(), name=None)
    # A connection that is lost and restored meanwhile is nothing to tell a reader of stderr.
    log_to_file(settings.paths().logs)
    # A session tries again for a while; somebody at a terminal wants to know at once.
    if not settings.off:
        await Launcher(Home.open(settings.paths())).ensure()
    async with Mesh.connect(
        settings=settings, resume=PEER, attach=attach, session_type="human"
    ) as mesh:
        yield mesh


def ask(question: Callable[["Mesh"], Awaitable[Given]]) -> Given:
    """Open the mesh, ask one thing, and give the answer."""

    async def asking() -> Given:
        async with open_mesh() as mesh:
            return await question(mesh)

    return anyio.run(asking)
