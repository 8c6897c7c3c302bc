"""Has the mesh forget servers that are kept no more, by whichever peers it knows them.

``restoring.py`` does so for what a session finds left over, the command line for what it removes.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final

import anyio
import anyio.to_thread

from claudemesh_mcp.client import Client
from claudemesh_mcp.hosting.registry import Entry, Registry, name_of
from claudemesh_wire.errors import Conflict, MeshError, NotFound, Unavailable
from claudemesh_wire.mcp_servers import UnregisterServer

ENDED_WITHIN_S: Final = 15.0
_TELL_S: Final = 5.0
_LOOK_S: Final = 0.2


async def end(registry: Registry, entry: Entry, reach: Callable[[], Awaitable[Client]]) -> bool:
    """Keep a server no longer, and wait until nobody hosts it and the mesh does not know it.

    Args:
        registry: Where it is kept.
        entry: The server.
        reach: Gives the connection to the broker; asked only if no session does the rest.

    Returns:
        Whether that was so in time; a session that is connected later does the rest.

    Raises:
        NotFound: ``unknown_server``: it was removed meanwhile.
        Unavailable: ``mesh_untold``: it is removed, and the broker can't be asked.
        MeshError: the file can't be removed.
    """
    name = entry.wish.name
    if not await anyio.to_thread.run_sync(partial(registry.remove, entry)):
        raise NotFound(
            f"{name} was removed meanwhile.",
            "claudemesh mcp-server list shows what comes back.",
            code="unknown_server",
        )
    try:
        with anyio.move_on_after(ENDED_WITHIN_S):
            while not await _is_over(registry, entry.key, reach):  # noqa: ASYNC110 - a lock tells nobody
                await anyio.sleep(_LOOK_S)
            return True
    except MeshError as error:
        raise Unavailable(
            f"{name} comes back no more, but the mesh could not be told: {error.reason}",
            "The next session that is connected tells it.",
            code="mesh_untold",
        ) from error
    return False


async def _is_over(registry: Registry, key: str, reach: Callable[[], Awaitable[Client]]) -> bool:
    lock = registry.take(key)
    if lock is None:
        return False
    try:
        if key not in registry.left_over():
            return True
        return await forget_left_over(registry, key, await reach())
    finally:
        lock.release()


async def forget_left_over(registry: Registry, key: str, client: Client, spared: str = "") -> bool:
    """Take back what the mesh knows of a server that is kept no more, with its lock held.

    Args:
        registry: Where it was kept.
        key: Its ``Entry.key``.
        client: A connection of any peer of this home.
        spared: A peer whose server of that name is another one by now.

    Returns:
        Whether that is all; a session that is here takes it back itself.

    Raises:
        MeshError: the broker did not answer.
    """
    holder = await anyio.to_thread.run_sync(partial(registry.holder, key))
    peers = {holder.peer, *holder.late} - {spared} if holder else set[str]()
    if await taken_back(client, name_of(key), peers) != peers:
        return False
    await anyio.to_thread.run_sync(partial(registry.forget, key))
    return True


async def taken_back(client: Client, name: str, peers: set[str]) -> set[str]:
    """Take back a server of peers that left; gives those that offer it no more."""
    done = set[str]()
    for peer in peers:
        try:
            with suppress(NotFound):
                await client.call(UnregisterServer(name=name, peer=peer), _TELL_S)
        except Conflict:
            continue
        done.add(peer)
    return done
