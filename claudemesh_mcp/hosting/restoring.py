"""Hosts the servers of this home that come back: each in one peer at a time that it fits.

``servers.py`` has one for each ``Mesh`` whose home keeps any. Who holds a server's lock hosts it;
the system frees the lock of a process that ends, however it does, and another one takes it.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

import anyio
import anyio.to_thread

from claudemesh_mcp.client import Client
from claudemesh_mcp.home import FileLock
from claudemesh_mcp.hosting.offering import Offering
from claudemesh_mcp.hosting.registry import Entry, Holder, Kept, Registry, Stamp, place_of, taken
from claudemesh_mcp.hosting.standing import Hosting, Registered
from claudemesh_mcp.hosting.wishes import Scope, ServerWish
from claudemesh_mcp.peer import Peer
from claudemesh_wire.errors import Conflict, Invalid, MeshError, NotFound
from claudemesh_wire.mcp_servers import UnregisterServer

logger: Final = logging.getLogger(__name__)

LOOK_S: Final = 1.0
_TELL_S: Final = 5.0
CLAUDE: Final = "claude"
RESIDENT: Final = "resident"


@dataclass(eq=False)
class _Held:
    """A server that this peer hosts because it comes back.

    Args:
        entry: What is kept of it.
        lock: The right to host it.
        late: Other peers by which the mesh may still know it.
        noted: What others of this home were told last.
    """

    entry: Entry
    lock: FileLock
    late: set[str] = field(default_factory=set[str])
    noted: Holder | None = None


class Restoring:
    """What one peer hosts of what comes back.

    Args:
        peer: The peer.
        offering: What it offers.
        ready: Gives the connection to the broker.
        is_replaced: Tells whether the peer was continued in another process.
        started: Told the name and the command line of each server that comes back here.
    """

    def __init__(
        self,
        peer: Peer,
        offering: Offering,
        ready: Callable[[], Awaitable[Client]],
        is_replaced: Callable[[], bool],
    ) -> None:
        self._peer = peer
        self._offering = offering
        self._ready = ready
        self._is_replaced = is_replaced
        self._registry = Registry(peer.identity)
        self._held: dict[str, _Held] = {}
        self._kept = Kept((), ())
        self._stamp: Stamp | None = None
        self._changing = anyio.Lock()

    async def run(self) -> None:
        """Look again and again, until cancelled or until the peer is another process's."""
        try:
            while not self._is_replaced():
                try:
                    async with self._changing:
                        await self._look()
                except MeshError as error:
                    logger.warning("the servers that come back: %s", error)
                except Exception:
                    logger.exception("a look at the servers that come back failed")
                await anyio.sleep(LOOK_S)
        finally:
            with anyio.CancelScope(shield=True):
                for one in self._held.values():
                    await self._offering.drop(one.entry.wish.name)
                    one.lock.release()
                self._held.clear()
