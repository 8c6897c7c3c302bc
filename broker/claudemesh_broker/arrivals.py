"""Lets a peer into the tables: its row, its certificate, its handle, and what it takes over.

``admission.py`` calls it inside the change of a hello. A peer belongs to its first member for ever.
A new session may be the heir of one that ended: ``heirs.py`` says of which.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from claudemesh_broker import handles, heirs, peers
from claudemesh_broker.handles import Taken
from claudemesh_broker.peers import News
from claudemesh_broker.sql import Row, Sql
from claudemesh_wire.certificate import Certificate
from claudemesh_wire.errors import Forbidden
from claudemesh_wire.handshake import Mode, Session
from claudemesh_wire.presence import Status


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
    """What the broker made of an arrival.

    Args:
        last_seen_ms: When it, or the one it took over from, was here before.
        succeeds: Peers whose keys and files it has to look after, the latest.
        news: What the mesh has to hear, if anything.
    """

    handle: str
    fence: int
    last_seen_ms: int | None
    queued: int
    succeeds: Sequence[str]
    news: News | None


def arrive(sql: Sql, arrival: Arrival) -> Arrived:
    """Let a peer in: its row, its handle, its certificate, and for an attach its fence.

    Raises:
        Forbidden: ``peer_taken``: the peer's id belongs to another member.
    """
    said = arrival.certificate.fields
    before = peers.find(sql, said.mesh, said.peer)
    if before is None:
        _insert(sql, arrival)
    elif before["member"] != said.member:
        raise Forbidden(
            "This peer's id belongs to another member.", "Start under a new id.", code="peer_taken"
        )
    peers.put_certificate(sql, arrival.certificate, arrival.now_ms)
    taken = _handle_for(sql, before, arrival)
    late = taken.late if taken.late and _succeeds(before, taken.late, arrival) else None
    if late is not None:
        heirs.succeed(sql, late, said.peer)
    known = late or before
    fence: int = before["fence"] if before else 0
    if arrival.mode is Mode.ATTACH:
        fence += 1
        heirs.come_back(sql, said.mesh, said.peer)
        _attach(sql, arrival, fence)
    else:
        _touch(sql, arrival)
    is_certified = taken.handle == said.handle
    return Arrived(
        handle=taken.handle,
        fence=fence,
        last_seen_ms=known["last_seen_ms"] if known else None,
        queued=heirs.backlog(sql, said.mesh, said.peer),
        succeeds=heirs.succeeded_by(sql, said.mesh, said.peer),
        news=peers.publish(sql, arrival.certificate) if is_certified else None,
    )


def _succeeds(before: Row | None, late: Row, arrival: Arrival) -> bool:
    """Tell whether a peer takes more than the handle from the absent one that had it.

    A new session does; so does one that is back and had been succeeded itself, when its heir is
    gone by now. One that merely wishes for another name does not.
    """
    is_new = before is None or (before["successor"] is not None and not before["returned"])
    heir = (arrival.certificate.fields.member, arrival.session)
    return is_new and arrival.mode is Mode.ATTACH and heirs.may_succeed(*heir, late)


def _handle_for(sql: Sql, before: Row | None, arrival: Arrival) -> Taken:
    said = arrival.certificate.fields
    if arrival.mode is Mode.CALL and before is not None and before["handle"]:
        # A call takes nothing from the session that is attached.
        return Taken(before["handle"])
    wishes = arrival.wishes or [said.handle]
    return handles.take(sql, said.mesh, said.peer, wishes, arrival.now_ms)


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
    """Note that a peer is attached; an archived one is back."""
    said, session, now_ms = arrival.certificate.fields, arrival.session, arrival.now_ms
    sql.execute(
        # A return within the lease goes on with the stay that it interrupted.
        "UPDATE peers SET"
        " sessions = sessions + (attached = 0 AND coalesce(lease_until_ms, 0) <= ?),"
        " online_ms = online_ms + (attached = 1) * max(0, ? - coalesce(attached_ms, ?)),"
        " attached_ms = ?, archived_ms = NULL,"
        " fence = ?, attached = 1, lease_until_ms = NULL, node = ?, type = ?,"
        " channel = ?, model = ?, host = ?, project = ?, cwd = ?, client_version = ?,"
        # What reached an earlier process of it is to be found out anew.
        " routes = '', multicast = ?, last_seen_ms = ? WHERE mesh = ? AND peer = ?",
        now_ms,
        now_ms,
        now_ms,
        now_ms,
        fence,
        arrival.node,
        session.type,
        session.channel,
        session.model,
        session.host,
        session.project,
        session.cwd,
        arrival.version,
        session.multicast,
        now_ms,
        said.mesh,
        said.peer,
    )


def _touch(sql: Sql, arrival: Arrival) -> None:
    said = arrival.certificate.fields
    sql.execute(
        "UPDATE peers SET last_seen_ms = max(last_seen_ms, ?), archived_ms = NULL"
        " WHERE mesh = ? AND peer = ?",
        arrival.now_ms,
        said.mesh,
        said.peer,
    )
