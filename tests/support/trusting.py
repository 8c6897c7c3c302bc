"""What a home believes that has verified a hand-made log."""

from pathlib import Path

from claudemesh_mcp.trust import Trust
from claudemesh_wire.membership import Chain, Head
from tests.wire.world import MESH, Log


def believing(folder: Path, log: Log) -> Trust:
    """Open what a home believes that has verified this log."""
    trust = Trust(folder, Chain(MESH))
    trust.extend(log.blobs)
    return trust


def head_of(log: Log) -> Head:
    """Give where a log ends."""
    return log.chain.head
