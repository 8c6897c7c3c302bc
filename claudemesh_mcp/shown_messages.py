"""Builds answers about messages: from rows of the peer file and the broker's word to results.

``sdk.py`` calls it. A receipt is shown only as far as its recipient's signature proves it.
"""

import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

from claudemesh_mcp import inbox, outbox
from claudemesh_mcp.client import Client
from claudemesh_mcp.hints import hint
from claudemesh_mcp.outbox import Row
from claudemesh_mcp.peer import Peer
from claudemesh_mcp.policy import Policy
from claudemesh_mcp.receiving import Receiving
from claudemesh_mcp.results import (
    InboxMessage,
    InboxResult,
    RecipientStatus,
    SendResult,
    SentTo,
    StatusResult,
    Successor,
    rfc3339,
)
from claudemesh_wire.certificate import Certificate
from claudemesh_wire.content import unpack
from claudemesh_wire.errors import Forbidden, Invalid, MeshError, NotFound
from claudemesh_wire.messages import Fetch
from claudemesh_wire.receipts import (
    SIGNED,
    AskStatus,
    ReceiptItem,
    ReceiptStatus,
    RecipientReceipts,
    SignedReceipts,
)

INLINE_BYTES: Final = 8 * 1024
# The two leading bits of every byte of a character but its first.
_CONTINUATION: Final = 0b1100_0000
_CONTINUES: Final = 0b1000_0000
_MOST_FETCHES: Final = 20
# So few that all their proofs fit into one frame.
_PROOFS_AT_ONCE: Final = 3
_TOLD: Final = frozenset(ReceiptStatus)
_PROVE_NOTHING: Final = frozenset({"revoked", "unproved"})
_LATEST_FIRST: Final = ("seen", "withheld", "declined", "delivered", "held")


class Left(NamedTuple):
    """What is in an inbox besides the rows that are shown."""

    unread: int
    held: int


def sent(peer: Peer, row: Row) -> SendResult:
    """Show what became of a send so far."""
    # As it was kept, which is how the wire's model wrote it: reading it again would prove nothing.
    answer = row.answer if row.state == "accepted" and row.answer else {}
    recipients: list[dict[str, str]] = answer.get("recipients", [])
    told = {one["peer"]: one["status"] for one in recipients}
    states = {peer: status if status in _TOLD else "accepted" for peer, status in told.items()}
    is_e2e = row.draft.is_e2e
    return SendResult(
        id=row.draft.id,
        recipients=[
            SentTo.model_validate(
                {
                    "peer": one.peer,
                    "handle": one.handle,
                    "member": one.member,
                    "status": states.get(one.peer, "pending"),
                    "e2e": is_e2e,
                    "hint": hint(peer, states.get(one.peer), None, is_signed=False),
                }
            )
            for one in row.draft.audience
        ],
    )


def inbox_result(peer: Peer, rows: list[sqlite3.Row], left: Left, offered_now: int) -> InboxResult:
    """Show rows of the inbox and what is left there.

    Args:
        peer: Whose inbox it is.
        rows: What is shown of it.
        left: What is there besides.
        offered_now: How many of each row's offers are this one: 1, or 0 for a look that takes
            nothing. Whoever was offered it before may have shown it.
    """
    messages = inbox_messages(peer, rows, offered_now)
    return InboxResult(messages=messages, unread=left.unread, held=left.held or None)


def inbox_messages(peer: Peer, rows: list[sqlite3.Row], offered_now: int = 1) -> list[InboxMessage]:
    """Show rows of the inbox; long texts begin here and go on with ``chunk``."""
    return [_message(peer, row, 0, again=row["offers"] > offered_now) for row in rows]


async def chunk(policy: Policy, message: str, offset: int) -> InboxResult:
    """Show a part of a message, from a byte offset on; of one's own if none came under its id."""
    peer, now_ms = policy.peer, policy.peer.now_ms()
    # A change of its own: what it holds back stays so, also if it is the very message.
    unread = await peer.file.write(lambda sql: policy.review(sql, now_ms))
    row = await peer.file.read(lambda sql: _find(sql, peer, message))
    if not 0 <= offset <= len(row["text"].encode()):
        raise Invalid("offset is beyond the end of the text.", "Start at 0.", code="bad_offset")
    message_part = _message(peer, row, offset, again=row["offers"] > 1)
    return InboxResult(messages=[message_part], unread=unread)


