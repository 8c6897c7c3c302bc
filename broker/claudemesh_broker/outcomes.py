"""How messages leave the queues: taken and acked, declined, expired; and when they are forgotten.

``features/receipts.py`` and ``upkeep.py`` call it inside their changes; ``queues.py`` put the rows
there. What a recipient signed is kept once per signature, however many messages it covers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from claudemesh_broker.sql import Row, Sql
from claudemesh_wire.envelope import MAX_TTL_MS
from claudemesh_wire.receipts import ReceiptItem, ReceiptStatus, SignedReceipts

MESSAGE_KEPT_MS: Final = 24 * 3600 * 1000
"""So long after it expired the id of a message is remembered."""

_TAKEN: Final = {
    ReceiptStatus.DELIVERED,
    ReceiptStatus.SEEN,
    ReceiptStatus.WITHHELD,
    ReceiptStatus.DECLINED,
}
_LATER: Final = {
    ReceiptStatus.QUEUED: {ReceiptStatus.HELD, *_TAKEN},
    # The recipient has it, apart from what it shows: it does not expire, and may be released.
    ReceiptStatus.HELD: _TAKEN,
    # The recipient's signed word outweighs the broker's: it had the message before it expired.
    ReceiptStatus.EXPIRED: {ReceiptStatus.HELD, *_TAKEN},
    # Before anybody is shown it, its reader may still take back the sender's right.
    ReceiptStatus.DELIVERED: {ReceiptStatus.HELD, *_TAKEN} - {ReceiptStatus.DELIVERED},
    ReceiptStatus.SEEN: set[ReceiptStatus](),
    # It may have been offered before, and the evidence of that comes late.
    ReceiptStatus.WITHHELD: {ReceiptStatus.SEEN},
    ReceiptStatus.DECLINED: set[ReceiptStatus](),
}
_RECORD: Final = {
    ReceiptStatus.HELD: "held_receipt = ?",
    ReceiptStatus.DELIVERED: "delivered_receipt = ?, delivered_ms = ?",
    ReceiptStatus.SEEN: "seen_receipt = ?, seen_ms = ?",
    ReceiptStatus.WITHHELD: "withheld_receipt = ?, withheld_ms = ?",
    ReceiptStatus.DECLINED: "declined_receipt = ?, declined_ms = ?",
}


@dataclass(frozen=True, slots=True)
class Expired:
    """A message that nobody took in time, and whose it was."""

    seq: int
    mesh: str
    sender: str
    id: str
    recipient: str
    expires_ms: int


@dataclass(frozen=True, slots=True)
class TakenReceipts:
    """What a batch of receipts brought.

    Args:
        news: How many items were news.
        rows: The rows that thereby left a queue; one message may have left two.
        received: How many messages the recipient has, of those that left.
    """

    news: int
    rows: list[int]
    received: int


def take_receipts(sql: Sql, mesh: str, batch: SignedReceipts, now_ms: int) -> TakenReceipts:
    """Record what a recipient signed, as far as it is news."""
    receipt: int | None = None
    received = set[int]()
    news, taken = 0, list[Row]()
    for item, row in _reported(sql, mesh, batch):
        if receipt is None:
            receipt = _put_receipt(sql, mesh, batch, now_ms)
        sql.execute(
            f"UPDATE deliveries SET {_RECORD[item.status]}, status = ?, route = ?, reason = ?,"  # noqa: S608 - names from a table above
            " slot = NULL WHERE seq = ? AND recipient = ?",
            receipt,
            # The time of a signed held is in the receipt: held_ms is the broker's own word.
            *(() if item.status is ReceiptStatus.HELD else (item.at_ms,)),
            item.status,
            item.route or None,
            item.reason or None,
            row["seq"],
            row["recipient"],
        )
        news += 1
        if row["status"] == ReceiptStatus.QUEUED:
            taken.append(row)
            if item.status is not ReceiptStatus.DECLINED:
                received.add(row["seq"])
    for recipient in dict.fromkeys(row["recipient"] for row in taken):
        left = [row for row in taken if row["recipient"] == recipient]
        _leave_queue(sql, mesh, recipient, left)
    return TakenReceipts(news, [row["seq"] for row in taken], len(received))


_DELIVERY: Final = (
    "SELECT m.seq, m.size_bytes, m.header_hash, d.status, d.recipient, d.delivered_ms"
    " FROM messages AS m"
)
_OWN: Final = (
    f"{_DELIVERY} JOIN deliveries AS d ON d.seq = m.seq AND d.recipient = ?"
    " WHERE m.mesh = ? AND m.sender = ? AND m.id = ?"
)
_PREDECESSORS: Final = (
    "SELECT EXISTS (SELECT 1 FROM deliveries WHERE heir = ?) AS entrusted, (SELECT"
    " json_group_array(peer) FROM peers WHERE mesh = ? AND successor = ? AND NOT returned) AS ended"
)
# What waited was entrusted. What an ended peer has had, or missed, is its heir's until it is back.
_INHERITED: Final = (
    f"{_DELIVERY} JOIN deliveries AS d ON d.seq = m.seq AND (d.heir = ?"  # noqa: S608 - a constant
    " OR (d.heir IS NULL AND d.status IN ('held', 'delivered', 'withheld', 'expired')"
    " AND d.recipient IN (SELECT value FROM json_each(?))))"
    " WHERE m.mesh = ? AND m.sender = ? AND m.id = ?"
)


def _reported(sql: Sql, mesh: str, batch: SignedReceipts) -> Iterable[tuple[ReceiptItem, Row]]:
    """Give what receipts bring news of: the signer's own rows, and those it has inherited.

    Whose word it is shows in the batch's recipient.
    """
    signer = batch.recipient
    (heir,) = sql.all(_PREDECESSORS, signer, mesh, signer)
    is_heir = heir["entrusted"] or heir["ended"] != "[]"
    for item in batch.items:
        asked = (mesh, batch.sender, item.id)
        rows = sql.all(_OWN, signer, *asked)
        if is_heir:
            rows += sql.all(_INHERITED, signer, heir["ended"], *asked)
        for row in rows:
            is_meant = row["header_hash"] == item.header_hash
            if is_meant and item.status in _LATER[row["status"]] and not _is_stale(item, row):
                yield item, row


def _is_stale(item: ReceiptItem, row: Row) -> bool:
    """Tell whether something newer was said of holding it back, or of letting it through."""
    kinds = {ReceiptStatus.HELD, ReceiptStatus.DELIVERED}
    is_back = item.status in kinds and row["status"] in kinds
    return is_back and item.at_ms <= (row["delivered_ms"] or 0)


def _put_receipt(sql: Sql, mesh: str, batch: SignedReceipts, now_ms: int) -> int:
    number: int = sql.value(
        "INSERT INTO receipts (mesh, peer, made_ms, blob) VALUES (?, ?, ?, ?) RETURNING receipt",
        mesh,
        batch.recipient,
        now_ms,
        batch.model_dump_json(exclude_defaults=True).encode(),
    )
    return number


def _leave_queue(sql: Sql, mesh: str, peer: str, rows: Sequence[Row]) -> None:
    """Take rows off a recipient's queue, and the bodies with them that nobody else waits for."""
    if not rows:
        return
    sql.execute(
        "UPDATE queues SET messages = messages - ?, bytes = bytes - ? WHERE mesh = ? AND peer = ?",
        len(rows),
        sum(row["size_bytes"] for row in rows),
        mesh,
        peer,
    )
    for row in rows:
        left = sql.value(
            "UPDATE messages SET pending = pending - 1 WHERE seq = ? RETURNING pending", row["seq"]
        )
        if left == 0:
            sql.execute("DELETE FROM envelopes WHERE seq = ?", row["seq"])


