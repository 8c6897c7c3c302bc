"""Brings the membership that a home has verified up to the one that its broker shows.

``attachment.py`` calls it at each connect, ``sending.py`` and ``receiving.py`` when an answer or an
envelope speaks of entries that are not known here; ``trust.py`` verifies and keeps them.
"""

import anyio.to_thread

from claudemesh_mcp.client import Client
from claudemesh_mcp.peer import Peer
from claudemesh_wire.errors import MeshError, Unavailable
from claudemesh_wire.meshes import ReadLog


async def catch_up(peer: Peer, client: Client, seq: int, head: bytes, least: int = 0) -> None:
    """Fetch and verify membership entries until the broker's head is reached.

    Args:
        peer: Whose home it is.
        client: A connection to the broker.
        seq: How many entries the broker says there are.
        head: The hash of the last of them.
        least: How many it has to know, because it was told of them.

    Raises:
        Conflict: ``membership_rollback``: the broker shows a shorter or another history.
        MeshError: an entry was refused by the walk.
    """
    try:
        while peer.trust.check_head(seq, head, least):
            got = await client.call(ReadLog(after_seq=peer.trust.head.seq))
            before = peer.trust.head.seq
            await anyio.to_thread.run_sync(peer.trust.extend, got.entries)
            if peer.trust.head.seq == before:
                raise Unavailable(
                    "The broker did not send the membership log it speaks of.",
                    "Try again; if it goes on, do not rely on this broker.",
                )
    except MeshError as error:
        if error.code.startswith("membership"):
            peer.detect(error)
        raise