def _find(sql: sqlite3.Connection, peer: Peer, message: str) -> "sqlite3.Row | dict[str, Any]":
    try:
        return inbox.find_message(sql, message)
    except NotFound:
        own = outbox.find(sql, message)
        if own is None or not own.draft.plaintext:
            raise
    fields, text = unpack(own.draft.plaintext)
    return {
        "id": message,
        "sender": peer.id,
        "handle": peer.handle,
        "member": peer.identity.member,
        "member_name": peer.member.name,
        "text": text,
        "priority": fields.priority,
        "sent_ms": own.created_ms,
        "thread": fields.thread,
        "re": own.draft.re,
        "e2e": own.draft.is_e2e,
        "via": None,
        "stripped": 0,
        "offers": 0,
        "supersedes": fields.supersedes,
        "amends": 1,
        "withheld": None,
    }


def _message(
    peer: Peer, row: "sqlite3.Row | dict[str, Any]", offset: int, *, again: bool
) -> InboxMessage:
    raw = row["text"].encode()
    # A cut through a character is moved back to its beginning, at both ends.
    while 0 < offset < len(raw) and raw[offset] & _CONTINUATION == _CONTINUES:
        offset -= 1
    part = raw[offset : offset + INLINE_BYTES].decode("utf-8", "ignore")
    left = len(raw) - offset - len(part.encode())
    return InboxMessage.model_validate(
        {
            "id": row["id"],
            "from": row["sender"],
            "handle": row["handle"],
            "member": row["member_name"],
            "text": part,
            "priority": row["priority"],
            "sent_at": rfc3339(row["sent_ms"]),
            "thread": row["thread"],
            "reply_to": row["re"],
            "trust": "own" if row["member"] == peer.identity.member else "member",
            "e2e": bool(row["e2e"]),
            "via": row["via"],
            "stripped": row["stripped"] or None,
            "more_bytes": left or None,
            "redelivered": True if again else None,
            # To one who was not shown the earlier message it would say nothing.
            "supersedes": row["supersedes"] if row["amends"] else None,
            "withheld": row["withheld"],
        }
    )


async def fetch(client: Client, receiving: Receiving) -> None:
    """Take in what waits at the broker over a connection that only calls."""
    after = 0
    for _ in range(_MOST_FETCHES):
        got = await client.call(Fetch(after_row=after))
        await receiving.take(client, got.deliveries, got.certificates)
        if not got.more or not got.deliveries:
            break
        after = got.deliveries[-1].row
    await receiving.flush_reports(client)


async def status(peer: Peer, message: str, ready: Callable[[], Awaitable[Client]]) -> StatusResult:
    """Show the receipts of a message one sent; a forged one is an error, not a status."""
    row = await peer.file.read(lambda sql: outbox.get(sql, message))
    if row.state != "accepted":
        reason = str((row.answer or {}).get("code", "")) or None
        return StatusResult(
            id=message,
            recipients=[
                RecipientStatus(
                    peer=one.peer,
                    handle=one.handle,
                    status="pending" if row.is_waiting else "refused",
                    accepted_at=None,
                    reason=reason,
                )
                for one in row.draft.audience
            ],
        )
    told = await _told(peer, await ready(), message)
    try:
        recipients = [_recipient(peer, row, one) for one in told]
    except MeshError as error:
        peer.detect(error)
        raise
    return StatusResult(id=message, recipients=recipients)


async def _told(peer: Peer, client: Client, message: str) -> list[RecipientReceipts]:
    """Ask for the receipts, and again for the proofs that did not fit into one answer."""

    async def ask(only: list[str]) -> dict[str, RecipientReceipts]:
        found = await client.call(AskStatus(id=message, only=only))
        for refused in peer.trust.learn(found.certificates):
            peer.detect(refused)
        return {one.peer: one for one in found.recipients}

    told = await ask([])
    bare = [one.peer for one in told.values() if _lacks_proof(one)]
    for start in range(0, len(bare), _PROOFS_AT_ONCE):
        meant = bare[start : start + _PROOFS_AT_ONCE]
        more = await ask(meant)
        told |= {name: more[name] for name in meant if name in more}
    return list(told.values())


def _lacks_proof(told: RecipientReceipts) -> bool:
    if told.status not in SIGNED or _is_broker_word(told):
        return False
    proofs = {
        "held": told.held,
        "delivered": told.delivered,
        "seen": told.seen,
        "withheld": told.withheld,
        "declined": told.declined,
    }
    return proofs[told.status] is None


