"""What a home believes that has verified a hand-made log."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from claudemesh_mcp.config import Settings
from claudemesh_mcp.home import Home
from claudemesh_mcp.identity import Identity, open_device
from claudemesh_mcp.peer import Peer, Setup
from claudemesh_mcp.peerfile import PeerFile
from claudemesh_mcp.sealedfile import WrappingKey
from claudemesh_mcp.trust import Trust
from claudemesh_wire.handshake import Session
from claudemesh_wire.membership import Chain, Head
from tests.wire.world import ADA, MESH, NOW, Log


def believing(folder: Path, log: Log) -> Trust:
    """Open what a home believes that has verified this log."""
    trust = Trust(folder, Chain(MESH))
    trust.extend(log.blobs)
    return trust


def head_of(log: Log) -> Head:
    """Give where a log ends."""
    return log.chain.head


@asynccontextmanager
async def a_peer(folder: Path, log: Log) -> AsyncGenerator[Peer]:
    """Open ada's peer in a home of its own, which has verified this log."""
    settings = Settings(home=folder, keyring=False)
    home = Home.open(settings.paths())
    wrapping = WrappingKey(bytes(32), "prof_ada", "file")
    identity = Identity(home, wrapping, ADA.key, "ada", MESH, log.blobs[0], bytes(32))
    device = open_device(identity, "resume:ada", NOW)
    trust = Trust.open(identity)
    trust.extend(log.blobs)
    setup = Setup(settings, "resume:ada", Session(), ("ada",), lambda: NOW)
    file = await PeerFile.open(identity.folder(device.peer) / "peer.db")
    try:
        yield Peer(setup, device, trust, file)
    finally:
        await file.close()
