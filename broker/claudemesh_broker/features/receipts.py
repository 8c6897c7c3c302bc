"""Receipts: records what recipients say of messages, tells the senders, answers what became of one.

``service.py`` calls it. The broker keeps the signed batches as they came; whether a signature is
right is for the sender's client to see.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from claudemesh_broker import outcomes, peers, queues
from claudemesh_broker.outcomes import TakenReceipts
from claudemesh_broker.service import Context, serves
from claudemesh_broker.sql import Row, Sql
from claudemesh_wire.errors import Conflict, Forbidden, Invalid, NotFound
from claudemesh_wire.receipts import (
    SIGNED,
    AskStatus,
    ReceiptStatus,
    RecipientReceipts,
    Report,
    Reported,
    SignedReceipts,
    StatusFound,
)

MAX_PROOF_BYTES: Final = 512 * 1024
_PROOFS: Final = ("held", "delivered", "seen", "withheld", "declined")


@serves
async def report(context: Context, request: Report) -> Reported:
    """Record receipts, all in one change; what is no news is not counted."""
    _check_batches(context, request.batches)
    caller, now_ms = context.caller, context.now_ms

    def change(sql: Sql) -> list[TakenReceipts]:
        for name in {batch.certificate for batch in request.batches}:
            _check_certificate(sql, caller.peer, name)
        return [
            outcomes.take_receipts(sql, caller.mesh, batch, now_ms) for batch in request.batches
        ]

    taken = await context.write(change)
    own = context.parts.deliveries.feed(caller.mesh, caller.peer)
    for batch, found in zip(request.batches, taken, strict=True):
        if own is not None:
            own.settle(found.rows)
        if found.received:
            context.parts.tallies.of(caller.mesh, caller.peer).received += found.received
        if found.news:
            await _tell_sender(context, batch)
    return Reported(taken=sum(found.news for found in taken))


def _check_batches(context: Context, batches: Iterable[SignedReceipts]) -> None:
    for batch in batches:
        if batch.recipient != context.caller.peer:
            raise Forbidden(
                "A receipt is given by its recipient only.",
                "Its recipient has to report it over its own connection.",
                code="wrong_recipient",
            )
        if any(item.status not in SIGNED for item in batch.items):
            raise Invalid(
                "A recipient says held, delivered, seen, withheld or declined.", code="malformed"
            )


def _check_certificate(sql: Sql, peer: str, name: bytes) -> None:
    owner = sql.value("SELECT peer FROM certificates WHERE hash = ?", name)
    if owner != peer:
        raise Conflict(
            "The broker does not have the certificate that the receipts name.",
            "Publish it, then report again.",
            code="unknown_certificate",
        )


async def _tell_sender(context: Context, batch: SignedReceipts) -> None:
    parts = context.parts
    feed = parts.deliveries.feed(context.caller.mesh, batch.sender)
    if feed is not None:
        certificate = await parts.roster.certificate(batch.certificate)
        feed.tell_receipts(batch, certificate.blob if certificate else b"")


@serves
async def tell_status(context: Context, request: AskStatus) -> StatusFound:
    """Say all that is known of a message that the caller sent."""
    caller = context.caller

    def query(sql: Sql) -> StatusFound:
        row = queues.find(sql, caller.mesh, caller.peer, request.id)
        if row is None:
            raise NotFound(
                f"This peer sent no message {request.id}.",
                "It is remembered until a day after it expires.",
                code="unknown_message",
            )
        rows = outcomes.receipts_of(sql, row["seq"])
        meant = [one for one in rows if not request.only or one["recipient"] in request.only]
        found = [_recipient(one, row) for one in meant]
        proven = [_with_certificate(sql, one, meant) for one in _within_frame(found)]
        names = _certificates_named(proven)
        blobs = [peers.read_certificate(sql, name) for name in names]
        return StatusFound(
            id=request.id,
            recipients=proven,
            certificates=[blob for blob in blobs if blob is not None],
        )

    return await context.read(query)


def _status(row: Row) -> ReceiptStatus:
    status = ReceiptStatus(row["status"])
    if status is not ReceiptStatus.QUEUED:
        return status
    if row["held_ms"] is not None:
        return ReceiptStatus.HELD
    return ReceiptStatus.ACCEPTED if row["queued_ms"] is None else ReceiptStatus.QUEUED


def _recipient(row: Row, message: Row) -> RecipientReceipts:
    status = _status(row)
    return RecipientReceipts(
        peer=row["recipient"],
        handle=row["handle"] or "",
        status=status,
        accepted_ms=message["accepted_ms"],
        queued_ms=row["queued_ms"],
        held_ms=row["held_ms"],
        expired_ms=message["expires_ms"] if status is ReceiptStatus.EXPIRED else None,
        reason=row["reason"] or "" if row["declined_receipt"] is None else "",
        held=_batch(row["held"]),
        delivered=_batch(row["delivered"]),
        seen=_batch(row["seen"]),
        withheld=_batch(row["withheld"]),
        declined=_batch(row["declined"]),
    )


def _with_certificate(sql: Sql, told: RecipientReceipts, rows: Sequence[Row]) -> RecipientReceipts:
    """Add whose message it was when another peer speaks for it, as proof of its member."""
    signed = (told.delivered, told.seen, told.withheld, told.declined)
    if all(batch is None or batch.recipient == told.peer for batch in signed):
        return told
    name = next(row["certificate_hash"] for row in rows if row["recipient"] == told.peer)
    blob = peers.read_certificate(sql, name) if name else None
    return told.model_copy(update={"certificate": blob or b""})


def _batch(blob: bytes | None) -> SignedReceipts | None:
    return None if blob is None else SignedReceipts.model_validate_json(blob)


def _within_frame(found: Sequence[RecipientReceipts]) -> list[RecipientReceipts]:
    """Leave out proofs, from the first recipient on whose would make the answer too large."""
    kept: list[RecipientReceipts] = []
    load = 0
    for one in found:
        load += len(one.model_dump_json())
        bare = one.model_copy(update=dict.fromkeys(_PROOFS))
        kept.append(one if load <= MAX_PROOF_BYTES else bare)
    return kept


def _certificates_named(found: Iterable[RecipientReceipts]) -> list[bytes]:
    batches = (getattr(one, name) for one in found for name in _PROOFS)
    return list(dict.fromkeys(batch.certificate for batch in batches if batch is not None))
