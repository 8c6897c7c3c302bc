"""How a command reaches the mesh: as the one lasting peer that the command line has per home.

``messages.py``, ``peers.py`` and ``brokers.py`` open it for the time of one command.
"""

import getpass
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Final, TypeVar

import anyio

from claudemesh_mcp.config import Settings
from claudemesh_wire.errors import Forbidden

if TYPE_CHECKING:
    from claudemesh_mcp.sdk import Mesh

PEER: Final = "cli"
Given = TypeVar("Given")


def open_mesh(*, attach: bool = False) -> AbstractAsyncContextManager["Mesh"]:
    """Open the mesh as the command line's own peer.

    Args:
        attach: Be present, and be told of what arrives; else only ask.

    Raises:
        Invalid: the settings make no sense.
        Forbidden: claudemesh is switched off here.
    """
    settings = Settings.load()
    if settings.off:
        raise Forbidden(
            "claudemesh is switched off here.", "Unset CLAUDEMESH=off.", code="switched_off"
        )
    from claudemesh_mcp.sdk import Mesh
    from claudemesh_wire.address import handle_from

    # A person's name: CLAUDEMESH_NAME is what the session around this command is called.
    name = handle_from(_user(), otherwise="cli")
    return Mesh.connect(
        settings=settings, name=name, resume=PEER, attach=attach, session_type="human"
    )


def ask(question: Callable[["Mesh"], Awaitable[Given]]) -> Given:
    """Open the mesh, ask one thing, and give the answer."""

    async def asking() -> Given:
        async with open_mesh() as mesh:
            return await question(mesh)

    return anyio.run(asking)


def _user() -> str:
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # a user id without an entry, as in containers
        return ""