def receipts_of(sql: Sql, seq: int) -> list[Row]:
    """Give all that is known of a message, one row per recipient in the sender's order."""
    return sql.all(
        "SELECT d.*, p.handle, p.certificate_hash, held.blob AS held,"
        " delivered.blob AS delivered, seen.blob AS seen, withheld.blob AS withheld,"
        " declined.blob AS declined"
        " FROM deliveries AS d JOIN messages AS m ON m.seq = d.seq"
        " LEFT JOIN peers AS p ON p.mesh = m.mesh AND p.peer = d.recipient"
        " LEFT JOIN receipts AS held ON held.receipt = d.held_receipt"
        " LEFT JOIN receipts AS delivered ON delivered.receipt = d.delivered_receipt"
        " LEFT JOIN receipts AS seen ON seen.receipt = d.seen_receipt"
        " LEFT JOIN receipts AS withheld ON withheld.receipt = d.withheld_receipt"
        " LEFT JOIN receipts AS declined ON declined.receipt = d.declined_receipt"
        " WHERE d.seq = ? ORDER BY d.position",
        seq,
    )


def expire(sql: Sql, now_ms: int, most: int) -> list[Expired]:
    """Take off the queues what nobody took in time, and say whose it was."""
    rows = sql.all(
        "SELECT m.seq, m.mesh, m.sender, m.id, m.size_bytes, m.expires_ms, d.recipient"
        " FROM messages AS m JOIN deliveries AS d ON d.seq = m.seq"
        " WHERE m.pending > 0 AND m.expires_ms <= ? AND d.status = 'queued'"
        " ORDER BY m.expires_ms LIMIT ?",
        now_ms,
        most,
    )
    for row in rows:
        sql.execute(
            "UPDATE deliveries SET status = 'expired', slot = NULL WHERE seq = ? AND recipient = ?",
            row["seq"],
            row["recipient"],
        )
        _leave_queue(sql, row["mesh"], row["recipient"], [row])
    return [
        Expired(
            row["seq"],
            row["mesh"],
            row["sender"],
            row["id"],
            row["recipient"],
            row["expires_ms"],
        )
        for row in rows
    ]


def next_expiry_ms(sql: Sql) -> int | None:
    """Give when the next waiting message expires."""
    found: int | None = sql.value("SELECT min(expires_ms) FROM messages WHERE pending > 0")
    return found


def forget(sql: Sql, now_ms: int, most: int) -> int:
    """Delete the oldest messages whose ids need not be remembered; gives how many rows went."""
    old = sql.all(
        "SELECT seq FROM (SELECT seq, expires_ms, pending FROM messages ORDER BY seq LIMIT ?)"
        " WHERE expires_ms < ? AND pending = 0",
        most,
        now_ms - MESSAGE_KEPT_MS,
    )
    numbers = [(row["seq"],) for row in old]
    sql.many("DELETE FROM deliveries WHERE seq = ?", numbers)
    sql.many("DELETE FROM messages WHERE seq = ?", numbers)
    oldest = now_ms - MAX_TTL_MS - 2 * MESSAGE_KEPT_MS
    receipts = sql.execute(
        "DELETE FROM receipts WHERE receipt IN"
        " (SELECT receipt FROM (SELECT receipt, made_ms FROM receipts ORDER BY receipt LIMIT ?)"
        " WHERE made_ms < ?)",
        most,
        oldest,
    )
    return len(numbers) + receipts
