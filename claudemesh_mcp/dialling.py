"""Finds the broker of this home, starting it if need be, and opens a connection to it.

``sdk.py`` hands it to ``attachment.py``, which dials again whenever a connection has ended.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from claudemesh_mcp.attachment import Dialed
from claudemesh_mcp.config import Settings
from claudemesh_mcp.connection import Patience, websocket
from claudemesh_mcp.home import Home
from claudemesh_mcp.launcher import Launcher
from claudemesh_wire import VERSION


@asynccontextmanager
async def embedded(settings: Settings) -> AsyncGenerator[Dialed]:
    """Connect to the embedded broker of this home; one that is older is replaced first.

    Raises:
        MeshError: it can't be started or reached; the error says why.
    """
    info = await Launcher(Home(settings.paths())).take_over(VERSION)
    async with websocket(info.url, Patience(settings.ping_interval_s), info.pin) as link:
        yield Dialed(link, info.id, info.url, info.token, info.version)
