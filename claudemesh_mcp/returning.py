"""Says hello, and before it comes back from a removal that has had its end.

``attachment.py`` greets through it. A member that was removed until some moment signs its own
return when that has come; the broker and every other member see in the log that it was due.
"""

import anyio.to_thread

from claudemesh_mcp.client import Client, Credentials
from claudemesh_mcp.peer import Peer
from claudemesh_mcp.results import rfc3339
from claudemesh_wire.entries import Entry, EntryFields, EntryKind
from claudemesh_wire.errors import Forbidden, MeshError
from claudemesh_wire.handshake import Facts
from claudemesh_wire.keys import b64, unb64
from claudemesh_wire.meshes import Return


async def greet(client: Client, peer: Peer, credentials: Credentials) -> tuple[Facts, list[bytes]]:
    """Shake hands; a member whose time away is over returns first.

    Raises:
        Forbidden: ``member_removed``: it is not to return, or not yet: the hint says when.
        MeshError: as ``Client.greet``.
    """
    try:
        return await client.greet(credentials)
    except Forbidden as error:
        returns_ms = error.details.get("returns_ms")
        if error.code != "member_removed" or not isinstance(returns_ms, int):
            raise
        if peer.now_ms() < returns_ms:
            raise Forbidden(
                error.reason,
                f"It may return at {rfc3339(returns_ms)}, and does so by itself.",
                code="member_removed",
                details={"returns_ms": returns_ms},
            ) from error
        await _return(client, peer, error)
    return await client.greet(credentials)


async def _return(client: Client, peer: Peer, error: MeshError) -> None:
    """Learn of one's removal from the entries that came along, and sign the return behind them."""
    entries = [unb64(entry) for entry in error.details.get("entries", ())]
    await anyio.to_thread.run_sync(peer.trust.extend, entries)
    head = peer.trust.head
    fields = EntryFields(
        mesh=peer.trust.mesh,
        seq=head.seq + 1,
        prev=b64(head.hash),
        at=peer.now_ms(),
        kind=EntryKind.RETURN,
        by=peer.identity.member,
    )
    grown = await client.ask(Return(entry=Entry.issue(fields, peer.identity.key).blob))
    await anyio.to_thread.run_sync(peer.trust.extend, grown.entries)