def _recipient(peer: Peer, row: Row, told: RecipientReceipts) -> RecipientStatus:
    handle = next((one.handle for one in row.draft.audience if one.peer == told.peer), None)
    if handle is None:
        raise Forbidden(
            f"The broker names {told.peer} as a recipient, to whom the message was not sealed.",
            "Do not rely on this broker's word about it.",
            code="forged_receipt",
        )
    claimed = str(told.status)
    try:
        proofs = {
            "held": _proof(peer, row, told, told.held, "held"),
            "delivered": _proof(peer, row, told, told.delivered, "delivered"),
            "seen": _proof(peer, row, told, told.seen, "seen"),
            "withheld": _proof(peer, row, told, told.withheld, "withheld"),
            "declined": _proof(peer, row, told, told.declined, "declined"),
        }
    except Forbidden as error:
        if error.code not in _PROVE_NOTHING:
            raise
        # Its signature proves nothing any more, and what the broker says may still be true.
        return _unproved(peer, told, handle)
    if _lacks_proof(told):
        raise Forbidden(
            f"The broker says {claimed} for {handle} and shows no receipt of it.",
            "Do not rely on this broker's word about it.",
            code="forged_receipt",
        )
    # What was delivered may be held afterwards, and delivered once more.
    latest = proofs.get(claimed)
    latest = latest or next((proofs[one] for one in _LATEST_FIRST if proofs[one]), None)
    delivered, seen, withheld = proofs["delivered"], proofs["seen"], proofs["withheld"]
    reason = (latest.reason if latest else _broker_reason(told)) or None
    return RecipientStatus.model_validate(
        {
            "peer": told.peer,
            "handle": handle,
            "status": claimed,
            "route": (seen.route if seen else None) or None,
            "accepted_at": rfc3339(told.accepted_ms),
            "queued_at": rfc3339(told.queued_ms) if told.queued_ms else None,
            "held_at": _held_at(told, proofs["held"]),
            "delivered_at": rfc3339(delivered.at_ms) if delivered else None,
            "seen_at": rfc3339(seen.at_ms) if seen else None,
            "withheld_at": rfc3339(withheld.at_ms) if withheld else None,
            "reason": reason,
            "hint": hint(peer, claimed, reason, is_signed=latest is not None),
            "proved": True if latest else None,
            "successor": _successor(peer, told),
        }
    )


def _successor(peer: Peer, told: RecipientReceipts) -> Successor | None:
    """Name the heir that signed the latest of these receipts, which were verified before."""
    batch = told.seen or told.withheld or told.declined or told.delivered
    certificate = peer.trust.known(batch.certificate) if batch else None
    if certificate is None or certificate.fields.peer == told.peer:
        return None
    return Successor(peer=certificate.fields.peer, handle=certificate.fields.handle)


def _speaks_for(peer: Peer, told: RecipientReceipts, batch: SignedReceipts) -> bool:
    """Tell whether the signer, verified before, is the recipient or a later peer of its member."""
    if batch.recipient == told.peer:
        return True
    if not told.certificate:
        raise Forbidden(
            f"The broker has no certificate of {told.peer} any more.",
            "Nothing proves what is said of it; ask its member, if it matters.",
            code="unproved",
        )
    # The id of a peer is made of its member's: the certificate of no other can carry it.
    meant = Certificate.parse(told.certificate).fields
    signer = peer.trust.known(batch.certificate)
    return (
        signer is not None
        and (meant.mesh, meant.peer) == (peer.trust.mesh, told.peer)
        and signer.fields.member == meant.member
    )


def _held_at(told: RecipientReceipts, proof: ReceiptItem | None) -> str | None:
    at_ms = proof.at_ms if proof else told.held_ms
    return rfc3339(at_ms) if at_ms else None


def _unproved(peer: Peer, told: RecipientReceipts, handle: str) -> RecipientStatus:
    return RecipientStatus.model_validate(
        {
            "peer": told.peer,
            "handle": handle,
            "status": str(told.status),
            "accepted_at": rfc3339(told.accepted_ms),
            "hint": hint(peer, told.status, None, is_signed=False),
            "proved": False,
        }
    )


def _is_broker_word(told: RecipientReceipts) -> bool:
    """Tell whether a status that is signed else is the broker's own.

    It declines for a recipient that was removed or blocks us, and holds by its copy of the
    recipient's grants until the recipient itself has said what becomes of the message.
    """
    if told.status == ReceiptStatus.HELD:
        return told.held_ms is not None
    return told.status == ReceiptStatus.DECLINED and told.queued_ms is None


def _broker_reason(told: RecipientReceipts) -> str:
    return told.reason if told.status == ReceiptStatus.DECLINED else ""


def _proof(
    peer: Peer,
    row: Row,
    told: RecipientReceipts,
    batch: SignedReceipts | None,
    status_name: str,
) -> ReceiptItem | None:
    """Find the signed word of this recipient on this message, or say that it was forged."""
    if batch is None:
        return None
    peer.trust.check_receipts(batch)
    for item in batch.items:
        fits = item.id == row.draft.id and item.header_hash == row.header_hash
        if fits and item.status == status_name and _speaks_for(peer, told, batch):
            return item
    raise Forbidden(
        f"The broker shows a receipt of {told.handle} for another message.",
        "Do not rely on this broker's word about it.",
        code="forged_receipt",
    )
