"""Enters the groups, and takes the role, that a session was started with.

``session.py`` runs it beside its mesh; ``claudemesh launch`` sets what it does.
"""

import logging
from typing import TYPE_CHECKING, Final

import anyio

from claudemesh_mcp.config import Settings
from claudemesh_wire.errors import MeshError, Unavailable

if TYPE_CHECKING:
    from claudemesh_mcp.sdk import Mesh

_AGAIN_S: Final = 2.0

logger: Final = logging.getLogger(__name__)


async def enter(mesh: "Mesh", settings: Settings) -> None:
    """Do it once, as soon as there is a connection."""
    if not settings.groups and settings.role is None:
        return
    while True:
        try:
            if settings.role is not None:
                await mesh.set_profile(role=settings.role[:80])
            for group in settings.groups:
                name, _, role = group.partition(":")
                await mesh.join(f"@{name}", role)
            return
        except Unavailable:
            await anyio.sleep(_AGAIN_S)
        except MeshError as error:
            logger.warning("The groups could not be entered: %s", error.code)
            return
