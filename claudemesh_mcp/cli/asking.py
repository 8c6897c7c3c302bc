"""How a command reaches the mesh: as the one lasting peer that the command line has per home.

``messages.py``, ``peers.py`` and ``brokers.py`` open it for the time of one command.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import anyio

from claudemesh_mcp.cli import chosen
from claudemesh_mcp.config import Settings

if TYPE_CHECKING:
    from claudemesh_mcp.sdk import Mesh
    from claudemesh_wire.handshake import Mode

PEER: Final = "cli"
_MOST_PEERS: Final = 20
Given = TypeVar("Given")


@asynccontextmanager
async def open_mesh(
    *, attach: bool = False, settings: Settings | None = None, admin_secret: bytes | None = None
) -> AsyncGenerator["Mesh"]:
    """Open the mesh as the command line's own peer.

    Args:
        attach: Be present, and be told of what arrives; else only ask.
        settings: Of this command, when not those that hold here.
        admin_secret: Of the broker, to make the mesh there.

    Raises:
        Invalid: the settings make no sense.
        MeshError: why there is no broker, or no connection to it.
    """
    from claudemesh_mcp.dialling import place_of
    from claudemesh_mcp.home import Home
    from claudemesh_mcp.launcher import Launcher
    from claudemesh_mcp.logs import log_to_file
    from claudemesh_wire.handshake import Mode

    # A variable with a name is what the session around this command is called, not its user.
    settings = replace(settings or chosen.settings(), name=None)
    # A connection that is lost and restored meanwhile is nothing to tell a reader of stderr.
    log_to_file(settings.paths().logs)
    # A session tries again for a while; somebody at a terminal wants to know at once.
    if not settings.off and place_of(settings) is None:
        await Launcher(Home.open(settings.paths())).ensure()
    async with connected(settings, Mode.ATTACH if attach else Mode.CALL, admin_secret) as mesh:
        yield mesh


@asynccontextmanager
async def connected(
    settings: Settings, mode: "Mode", admin_secret: bytes | None = None
) -> AsyncGenerator["Mesh"]:
    """Connect as the command line's own peer, or as its next one when its keys were revoked.

    The peer lasts as long as the home: without keys it could not even leave the mesh.

    Raises:
        MeshError: why there is no connection.
    """
    async with AsyncExitStack() as stack:
        yield await _enter(stack, settings, mode, admin_secret)


async def _enter(
    stack: AsyncExitStack, settings: Settings, mode: "Mode", admin_secret: bytes | None
) -> "Mesh":
    from claudemesh_wire.errors import Forbidden

    resume, number = PEER, 1
    while True:
        try:
            opened = _opened(settings, mode, resume, admin_secret)
            return await stack.enter_async_context(opened)
        except Forbidden as error:
            if error.code != "device_revoked" or number == _MOST_PEERS:
                raise
        number += 1
        resume = f"{PEER}-{number}"


@asynccontextmanager
async def _opened(
    settings: Settings, mode: "Mode", resume: str, admin_secret: bytes | None
) -> AsyncGenerator["Mesh"]:
    from claudemesh_mcp.dialling import dial
    from claudemesh_mcp.opening import HUMAN, set_up
    from claudemesh_mcp.sdk import Mesh

    setup = replace(set_up(settings, HUMAN, resume=resume), admin_secret=admin_secret)
    async with Mesh.over(setup, partial(dial, settings), mode) as mesh:
        await mesh.ready()
        yield mesh
        await mesh.depart()


def ask(
    question: Callable[["Mesh"], Awaitable[Given]], *, settings: Settings | None = None
) -> Given:
    """Open the mesh, ask one thing, and give the answer."""

    async def asking() -> Given:
        async with open_mesh(settings=settings) as mesh:
            return await question(mesh)

    return anyio.run(asking)
