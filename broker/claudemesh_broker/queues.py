"""The rows of messages on their way: stored once, waiting for each recipient, read again.

``features/messages.py`` and ``delivery.py`` call it inside their changes and queries; how a message
leaves a queue is in ``outcomes.py``. A message is one row, its sealed parts another, and each
recipient has a row that says how far it came.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from claudemesh_broker.sql import Row, Sql
from claudemesh_wire.envelope import Copy, Header, Sealed
from claudemesh_wire.keys import public_hash
from claudemesh_wire.messages import RecipientState
from claudemesh_wire.receipts import ReceiptStatus

MAX_FETCH_BYTES: Final = 512 * 1024
"""So much of what waits fits into one answer."""


@dataclass(frozen=True, slots=True)
class Consignment:
    """A sealed envelope that was looked at and may be stored."""

    sealed: Sealed
    header: Header
    certificate: bytes

    @property
    def size_bytes(self) -> int:
        """How long one reader's copy is."""
        sealed = self.sealed
        return len(sealed.header) + len(sealed.slots) * 32 + len(sealed.body) + 151


@dataclass(frozen=True, slots=True)
class Place:
    """One recipient of a message at the moment it is accepted.

    Args:
        status: ``accepted`` (attached), ``queued``, ``held`` or ``declined`` by the broker.
        reason: Why it is declined.
        node: The broker process that it is attached to, if it is.
    """

    peer: str
    position: int
    status: ReceiptStatus
    reason: str = ""
    node: str | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """One reader's copy of a message that waits for it."""

    seq: int
    envelope: bytes
    queued_ms: int
    certificate_hash: bytes
    certificate: bytes


def find(sql: Sql, mesh: str, sender: str, message: str) -> Row | None:
    """Give the row of a message, by its sender's id for it."""
    return sql.one(
        "SELECT seq, header_hash, accepted_ms, expires_ms FROM messages"
        " WHERE mesh = ? AND sender = ? AND id = ?",
        mesh,
        sender,
        message,
    )


def first_states(sql: Sql, seq: int, accepted_ms: int) -> list[RecipientState]:
    """Give the states that the first answer named, whatever became of the message since."""
    rows = sql.all(
        "SELECT recipient, status, queued_ms, held_ms, declined_receipt FROM deliveries"
        " WHERE seq = ? ORDER BY position",
        seq,
    )
    return [
        RecipientState(
            peer=row["recipient"], status=_first_status(row, accepted_ms), at_ms=accepted_ms
        )
        for row in rows
    ]


def _first_status(row: Row, accepted_ms: int) -> ReceiptStatus:
    if row["status"] == ReceiptStatus.DECLINED and row["declined_receipt"] is None:
        return ReceiptStatus.DECLINED
    if row["held_ms"] is not None:
        return ReceiptStatus.HELD
    at_once = row["queued_ms"] == accepted_ms
    return ReceiptStatus.QUEUED if at_once else ReceiptStatus.ACCEPTED


def put(sql: Sql, sent: Consignment, places: Sequence[Place], now_ms: int) -> int:
    """Store a message with a row for each recipient; gives its number.

    A recipient that is declined gets a row that says so, and nothing that could be delivered.
    """
    header, sealed = sent.header, sent.sealed
    pending = sum(place.status is not ReceiptStatus.DECLINED for place in places)
    seq: int = sql.value(
        "INSERT INTO messages (mesh, sender, id, conversation, header_hash, certificate_hash,"
        " size_bytes, accepted_ms, expires_ms, pending) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " RETURNING seq",
        header.mesh,
        header.sender,
        header.id,
        header.conv,
        sealed.header_hash,
        public_hash(header.cert),
        sent.size_bytes,
        now_ms,
        header.exp,
        pending,
    )
    if pending:
        sql.execute(
            "INSERT INTO envelopes (seq, header, slot_hashes, signature, body)"
            " VALUES (?, ?, ?, ?, ?)",
            seq,
            sealed.header,
            sealed.slot_hashes,
            sealed.signature,
            sealed.body,
        )
    for place in places:
        _put_delivery(sql, seq, sent, place, now_ms)
    return seq


def _put_delivery(sql: Sql, seq: int, sent: Consignment, place: Place, now_ms: int) -> None:
    declined = place.status is ReceiptStatus.DECLINED
    sql.execute(
        "INSERT INTO deliveries (seq, recipient, position, status, queued_ms, held_ms, declined_ms,"
        " reason, slot) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        seq,
        place.peer,
        place.position,
        ReceiptStatus.DECLINED if declined else ReceiptStatus.QUEUED,
        now_ms if place.status is ReceiptStatus.QUEUED else None,
        now_ms if place.status is ReceiptStatus.HELD else None,
        now_ms if declined else None,
        place.reason or None,
        None if declined else sent.sealed.slots[place.position],
    )
    if declined:
        return
    sql.execute(
        "INSERT INTO queues (mesh, peer, messages, bytes) VALUES (?, ?, 1, ?)"
        " ON CONFLICT (mesh, peer) DO UPDATE SET messages = messages + 1,"
        " bytes = bytes + excluded.bytes",
        sent.header.mesh,
        place.peer,
        sent.size_bytes,
    )


