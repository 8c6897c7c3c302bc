"""The rows of peers and their certificates: who is here, what is published, when it is gone.

``arrivals.py``, ``features/presence.py`` and ``upkeep.py`` call it inside their changes.
"""

from dataclasses import dataclass
from typing import Final

from claudemesh_broker import queues
from claudemesh_broker.sql import Row, Sql
from claudemesh_broker.tallies import Tally
from claudemesh_wire.certificate import Certificate
from claudemesh_wire.errors import Conflict
from claudemesh_wire.presence import Change, PeerCard

KEM_KEPT_MS: Final = 8 * 24 * 3600 * 1000
"""So long a peer can open what was sealed to a key that has a successor."""


@dataclass(frozen=True)
class News:
    """What a mesh has to hear of a peer.

    Args:
        away_since_ms: When it was here before, if it is back.
        shown: Its card as it was, if it left in the eyes of the others only.
    """

    change: Change
    away_since_ms: int | None = None
    shown: PeerCard | None = None


def find(sql: Sql, mesh: str, peer: str) -> Row | None:
    """Give a peer's row."""
    return sql.one("SELECT * FROM peers WHERE mesh = ? AND peer = ?", mesh, peer)


def is_here(row: Row, now_ms: int) -> bool:
    """Tell whether a peer is attached or in its lease."""
    return bool(row["attached"]) or (row["lease_until_ms"] or 0) > now_ms


def is_shown(sql: Sql, mesh: str, peer: str) -> bool:
    """Tell whether the mesh was told that this peer came, and not yet that it left."""
    row = find(sql, mesh, peer)
    return row is not None and row["departed_ms"] is None


def put_certificate(sql: Sql, certificate: Certificate, now_ms: int) -> None:
    """Keep a verified certificate, for the readers of what is signed under it."""
    said = certificate.fields
    sql.execute(
        "INSERT INTO certificates (hash, mesh, peer, member, blob, kem_generation, not_before_ms,"
        " not_after_ms, published_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        certificate.hash,
        said.mesh,
        said.peer,
        said.member,
        certificate.blob,
        said.kem_generation,
        said.not_before,
        said.not_after,
        now_ms,
    )


def read_certificate(sql: Sql, name: bytes) -> bytes | None:
    """Give a certificate by its hash; what is kept was verified."""
    blob: bytes | None = sql.value("SELECT blob FROM certificates WHERE hash = ?", name)
    return blob


def publish(sql: Sql, certificate: Certificate) -> News | None:
    """Make a certificate the one that others seal to, unless the peer has a later one.

    Returns:
        What the mesh has to hear: that an attached peer came, or that it changed.

    Raises:
        Conflict: ``wrong_handle``: it does not carry the handle the broker gave.
    """
    said = certificate.fields
    row = sql.one(
        "SELECT p.handle, p.attached, p.departed_ms, p.sessions, c.hash, c.not_before_ms"
        " FROM peers AS p"
        " LEFT JOIN certificates AS c ON c.hash = p.certificate_hash"
        " WHERE p.mesh = ? AND p.peer = ?",
        said.mesh,
        said.peer,
    )
    if row is None or row["handle"] != said.handle:
        raise Conflict(
            f"The certificate carries {said.handle}, which is not the handle of this peer.",
            "Sign one for the handle in the welcome.",
            code="wrong_handle",
        )
    is_later = (row["not_before_ms"] or 0) <= said.not_before
    is_news = row["hash"] != certificate.hash and is_later
    if is_news:
        sql.execute(
            "UPDATE peers SET certificate_hash = ?, kem_generation = ? WHERE mesh = ? AND peer = ?",
            certificate.hash,
            said.kem_generation,
            said.mesh,
            said.peer,
        )
    if row["attached"] and row["departed_ms"] is not None:
        sql.execute(
            "UPDATE peers SET departed_ms = NULL WHERE mesh = ? AND peer = ?", said.mesh, said.peer
        )
        return News(Change.JOINED, row["departed_ms"] if row["sessions"] > 1 else None)
    return News(Change.UPDATED) if is_news and row["departed_ms"] is None else None


