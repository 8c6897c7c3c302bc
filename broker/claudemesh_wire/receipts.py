"""Receipts: what became of a message, signed by the recipient where the recipient says it.

``accepted``, ``queued`` and ``expired`` are the broker's word; ``delivered``, ``seen``,
``withheld`` and ``declined`` are the recipient's, signed by its device and verified by the sender's
client. ``held`` is the recipient's once it is signed, and the broker's until then.
Served by ``claudemesh_broker.features.receipts``.
"""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from claudemesh_wire.certificate import Certificate
from claudemesh_wire.keys import SigningKey
from claudemesh_wire.message import (
    Message,
    MessageId,
    Notice,
    Part,
    PeerId,
    Rate,
    Request,
    Rule,
    Whole,
)

DOMAIN: Final = "claudemesh/receipt/v1"
MAX_BATCH: Final = 256


class ReceiptStatus(StrEnum):
    """The states of a message on its way to one recipient, in the order they may come."""

    ACCEPTED = "accepted"
    QUEUED = "queued"
    HELD = "held"
    DELIVERED = "delivered"
    SEEN = "seen"
    WITHHELD = "withheld"
    DECLINED = "declined"
    EXPIRED = "expired"


SIGNED: Final = frozenset(
    {
        ReceiptStatus.HELD,
        ReceiptStatus.DELIVERED,
        ReceiptStatus.SEEN,
        ReceiptStatus.WITHHELD,
        ReceiptStatus.DECLINED,
    }
)


class ReceiptItem(Part):
    """What the recipient says of one message.

    ``reason`` only with ``declined``, with ``held``: the capability that its sender lacks, and with
    ``withheld``: ``superseded``, ``stale`` or ``no_checkout``.
    """

    id: MessageId
    header_hash: Annotated[bytes, Field(min_length=32, max_length=32)]
    status: ReceiptStatus
    route: Annotated[str, Field(max_length=40)] = ""
    reason: Annotated[str, Field(max_length=40)] = ""
    at_ms: Whole


class SignedReceipts(Part):
    """Up to 256 receipts for messages of one sender under one signature."""

    sender: PeerId
    recipient: PeerId
    certificate: bytes
    items: Annotated[list[ReceiptItem], Field(min_length=1, max_length=MAX_BATCH)]
    signature: bytes


def receipt_parts(mesh: str, items: list[ReceiptItem]) -> list[bytes | str]:
    """Give the parts a receipt's signature covers, behind its domain."""
    parts: list[bytes | str] = [mesh]
    for item in items:
        status = f"{item.status}({item.reason})" if item.reason else str(item.status)
        parts += (item.id, item.header_hash, status, item.route, str(item.at_ms))
    return parts


def sign_receipts(
    mesh: str, sender: str, items: list[ReceiptItem], device: SigningKey, own: Certificate
) -> SignedReceipts:
    """Sign receipts with the recipient's device key; all must be for one sender's messages."""
    signature = device.sign(DOMAIN, *receipt_parts(mesh, items))
    return SignedReceipts(
        sender=sender,
        recipient=own.fields.peer,
        certificate=own.hash,
        items=items,
        signature=signature,
    )


def are_receipts_signed(mesh: str, batch: SignedReceipts, certificate: Certificate) -> bool:
    """Tell whether the whole batch is the word of the recipient it names.

    Args:
        mesh: The mesh the messages were sent in.
        batch: What the broker handed over; only the signature in it is the recipient's.
        certificate: A verified certificate; it must be the one the batch names, of that peer.
    """
    own = certificate.fields
    named = (batch.certificate, batch.recipient, mesh)
    if named != (certificate.hash, own.peer, own.mesh):
        return False
    if any(item.status not in SIGNED for item in batch.items):
        return False
    parts = receipt_parts(mesh, batch.items)
    return certificate.sign_key.accepts(batch.signature, DOMAIN, *parts)


class Reported(Message, kind="receipts.reported"):
    """How many of the receipts were news; the others had been reported before."""

    taken: Whole


class Report(Request[Reported], kind="receipts.report", rule=Rule.READ, rate=Rate.CHAT):
    """Hand over receipts; all but a late ``seen`` are the ack that empties the queue."""

    batches: Annotated[list[SignedReceipts], Field(min_length=1, max_length=64)]


class ReceiptNews(Notice, kind="receipts.news"):
    """Receipts for messages this peer sent; a hint, the broker keeps the truth."""

    batches: list[SignedReceipts]
    certificates: list[bytes] = Field(default_factory=list[bytes])


class BrokerNews(Notice, kind="receipts.broker_news"):
    """The broker's own word on a message this peer sent, as ``expired``."""

    id: MessageId
    recipient: PeerId
    status: ReceiptStatus
    at_ms: Whole


class RecipientReceipts(Part):
    """All that is known of a message on its way to one recipient; times in milliseconds.

    ``held_ms`` is when the broker began to hold it, by its copy of the recipient's grants; ``held``
    is the recipient's own word. An ended recipient's heir signs in its place; then ``certificate``
    is the recipient's own, and shows that both are of one member.
    """

    peer: PeerId
    handle: str
    status: ReceiptStatus
    accepted_ms: Whole
    queued_ms: Whole | None = None
    held_ms: Whole | None = None
    expired_ms: Whole | None = None
    held: SignedReceipts | None = None
    delivered: SignedReceipts | None = None
    seen: SignedReceipts | None = None
    withheld: SignedReceipts | None = None
    declined: SignedReceipts | None = None
    certificate: bytes = b""


class StatusFound(Message, kind="receipts.status_found"):
    """What is known, with the certificates that prove the signed part of it."""

    id: MessageId
    recipients: list[RecipientReceipts]
    certificates: list[bytes]


class AskStatus(Request[StatusFound], kind="receipts.status", rule=Rule.READ, rate=Rate.RPC):
    """Ask what became of a message one sent oneself; NotFound for those of others.

    Proofs that do not fit into one answer are left out of it: ask for them with ``only``, the
    recipients that are meant; all of them when it is empty.
    """

    id: MessageId
    only: Annotated[list[PeerId], Field(max_length=256)] = Field(default_factory=list[PeerId])
