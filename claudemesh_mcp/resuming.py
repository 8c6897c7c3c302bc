"""Finds the peer that a Claude session was before, or says that it has to be another one.

``peer.py`` asks when it opens a peer. A session's id leads to its peer by the alias that the server
and the SessionStart hook keep (``routes/records.py``), else by the id alone. Who goes on with a
session that another client still has is somebody else: a fork.
"""

import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from claudemesh_mcp.ancestors import client_pid
from claudemesh_mcp.home import Home, try_lock
from claudemesh_mcp.identity import Identity, read_device
from claudemesh_mcp.routes import records
from claudemesh_wire.errors import MeshError

LOCK: Final = "attached.lock"
ALIAS_KEPT_S: Final = 60 * 24 * 3600
"""A peer that was not seen for half of that is archived."""
_LONGEST_NAME: Final = 64


def claude_anchor(identity: Identity, session: str, *, may_fork: bool) -> str:
    """Give the anchor of the peer that a Claude session is.

    Args:
        identity: Whose peer it is.
        session: The id of the session.
        may_fork: Whether it is to be present itself, and not one that only asks beside it.
    """
    anchor = _aliased(identity, session) or f"claude:{session}"
    if may_fork and _is_anothers(identity.home, identity.peer(anchor), session):
        return f"fork:{session}:{secrets.token_hex(16)}"
    return anchor


def forget_unused(data: Path, now_s: float) -> None:
    """Remove the aliases of sessions that nobody has gone on with for long, nor with their peers.

    Without its alias a session's id still leads to the peer that it began as; a peer's file and
    keys stay.
    """
    sessions = data / "sessions"
    for alias in [*Path(records.aliases(data)).glob("*")]:
        with suppress(OSError, ValueError):
            if now_s - alias.stat().st_mtime < ALIAS_KEPT_S:
                continue
            # Changed as long as the peer is in use, however long ago its session began.
            peer = sessions / alias.read_text("ascii", "replace").strip()[:_LONGEST_NAME]
            used = [_changed_s(peer / name) for name in ("peer.db", "peer.db-wal")]
            if now_s - max(used) >= ALIAS_KEPT_S:
                alias.unlink()


def _changed_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _aliased(identity: Identity, session: str) -> str | None:
    """Give the peer of the alias, if this home has its keys in this mesh."""
    peer = records.peer_of(identity.home.data, session, identity.mesh)
    try:
        known = read_device(identity, peer) if peer else None
    except MeshError:
        # Of another mesh, perhaps: an earlier version had one alias for all of a session's.
        return None
    return peer if known is not None else None


def _is_anothers(home: Home, peer: str, session: str) -> bool:
    """Tell whether a peer is the session of another living client than the one that started us.

    A server that its client has given up needs a moment to end: it is replaced, as one that the
    same client starts anew.
    """
    record = records.of_peer(home.data, peer)
    return record is not None and record.pid != client_pid(session) and _is_held(home, peer)


def _is_held(home: Home, peer: str) -> bool:
    folder = home.sessions / peer
    if not folder.is_dir():
        return False
    lock = try_lock(folder / LOCK)
    if lock is not None:
        lock.release()
    return lock is None