def detach(sql: Sql, mesh: str, peer: str, fence: int, times: tuple[int, int]) -> bool:
    """Note that a peer's socket is gone and its lease runs.

    Args:
        sql: The change's.
        mesh: The peer's mesh.
        peer: The peer.
        fence: The attach that ended; a later one is left alone.
        times: Now, and when the lease ends.

    Returns:
        Whether this attach was still the peer's.
    """
    now_ms, lease_until_ms = times
    changed = sql.execute(
        "UPDATE peers SET attached = 0, node = NULL, lease_until_ms = ?, last_seen_ms = ?,"
        " online_ms = online_ms + max(0, ? - coalesce(attached_ms, ?)), attached_ms = NULL"
        " WHERE mesh = ? AND peer = ? AND fence = ? AND attached = 1",
        lease_until_ms,
        now_ms,
        now_ms,
        now_ms,
        mesh,
        peer,
        fence,
    )
    if changed:
        queues.mark_queued(sql, mesh, peer, now_ms)
    return changed > 0


def depart(sql: Sql, mesh: str, peer: str, now_ms: int) -> bool:
    """End a peer's lease for good; gives whether the mesh has to hear that it left."""
    queues.mark_queued(sql, mesh, peer, now_ms)
    sql.execute(
        "UPDATE peers SET last_seen_ms = ?,"
        " online_ms = online_ms + max(0, ? - coalesce(attached_ms, ?)), attached_ms = NULL"
        " WHERE mesh = ? AND peer = ? AND attached = 1",
        now_ms,
        now_ms,
        now_ms,
        mesh,
        peer,
    )
    sql.execute(
        "UPDATE peers SET attached = 0, node = NULL, lease_until_ms = NULL"
        " WHERE mesh = ? AND peer = ?",
        mesh,
        peer,
    )
    told = sql.execute(
        "UPDATE peers SET departed_ms = last_seen_ms"
        " WHERE mesh = ? AND peer = ? AND departed_ms IS NULL",
        mesh,
        peer,
    )
    return told > 0


def count(sql: Sql, mesh: str, peer: str, tally: Tally) -> None:
    """Add to a peer's statistics what it did in a connection; to its heir's, if it has one."""
    if tally.sent or tally.received:
        sql.execute(
            "UPDATE peers SET sent = sent + ?, received = received + ? WHERE mesh = ? AND peer ="
            " (SELECT CASE WHEN returned THEN peer ELSE coalesce(successor, peer) END"
            " FROM peers WHERE mesh = ? AND peer = ?)",
            tally.sent,
            tally.received,
            mesh,
            mesh,
            peer,
        )


def forget_stays(sql: Sql, node: str) -> None:
    """Count nothing for stays that a broker left open: nobody knows when they ended."""
    sql.execute("UPDATE peers SET attached_ms = NULL WHERE attached = 1 AND node = ?", node)


def attached(sql: Sql, node: str) -> list[tuple[str, str, int]]:
    """Give (mesh, peer, fence) of all that the store holds for attached to a node."""
    rows = sql.all("SELECT mesh, peer, fence FROM peers WHERE attached = 1 AND node = ?", node)
    return [(row["mesh"], row["peer"], row["fence"]) for row in rows]


def end_lease(sql: Sql, mesh: str, peer: str, now_ms: int) -> bool:
    """See a peer off whose lease has run out; gives whether the mesh has to hear of it."""
    row = find(sql, mesh, peer)
    if row is None or row["attached"] or (row["lease_until_ms"] or now_ms + 1) > now_ms:
        return False
    return depart(sql, mesh, peer, now_ms)


def can_open(sql: Sql, row: Row, generation: int, now_ms: int) -> bool:
    """Tell whether a peer still has the key of this generation.

    Args:
        sql: The query's.
        row: The peer's mesh, id and newest kem_generation.
        generation: What was sealed to.
        now_ms: The broker's time.
    """
    newest: int | None = row["kem_generation"]
    if newest is None or generation > newest:
        return False
    if generation == newest:
        return True
    superseded: int | None = sql.value(
        "SELECT min(published_ms) FROM certificates"
        " WHERE mesh = ? AND peer = ? AND kem_generation > ?",
        row["mesh"],
        row["peer"],
        generation,
    )
    return superseded is not None and now_ms - superseded < KEM_KEPT_MS
