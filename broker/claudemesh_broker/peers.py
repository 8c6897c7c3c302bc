"""The rows of peers and their certificates: who arrives, under which handle, until when it stays.

``admission.py``, ``features/presence.py`` and ``upkeep.py`` call it inside their changes. A peer
belongs to its first member for ever; a handle belongs to one peer at a time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

from claudemesh_broker import queues
from claudemesh_broker.sql import Row, Sql
from claudemesh_wire.address import MAX_HANDLE
from claudemesh_wire.certificate import Certificate
from claudemesh_wire.errors import Conflict, Forbidden, NotFound
from claudemesh_wire.handshake import Mode, Session
from claudemesh_wire.presence import Change, Status

PEER_KEPT_MS: Final = 30 * 24 * 3600 * 1000
KEM_KEPT_MS: Final = 8 * 24 * 3600 * 1000
"""So long a peer can open what was sealed to a key that has a successor."""
CERTIFICATE_KEPT_MS: Final = 9 * 24 * 3600 * 1000
"""So long after its end an envelope or receipt that was signed under it may still be on its way."""


@dataclass(frozen=True)
class Arrival:
    """A peer that proved itself in a hello."""

    mode: Mode
    certificate: Certificate
    wishes: Sequence[str]
    session: Session
    version: str
    node: str
    now_ms: int


@dataclass(frozen=True)
class Arrived:
    """What the broker made of an arrival; ``change`` is what the mesh has to hear, if anything."""

    handle: str
    fence: int
    last_seen_ms: int | None
    queued: int
    change: Change | None


def arrive(sql: Sql, arrival: Arrival) -> Arrived:
    """Let a peer in: its row, its handle, its certificate, and for an attach its fence.

    Raises:
        Forbidden: ``peer_taken``: the peer's id belongs to another member.
    """
    said = arrival.certificate.fields
    before = find(sql, said.mesh, said.peer)
    if before is None:
        _insert(sql, arrival)
    elif before["member"] != said.member:
        raise Forbidden(
            "This peer's id belongs to another member.", "Start under a new id.", code="peer_taken"
        )
    put_certificate(sql, arrival.certificate, arrival.now_ms)
    fence: int = before["fence"] if before else 0
    if arrival.mode is Mode.ATTACH:
        fence += 1
        _attach(sql, arrival, fence)
    else:
        sql.execute(
            "UPDATE peers SET last_seen_ms = max(last_seen_ms, ?) WHERE mesh = ? AND peer = ?",
            arrival.now_ms,
            said.mesh,
            said.peer,
        )
    handle = _handle_for(sql, before, arrival)
    change = publish(sql, arrival.certificate) if handle == said.handle else None
    queued, _ = queues.backlog(sql, said.mesh, said.peer)
    return Arrived(handle, fence, before["last_seen_ms"] if before else None, queued, change)


def _handle_for(sql: Sql, before: Row | None, arrival: Arrival) -> str:
    said = arrival.certificate.fields
    if arrival.mode is Mode.CALL and before is not None and before["handle"]:
        # A call takes nothing from the session that is attached.
        return before["handle"]
    wishes = arrival.wishes or [said.handle]
    return take_handle(sql, said.mesh, said.peer, wishes, arrival.now_ms)


def find(sql: Sql, mesh: str, peer: str) -> Row | None:
    """Give a peer's row."""
    return sql.one("SELECT * FROM peers WHERE mesh = ? AND peer = ?", mesh, peer)


def _insert(sql: Sql, arrival: Arrival) -> None:
    said, session = arrival.certificate.fields, arrival.session
    sql.execute(
        "INSERT INTO peers (mesh, peer, member, type, channel, model, host, project, cwd, status,"
        " client_version, first_seen_ms, last_seen_ms, departed_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        said.mesh,
        said.peer,
        said.member,
        session.type,
        session.channel,
        session.model,
        session.host,
        session.project,
        session.cwd,
        Status.IDLE,
        arrival.version,
        arrival.now_ms,
        arrival.now_ms,
        arrival.now_ms,
    )


def _attach(sql: Sql, arrival: Arrival, fence: int) -> None:
    said, session = arrival.certificate.fields, arrival.session
    sql.execute(
        "UPDATE peers SET fence = ?, attached = 1, lease_until_ms = NULL, node = ?, type = ?,"
        " channel = ?, model = ?, host = ?, project = ?, cwd = ?, client_version = ?,"
        " last_seen_ms = ? WHERE mesh = ? AND peer = ?",
        fence,
        arrival.node,
        session.type,
        session.channel,
        session.model,
        session.host,
        session.project,
        session.cwd,
        arrival.version,
        arrival.now_ms,
        said.mesh,
        said.peer,
    )


