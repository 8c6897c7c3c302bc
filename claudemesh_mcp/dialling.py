"""Finds the broker of a mesh, starting the home's own if need be, and opens a connection to it.

``sdk.py`` hands it to ``attachment.py``, which dials again whenever a connection has ended.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Final

import anyio.to_thread

from claudemesh_mcp import meshes
from claudemesh_mcp.attachment import Dialed
from claudemesh_mcp.config import Settings
from claudemesh_mcp.connection import Patience, websocket
from claudemesh_mcp.home import Home
from claudemesh_mcp.launcher import BrokerInfo, Launcher
from claudemesh_mcp.meshes import Place, known_meshes
from claudemesh_wire import VERSION
from claudemesh_wire.errors import Forbidden, MeshError, Unavailable

_OF_OWN: Final = {
    "unreachable": "Run claudemesh status, and claudemesh up if it is down.",
    "wrong_broker": "Run claudemesh status; if the broker was replaced on purpose, claudemesh down"
    " and up.",
}
_CHANGED: Final = {
    "wrong_broker": "Ask its admin; if it was replaced on purpose: claudemesh mesh trust {mesh}."
    " Whoever runs it and has a backup: claudemesh broker restore FILE.",
    "certificate_changed": "If the broker's certificate was renewed on purpose:"
    " claudemesh mesh trust {mesh}",
}


@asynccontextmanager
async def dial(settings: Settings) -> AsyncGenerator[Dialed]:
    """Connect to the broker of the mesh that the settings choose.

    Raises:
        MeshError: it can't be started or reached; the error says why.
    """
    place = await anyio.to_thread.run_sync(place_of, settings)
    opened = embedded(settings) if place is None else remote(place, settings)
    async with opened as dialed:
        yield dialed


def place_of(settings: Settings) -> Place | None:
    """Say where the broker of the chosen mesh is; ``None`` for the home's own.

    Read at each dialling: a command may have noted another place meanwhile.

    Raises:
        NotFound: ``unknown_mesh``.
    """
    wanted = settings.mesh
    if wanted is None or wanted == meshes.LOCAL:
        return None
    home = Home(settings.paths())
    # The local mesh, which has no file, can be named by its id too.
    if meshes.is_local(home, wanted):
        return None
    return meshes.choose(known_meshes(home), wanted).place


@asynccontextmanager
async def embedded(settings: Settings) -> AsyncGenerator[Dialed]:
    """Connect to the embedded broker of this home; one that is older is replaced first.

    Raises:
        MeshError: it can't be started or reached; the error says why.
    """
    async with _to(await Launcher(Home(settings.paths())).take_over(VERSION), settings) as dialed:
        yield dialed


@asynccontextmanager
async def running(settings: Settings) -> AsyncGenerator[Dialed]:
    """Connect as ``dial`` does, but start no broker.

    Raises:
        Unavailable: ``unreachable``: none of this home runs.
        MeshError: as ``dial``.
    """
    place = await anyio.to_thread.run_sync(place_of, settings)
    if place is not None:
        opened = remote(place, settings)
    else:
        info = await anyio.to_thread.run_sync(Launcher(Home(settings.paths())).find)
        if info is None:
            raise Unavailable("No broker of this home runs.", "claudemesh up", code="unreachable")
        opened = _to(info, settings)
    async with opened as dialed:
        yield dialed


@asynccontextmanager
async def _to(info: BrokerInfo, settings: Settings) -> AsyncGenerator[Dialed]:
    patience = Patience(settings.ping_interval_s)
    try:
        async with websocket(info.url, patience, info.pin) as link:
            yield Dialed(link, info.id, info.url, info.token, info.version)
    except MeshError as error:
        if error.code in _OF_OWN:
            error.hint = _OF_OWN[error.code]
        raise


@asynccontextmanager
async def remote(place: Place, settings: Settings) -> AsyncGenerator[Dialed]:
    """Connect to the broker of a mesh that was joined, as its invite described it.

    Raises:
        Unavailable: ``unreachable``.
        Unauthenticated: ``certificate_changed``: another certificate than the one known;
            ``wrong_broker``: another broker. The hint names the command that accepts it.
    """
    token = await anyio.to_thread.run_sync(_token_of_own, place.broker, settings)
    patience = Patience(settings.ping_interval_s)
    try:
        async with websocket(place.url, patience, place.pin) as link:
            yield Dialed(link, place.broker, place.url, token, "", place)
    except MeshError as error:
        if error.code in _CHANGED:
            error.hint = _CHANGED[error.code].format(mesh=settings.mesh)
        raise


def _token_of_own(broker: str, settings: Settings) -> bytes | None:
    """Give the local token if it is this home that runs the broker: it may make meshes there."""
    # What is wrong with the home's own file is no matter of another's broker.
    with suppress(Forbidden):
        info = Launcher(Home(settings.paths())).find()
        return info.token if info and info.id == broker else None
    return None
