"""Publishes the certificate of a peer, and renews it on a connection that lasts.

``attachment.py`` runs ``renew`` beside each connection; ``shown_mesh.py`` certifies a new handle.
"""

from contextlib import suppress
from typing import Final

import anyio

from claudemesh_mcp.client import Client
from claudemesh_mcp.peer import Peer
from claudemesh_wire.errors import MeshError
from claudemesh_wire.presence import Certify

RENEW_BEFORE_MS: Final = 12 * 3600 * 1000
_RENEW_CHECK_S: Final = 600


async def certify(peer: Peer, client: Client, handle: str) -> None:
    """Publish a certificate and use it from then on.

    In that order: what is signed under a certificate that the broker lacks is believed by nobody.
    """
    certificate = peer.issue(handle)
    await client.call(Certify(certificate=certificate.blob))
    peer.certificate, peer.handle = certificate, handle


async def renew(peer: Peer, client: Client) -> None:
    """Renew the certificate before it is over, and the keys as they age, until cancelled."""
    while True:
        await anyio.sleep(_RENEW_CHECK_S)
        left_ms = peer.certified().fields.not_after - peer.now_ms()
        if left_ms < RENEW_BEFORE_MS:
            with suppress(MeshError):
                await peer.renew_keys()
                await certify(peer, client, peer.handle)
