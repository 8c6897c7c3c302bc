"""How a command reaches the mesh: as the one lasting peer that the command line has per home.

``messages.py``, ``peers.py`` and ``brokers.py`` open it for the time of one command.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import anyio

from claudemesh_mcp.cli import chosen
from claudemesh_mcp.config import Settings

if TYPE_CHECKING:
    from claudemesh_mcp.client import Client
    from claudemesh_mcp.granting import Reach
    from claudemesh_mcp.sdk import Mesh

PEER: Final = "cli"
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
    # A variable with a name is what the session around this command is called, not its user.
    settings = replace(settings or chosen.settings(), name=None)
    await _ensure_broker(settings)
    async with _open(settings, attach=attach, admin_secret=admin_secret) as mesh:
        await mesh.ready()
        yield mesh
        await mesh.depart()


async def _ensure_broker(settings: Settings) -> None:
    """Start the home's own broker if it is the one that is meant and does not run.

    A session tries again for a while; somebody at a terminal wants to know at once.
    """
    from claudemesh_mcp.dialling import place_of
    from claudemesh_mcp.home import Home
    from claudemesh_mcp.launcher import Launcher

    if not settings.off and place_of(settings) is None:
        await Launcher(Home.open(settings.paths())).ensure()


@asynccontextmanager
async def _open(
    settings: Settings, *, attach: bool, admin_secret: bytes | None = None
) -> AsyncGenerator["Mesh"]:
    from claudemesh_mcp.dialling import dial
    from claudemesh_mcp.logs import log_to_file
    from claudemesh_mcp.opening import HUMAN, set_up
    from claudemesh_mcp.sdk import Mesh
    from claudemesh_wire.handshake import Mode

    # A connection that is lost and restored meanwhile is nothing to tell a reader of stderr.
    log_to_file(settings.paths().logs)
    setup = replace(set_up(settings, HUMAN, resume=PEER), admin_secret=admin_secret)
    mode = Mode.ATTACH if attach else Mode.CALL
    async with Mesh.over(setup, partial(dial, settings), mode) as mesh:
        yield mesh


def ask(
    question: Callable[["Mesh"], Awaitable[Given]], *, settings: Settings | None = None
) -> Given:
    """Open the mesh, ask one thing, and give the answer."""

    async def asking() -> Given:
        async with open_mesh(settings=settings) as mesh:
            return await question(mesh)

    return anyio.run(asking)


def ask_here(
    question: Callable[["Mesh", "Reach"], Awaitable[Given]], *, settings: Settings | None = None
) -> Given:
    """Ask what is this home's own business: a broker is looked for once that asks for one.

    Args:
        question: Is given the mesh, and what gives the connection or raises why there is none.
        settings: As for ``open_mesh``.
    """
    held_here = replace(settings or chosen.settings(), name=None)

    async def asking() -> Given:
        async with _open(held_here, attach=False) as mesh:

            async def reach() -> "Client":
                await _ensure_broker(held_here)
                return await mesh.ready()

            return await question(mesh, reach)

    return anyio.run(asking)
