"""Says to the broker what one peer offers: on each connection anew, and again what changed.

``offering.py`` runs it. One thing is said at a time; what passes is tried again, and what an
attempt may have left at the broker is taken back.
"""

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import anyio

from claudemesh_mcp.client import Client
from claudemesh_mcp.connection import pauses
from claudemesh_mcp.hosting.standing import Standing
from claudemesh_mcp.peer import Peer
from claudemesh_wire.errors import Conflict, MeshError, NotFound, TooMuch, Unavailable
from claudemesh_wire.mcp_servers import RegisterServer, ServerRegistered, UnregisterServer

_PASSING: Final = (TooMuch, Unavailable)


class Announcing:
    """What the broker is told of the servers of one peer.

    Args:
        peer: The peer.
        standing: The servers, by name.
        beginning: The names of those that somebody registers at this moment, and says first.
    """

    def __init__(self, peer: Peer, standing: Mapping[str, Standing], beginning: set[str]) -> None:
        self.turn = anyio.Lock()
        """Held by whoever says something."""
        self._peer = peer
        self._standing = standing
        self._beginning = beginning
        self._left_over: set[str] = set()
        self._more = anyio.Event()

    def look(self) -> None:
        """Learn that something is to be said."""
        self._more.set()

    def take_back(self, name: str) -> None:
        """Have the broker forget what it may have under a name that nothing has here any more."""
        self._left_over.add(name)
        self._more.set()

    async def run(self, client: Client, scope: anyio.CancelScope) -> None:
        """Say what is to be said over one connection, until the scope is cancelled."""
        waits = pauses()
        with scope:
            while True:
                self._more = anyio.Event()
                pause_s = math.inf
                try:
                    await self._take_back(client)
                    for one in list(self._standing.values()):
                        async with self.turn:
                            await self._tell_if_due(client, one)
                except _PASSING:
                    pause_s = next(waits)
                else:
                    waits = pauses()
                with anyio.move_on_after(pause_s):
                    await self._more.wait()

    async def _take_back(self, client: Client) -> None:
        for name in self._left_over - self._beginning:
            async with self.turn:
                if name not in self._standing and name not in self._beginning:
                    with suppress(NotFound):
                        await client.call(UnregisterServer(name=name))
                    self._left_over.discard(name)

    async def _tell_if_due(self, client: Client, one: Standing) -> None:
        now = one.registration
        is_settled = one.client is client and (one.told is now or one.is_refused)
        if now is None or is_settled or self._standing.get(one.name) is not one:
            return
        try:
            await self.tell(client, one)
        except _PASSING:
            raise
        except MeshError as error:
            self._peer.detect(error)

    async def tell(self, client: Client, one: Standing) -> None:
        """Say what a server can do, in one's turn.

        Raises:
            MeshError: the broker refused, or may not have heard it.
        """
        if one.client is not client:
            one.renew(self._peer, client)
        registration, certificate = one.registration, one.certificate
        if registration is None or certificate is None:
            return
        request = RegisterServer(
            registration=registration.blob,
            certificate=certificate.blob,
            replaces=one.told.digest if one.told else None,
        )
        try:
            answer = await self._registered(client, one.name, request)
        except MeshError as error:
            if not isinstance(error, _PASSING):
                one.refused = (registration, error)
            raise
        one.told, one.refused, one.full_name = registration, None, answer.full_name
        self._left_over.discard(one.name)

    async def _registered(
        self, client: Client, name: str, request: RegisterServer
    ) -> ServerRegistered:
        try:
            return await client.call(request)
        except Conflict as error:
            if error.code != "name_taken":
                raise
        # Of an attempt whose answer was lost: what has the name is this session's own.
        with suppress(NotFound):
            await client.call(UnregisterServer(name=name))
        return await client.call(request)