def take_handle(sql: Sql, mesh: str, peer: str, wishes: Sequence[str], now_ms: int) -> str:
    """Give a peer the handle it has, or the first of its wishes that it may have.

    It keeps the one it has when it wishes for the same as before. When no wish is to be had, the
    first one is numbered: ``ada-2``, ``ada-3``.
    """
    row = find(sql, mesh, peer)
    if row is not None and row["handle"] and wishes[0] in {row["wish"], row["handle"]}:
        return row["handle"]
    return change_handle(sql, mesh, peer, wishes, now_ms)


def change_handle(sql: Sql, mesh: str, peer: str, wishes: Sequence[str], now_ms: int) -> str:
    """Give a peer the first of its wishes that it may have, or the first one numbered.

    A new handle wants a new certificate: until that is published nobody can address the peer.
    """
    row = find(sql, mesh, peer)
    if row is None:
        raise NotFound("This peer is not known any more.", "Connect again.", code="unknown_peer")
    handle = next(one for one in _candidates(wishes) if _is_to_be_had(sql, row, one, now_ms))
    sql.execute(
        "UPDATE peers SET handle = ?, wish = ?, certificate_hash ="
        " CASE WHEN handle = ? THEN certificate_hash END WHERE mesh = ? AND peer = ?",
        handle,
        wishes[0],
        handle,
        mesh,
        peer,
    )
    return handle


def _candidates(wishes: Sequence[str]) -> Iterable[str]:
    yield from wishes
    for number in count(2):
        ending = f"-{number}"
        yield wishes[0][: MAX_HANDLE - len(ending)].rstrip("._-") + ending


def _is_to_be_had(sql: Sql, wisher: Row, handle: str, now_ms: int) -> bool:
    """Tell whether a handle is free, after taking it from an absent peer of the same member."""
    holder = sql.one(
        "SELECT peer, member, attached, lease_until_ms FROM peers WHERE mesh = ? AND handle = ?",
        wisher["mesh"],
        handle,
    )
    if holder is None or holder["peer"] == wisher["peer"]:
        return True
    if holder["member"] != wisher["member"] or is_here(holder, now_ms):
        return False
    sql.execute(
        # Its certificate stays: by its id it can be written to as before.
        "UPDATE peers SET handle = NULL WHERE mesh = ? AND peer = ?",
        wisher["mesh"],
        holder["peer"],
    )
    return True


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


def publish(sql: Sql, certificate: Certificate) -> Change | None:
    """Make a certificate the one that others seal to, unless the peer has a later one.

    Returns:
        What the mesh has to hear: that an attached peer came, or that it changed.

    Raises:
        Conflict: ``wrong_handle``: it does not carry the handle the broker gave.
    """
    said = certificate.fields
    row = sql.one(
        "SELECT p.handle, p.attached, p.departed_ms, c.hash, c.not_before_ms FROM peers AS p"
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
        return Change.JOINED
    return Change.UPDATED if is_news and row["departed_ms"] is None else None


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
        "UPDATE peers SET attached = 0, node = NULL, lease_until_ms = ?, last_seen_ms = ?"
        " WHERE mesh = ? AND peer = ? AND fence = ? AND attached = 1",
        lease_until_ms,
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
    told = sql.execute(
        "UPDATE peers SET departed_ms = ? WHERE mesh = ? AND peer = ? AND departed_ms IS NULL",
        now_ms,
        mesh,
        peer,
    )
    sql.execute(
        "UPDATE peers SET attached = 0, node = NULL, lease_until_ms = NULL,"
        " last_seen_ms = CASE WHEN attached = 1 THEN ? ELSE last_seen_ms END"
        " WHERE mesh = ? AND peer = ?",
        now_ms,
        mesh,
        peer,
    )
    return told > 0


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


def forget(sql: Sql, now_ms: int) -> int:
    """Delete the peers nobody saw for 30 days, and certificates that nothing can name any more."""
    old = sql.all(
        "SELECT mesh, peer FROM peers WHERE attached = 0 AND last_seen_ms < ?",
        now_ms - PEER_KEPT_MS,
    )
    names = [(row["mesh"], row["peer"]) for row in old]
    for table in ("groups", "queues", "peers"):
        sql.many(f"DELETE FROM {table} WHERE mesh = ? AND peer = ?", names)  # noqa: S608 - ours
    sql.execute(
        "DELETE FROM certificates WHERE not_after_ms < ? AND hash NOT IN"
        " (SELECT certificate_hash FROM peers WHERE certificate_hash IS NOT NULL)",
        now_ms - CERTIFICATE_KEPT_MS,
    )
    return len(names)


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
