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
    from claudemesh_mcp.client import Client
    from claudemesh_mcp.granting import Reach
    from claudemesh_mcp.peer import Peer
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
    from claudemesh_wire.handshake import Mode

    settings = _of_this_command(settings)
    await _ensure_broker(settings)
    async with connected(settings, Mode.ATTACH if attach else Mode.CALL, admin_secret) as mesh:
        yield mesh


def _of_this_command(settings: Settings | None) -> Settings:
    from claudemesh_mcp.logs import log_to_file

    # A variable with a name is what the session around this command is called, not its user.
    settings = replace(settings or chosen.settings(), name=None)
    # A connection that is lost and restored meanwhile is nothing to tell a reader of stderr.
    log_to_file(settings.paths().logs)
    return settings


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
    async with _at(settings, mode, resume, admin_secret) as mesh:
        await mesh.ready()
        yield mesh
        await mesh.depart()


@asynccontextmanager
async def _at(
    settings: Settings, mode: "Mode", resume: str, admin_secret: bytes | None = None
) -> AsyncGenerator["Mesh"]:
    """Open the peer, whether there will be a connection or not."""
    from claudemesh_mcp.dialling import dial
    from claudemesh_mcp.opening import HUMAN, set_up
    from claudemesh_mcp.sdk import Mesh

    setup = replace(set_up(settings, HUMAN, resume=resume), admin_secret=admin_secret)
    async with Mesh.over(setup, partial(dial, settings), mode) as mesh:
        yield mesh


@asynccontextmanager
async def own_peer() -> AsyncGenerator["Peer"]:
    """Open the command line's own peer for what is in its file: no broker is looked for.

    Raises:
        MeshError: as ``Peer.open``.
    """
    from claudemesh_mcp.opening import HUMAN, set_up
    from claudemesh_mcp.peer import Peer

    settings = _of_this_command(None)
    async with AsyncExitStack() as stack:
        resume, number = PEER, 1
        while True:
            peer = await Peer.open(set_up(settings, HUMAN, resume=resume))
            stack.push_async_callback(peer.file.close)
            number += 1
            resume = f"{PEER}-{number}"
            # The next one took its place when its keys were revoked.
            if not (peer.home.sessions / peer.identity.peer(f"resume:{resume}")).is_dir():
                break
        yield peer


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
    from claudemesh_wire.errors import Forbidden
    from claudemesh_wire.handshake import Mode

    meant = _of_this_command(settings)

    async def asking() -> Given:
        async with AsyncExitStack() as stack:
            mesh = await stack.enter_async_context(_at(meant, Mode.CALL, PEER))

            async def reach() -> "Client":
                await _ensure_broker(meant)
                try:
                    return await mesh.ready()
                except Forbidden as error:
                    if error.code != "device_revoked":
                        raise
                # What is said is the member's: another peer of it may carry it.
                other = await stack.enter_async_context(connected(meant, Mode.CALL))
                return await other.ready()

            return await question(mesh, reach)

    return anyio.run(asking)
