"""Says hello, and does what a refusal asks for: puts the clock right, comes back from a removal.

``attachment.py`` greets through it. A member that was removed until some moment signs its own
return when that has come; the broker and every other member see in the log that it was due.
"""

from dataclasses import replace

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
    """Shake hands, again when the first was refused for a reason that can be mended.

    Raises:
        Forbidden: ``member_removed``: it is not to return, or not yet: the hint says when.
        MeshError: as ``Client.greet``.
    """
    try:
        return await client.greet(credentials)
    except MeshError as error:
        if error.code != "member_removed":
            return await client.greet(_corrected(peer, credentials, error))
        await _return(client, peer, credentials.broker, error)
    try:
        return await client.greet(credentials)
    except MeshError as error:
        # A removed member hears of nothing else first.
        return await client.greet(_corrected(peer, credentials, error))


def _corrected(peer: Peer, credentials: Credentials, error: MeshError) -> Credentials:
    """Put the clock right: by one that is far off, the certificate is of another day."""
    broker_ms = error.details.get("now_ms")
    if error.code != "certificate_expired" or not isinstance(broker_ms, int):
        raise error
    peer.set_clock(broker_ms)
    handle = credentials.certificate.fields.handle
    return replace(credentials, certificate=peer.renew(handle))


async def _return(client: Client, peer: Peer, broker: str, error: MeshError) -> None:
    """Learn of one's removal from the entries that came along, and sign the return behind them."""
    returns_ms = error.details.get("returns_ms")
    if not isinstance(returns_ms, int):
        raise error
    # What counts is the broker's clock, and it has not yet put right a wrong one here.
    peer.set_clock((await client.meet(broker)).now_ms)
    if peer.now_ms() < returns_ms:
        raise Forbidden(
            error.reason,
            f"It may return at {rfc3339(returns_ms)}, and does so by itself.",
            code="member_removed",
            details={"returns_ms": returns_ms},
        ) from error
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
    before = peer.own_name()
    grown = await client.ask(Return(entry=Entry.issue(fields, peer.identity.key).blob))
    await anyio.to_thread.run_sync(peer.trust.extend, grown.entries)
    if (now := peer.own_name()) != before:
        peer.note("name_taken", f"Another member is called {before} by now; this one is {now}.")