def held_of(sql: Sql, mesh: str, peer: str, member: str) -> tuple[int, int]:
    """Give how many messages, and bytes, of a member wait for a peer and are held."""
    row = sql.one(
        "SELECT count(*) AS messages, coalesce(sum(m.size_bytes), 0) AS bytes"
        # By name: to the planner, which has no statistics, all that waits is as good.
        " FROM deliveries AS d INDEXED BY deliveries_held CROSS JOIN messages AS m ON m.seq = d.seq"
        " CROSS JOIN peers AS p ON p.mesh = m.mesh AND p.peer = m.sender"
        " WHERE d.recipient = ? AND d.status = 'queued' AND d.held_ms IS NOT NULL"
        " AND m.mesh = ? AND p.member = ?",
        peer,
        mesh,
        member,
    )
    return (row["messages"], row["bytes"]) if row else (0, 0)


def mark_queued(sql: Sql, mesh: str, peer: str, now_ms: int) -> None:
    """Note that what was accepted for an attached recipient now waits for its return.

    Never at the millisecond of its acceptance: that is how the first answer said ``queued``.
    """
    sql.execute(
        "UPDATE deliveries SET queued_ms = max(?, m.accepted_ms + 1) FROM messages AS m"
        " WHERE m.seq = deliveries.seq AND m.mesh = ? AND deliveries.recipient = ?"
        " AND deliveries.status = 'queued' AND deliveries.queued_ms IS NULL",
        now_ms,
        mesh,
        peer,
    )


def waiting(
    sql: Sql, mesh: str, peer: str, after: int, bounds: tuple[int, int]
) -> tuple[list[Waiting], bool]:
    """Give what waits for a peer behind a row, oldest first.

    Args:
        sql: The query's.
        mesh: The peer's mesh.
        peer: The recipient.
        after: The last row it was given.
        bounds: How many messages and how many bytes at most; one message is always given.

    Returns:
        The copies, and whether more wait behind them.
    """
    most, _ = bounds
    rows = sql.all(
        "SELECT d.seq, d.slot, m.size_bytes, m.accepted_ms, m.certificate_hash"
        " FROM deliveries AS d JOIN messages AS m ON m.seq = d.seq"
        " JOIN envelopes AS e ON e.seq = d.seq"
        " WHERE d.recipient = ? AND d.status = 'queued' AND d.seq > ? AND m.mesh = ?"
        " AND d.heir IS NULL ORDER BY d.seq LIMIT ?",
        peer,
        after,
        mesh,
        most + 1,
    )
    return copies(sql, rows, bounds)


def copies(sql: Sql, rows: Sequence[Row], bounds: tuple[int, int]) -> tuple[list[Waiting], bool]:
    """Read the copies behind rows of deliveries, as far as bounds allow.

    Args:
        sql: The query's.
        rows: One more than is wanted at most, so that it shows whether there are more.
        bounds: As ``waiting`` takes them.

    Returns:
        The copies, and whether there are more rows behind them.
    """
    most, most_bytes = bounds
    chosen: list[Waiting] = []
    certificates: dict[bytes, bytes] = {}
    for row in rows[:most]:
        most_bytes -= row["size_bytes"]
        if chosen and most_bytes < 0:
            break
        chosen.append(_copy(sql, row, certificates))
    return chosen, len(chosen) < len(rows)


def _copy(sql: Sql, row: Row, certificates: dict[bytes, bytes]) -> Waiting:
    name: bytes = row["certificate_hash"]
    if name not in certificates:
        blob = sql.value("SELECT blob FROM certificates WHERE hash = ?", name)
        certificates[name] = blob or b""
    (parts,) = sql.all(
        "SELECT header, slot_hashes, body, signature FROM envelopes WHERE seq = ?", row["seq"]
    )
    copy = Copy(
        parts["header"], parts["slot_hashes"], row["slot"], parts["body"], parts["signature"]
    )
    return Waiting(row["seq"], copy.to_bytes(), row["accepted_ms"], name, certificates[name])


def backlog(sql: Sql, mesh: str, peer: str) -> tuple[int, int]:
    """Give how many messages, and bytes, wait for a peer."""
    row = sql.one("SELECT messages, bytes FROM queues WHERE mesh = ? AND peer = ?", mesh, peer)
    return (row["messages"], row["bytes"]) if row else (0, 0)
