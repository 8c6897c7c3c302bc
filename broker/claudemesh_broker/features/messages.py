"""Messages: says who is meant, stores what was sealed to them, hands it to who is here.

``service.py`` calls it. One change decides everything about a send: whether it was sent before,
whether each recipient may have it and can open it, whether there is room; then the rows are put.
"""

import json
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from claudemesh_broker import audience, heirs, peers, queues, upkeep
from claudemesh_broker.audience import Asker
from claudemesh_broker.config import BrokerSettings
from claudemesh_broker.queues import Consignment, Place
from claudemesh_broker.service import Context, serves
from claudemesh_broker.sql import Row, Sql
from claudemesh_wire.address import direct_conversation, parse
from claudemesh_wire.certificate import Certificate
from claudemesh_wire.envelope import MAX_AHEAD_MS, Header, Sealed
from claudemesh_wire.errors import Conflict, Forbidden, Invalid, MeshError, TooMuch
from claudemesh_wire.grants import Capability, Grant, right_of
from claudemesh_wire.keys import public_hash
from claudemesh_wire.membership import Chain
from claudemesh_wire.message import Rate, Refused
from claudemesh_wire.messages import (
    Accepted,
    Bundle,
    Delivery,
    Fetch,
    Fetched,
    Outbound,
    RecipientState,
    Resolve,
    Resolved,
    Send,
    SendBundle,
    SendOutcome,
)
from claudemesh_wire.receipts import ReceiptStatus
from claudemesh_wire.succession import InheritanceGrew

_HELD_SHARE: Final = 50
"""What is held of one member takes a fiftieth of a recipient's queue at most."""


@serves
async def resolve(context: Context, request: Resolve) -> Resolved:
    """Say who is meant by a list of addresses, with the certificates to seal to."""
    addresses = [parse(text) for text in request.to]
    caller, chain, now_ms = context.caller, context.chain, context.now_ms
    since_ms = now_ms - context.parts.settings.present_window_ms
    asker = Asker(chain, caller.peer, caller.member, now_ms, since_ms)
    found = await context.read(partial(audience.resolve, asker=asker, addresses=addresses))
    return Resolved(
        recipients=found.recipients,
        conversation=found.conversation,
        resolved_ms=now_ms,
        head_seq=chain.head.seq,
        head=chain.head.hash,
    )


@dataclass(frozen=True)
class Terms:
    """What a message is accepted under: who is a member, the settings, the moment."""

    chain: Chain
    member: str
    settings: BrokerSettings
    now_ms: int


@dataclass(frozen=True)
class Outcome:
    """What came of a send; ``places`` only when it was stored just now."""

    seq: int
    answer: Accepted
    sent: Consignment
    places: Sequence[Place] = ()
    heirs: Sequence[str] = ()
    expires_first: bool = False


@serves
async def send(context: Context, request: Send) -> Accepted:
    """Accept a sealed envelope: once this returns it is on disk, with a row per recipient."""
    return _tell(context, await _hand_in(context, request))


@serves
async def send_bundle(context: Context, request: SendBundle) -> Bundle:
    """Accept several envelopes in one commit; each is taken or refused by itself."""
    caller, parts = context.caller, context.parts
    handed: list[Awaitable[Outcome] | MeshError] = []
    for place, message in enumerate(request.messages):
        try:
            if place:  # The request itself took the token of the first.
                parts.limits.take(Rate.CHAT, caller.member)
            handed.append(_hand_in(context, message))
        except MeshError as refusal:
            handed.append(refusal)
    return Bundle(outcomes=[await _outcome(context, one) for one in handed])


async def _outcome(context: Context, handed: Awaitable[Outcome] | MeshError) -> SendOutcome:
    if isinstance(handed, MeshError):
        return SendOutcome(refused=Refused.of(handed))
    try:
        return SendOutcome(accepted=_tell(context, await handed))
    except MeshError as refusal:
        return SendOutcome(refused=Refused.of(refusal))


def _hand_in(context: Context, message: Send | Outbound) -> Awaitable[Outcome]:
    """Check an envelope as far as that takes no database, and hand in the change that keeps it."""
    sealed = Sealed.parse(message.envelope)
    header = sealed.read_header()
    _check_origin(context, header)
    parts = context.parts
    terms = Terms(context.chain, context.caller.member, parts.settings, context.now_ms)
    refusal = _refusal(header, message.resolved_ms, terms)
    known = parts.roster.known_certificate(public_hash(header.cert))

    def change(sql: Sql) -> Outcome:
        before = _sent_before(sql, header, sealed)
        if before is not None:
            return before
        if refusal is not None:
            raise refusal
        certificate = _certificate(sql, header, known)
        sent = Consignment(sealed, header, certificate.blob)
        return _store(sql, sent, terms)

    return context.write(change)


def _tell(context: Context, outcome: Outcome) -> Accepted:
    """Push what was committed to those who are here, and give the sender its answer."""
    parts, header = context.parts, outcome.sent.header
    parts.deliveries.push(outcome.sent, outcome.seq, outcome.places, outcome.answer.accepted_ms)
    for heir in outcome.heirs:
        parts.deliveries.tell(header.mesh, heir, InheritanceGrew())
    if outcome.places:
        parts.tallies.of(header.mesh, header.sender).sent += 1
    if outcome.expires_first:
        parts.scheduler.wake()
    return outcome.answer


def _check_origin(context: Context, header: Header) -> None:
    """The sender of anything is the connection, never a field."""
    if header.sender != context.caller.peer:
        raise Forbidden(
            "The envelope names another sender than this peer.",
            "Its sender has to send it over its own connection.",
            code="wrong_sender",
        )
    if header.mesh != context.caller.mesh:
        raise Invalid("The envelope belongs to another mesh.", code="wrong_mesh")


def _refusal(header: Header, resolved_ms: int, terms: Terms) -> MeshError | None:
    """Give the reason to refuse an envelope that was not stored before, if there is one."""
    now_ms, settings = terms.now_ms, terms.settings
    if header.sender in header.to:
        return Invalid("The envelope is addressed to its own sender.", "Seal it to others.")
    if abs(header.ts - now_ms) > MAX_AHEAD_MS:
        return Invalid(
            "The envelope's time is not the broker's.",
            "Check the clock, and seal the message again.",
            code="clock",
            details={"now_ms": now_ms},
        )
    if not (header.ts <= header.exp <= header.ts + settings.queue_ttl_ms and now_ms < header.exp):
        return Invalid(
            f"A message lives for {settings.queue_ttl_s:g} seconds at most.",
            "Let it expire earlier.",
            code="bad_expiry",
        )
    direct = header.conv.startswith("d_")
    if direct and header.conv != direct_conversation((header.sender, *header.to)):
        return Invalid("The envelope names a conversation of others.", code="wrong_conversation")
    if not 0 <= now_ms - resolved_ms <= settings.resolve_valid_ms:
        return _stale(header.to)
    return None


def _stale(recipients: Sequence[str]) -> Conflict:
    return Conflict(
        "The recipients were looked up too long ago, or their keys have changed.",
        "Look them up again and seal anew under the same id; nothing was stored.",
        code="stale_recipients",
        details={"recipients": list(recipients)},
    )


def _sent_before(sql: Sql, header: Header, sealed: Sealed) -> Outcome | None:
    """Give the first answer again, if this id has had one."""
    row = queues.find(sql, header.mesh, header.sender, header.id)
    if row is None:
        return None
    if row["header_hash"] != sealed.header_hash:
        raise Conflict(
            f"{header.id} stands for another message of this peer.", "Send it under a new id."
        )
    states = queues.first_states(sql, row["seq"], row["accepted_ms"])
    answer = _answer(header, states, row["accepted_ms"])
    return Outcome(row["seq"], answer, Consignment(sealed, header, b""))


def _answer(header: Header, states: list[RecipientState], accepted_ms: int) -> Accepted:
    return Accepted(id=header.id, accepted_ms=accepted_ms, expires_ms=header.exp, recipients=states)


def _certificate(sql: Sql, header: Header, known: Certificate | None) -> Certificate:
    """Give the sender's certificate that the header names, as every reader will demand it."""
    blob = None if known else peers.read_certificate(sql, public_hash(header.cert))
    certificate = known or (Certificate.parse(blob) if blob else None)
    if certificate is None:
        raise Conflict(
            "The broker does not have the certificate that the envelope names.",
            "Publish it, then send again.",
            code="unknown_certificate",
        )
    if certificate.fields.peer != header.sender or not certificate.covers(header.ts):
        raise Invalid(
            "The certificate did not hold when the envelope was sealed.",
            "Seal it again under the present one.",
            code="not_certified",
        )
    return certificate


_RECIPIENTS: Final = (
    "SELECT p.mesh, p.peer, p.member, p.handle, p.node, p.kem_generation, q.messages, q.bytes,"
    " p.visible, p.successor, p.returned, b.since_ms AS blocked_ms, g.entry AS granted"
    " FROM json_each(?) AS wanted CROSS JOIN peers AS p ON p.mesh = ? AND p.peer = wanted.value"
    " LEFT JOIN queues AS q ON q.mesh = p.mesh AND q.peer = p.peer"
    " LEFT JOIN blocks AS b ON b.mesh = p.mesh AND b.owner = p.member AND b.blocked = ?"
    " LEFT JOIN grants AS g ON g.mesh = p.mesh AND g.owner = p.member AND g.subject = ?"
)


def _store(sql: Sql, sent: Consignment, terms: Terms) -> Outcome:
    header = sent.header
    wanted = (json.dumps(header.to), header.mesh, terms.member, terms.member)
    found = sql.all(_RECIPIENTS, *wanted)
    rows = {row["peer"]: row for row in found}
    cannot = [
        peer
        for peer, generation in zip(header.to, header.kgen, strict=True)
        if peer not in rows or not peers.can_open(sql, rows[peer], generation, terms.now_ms)
    ]
    if cannot:
        raise _stale(cannot)
    places = [_place(rows[peer], position, terms) for position, peer in enumerate(header.to)]
    places = [_within_share(sql, sent, (place, rows[place.peer]), terms) for place in places]
    _check_room(sent, [rows[place.peer] for place in places if not place.reason], terms)
    seq = queues.put(sql, sent, places, terms.now_ms)
    states = [
        RecipientState(peer=place.peer, status=place.status, at_ms=terms.now_ms) for place in places
    ]
    answer = _answer(header, states, terms.now_ms)
    told = heirs.entrust(sql, seq, rows.values())
    return Outcome(seq, answer, sent, places, told, upkeep.expect_expiry(sql, header.exp))


def _place(row: Row, position: int, terms: Terms) -> Place:
    member = terms.chain.members.get(row["member"])
    peer: str = row["peer"]
    if member is None or not member.is_good(terms.now_ms):
        return Place(peer, position, ReceiptStatus.DECLINED, "removed")
    if row["blocked_ms"] is not None:
        return Place(peer, position, ReceiptStatus.DECLINED, "blocked")
    # Whether one that hides is here is not for others to know.
    is_shown_here = row["node"] is not None and row["visible"]
    status = ReceiptStatus.ACCEPTED if is_shown_here else ReceiptStatus.QUEUED
    if not _may_message(row, terms):
        # Handed over all the same: the recipient's own grants decide, these are a copy of them.
        status = ReceiptStatus.HELD
    return Place(peer, position, status, node=row["node"])


def _within_share(sql: Sql, sent: Consignment, whom: tuple[Place, Row], terms: Terms) -> Place:
    """Decline what is held when there is much of that kind: it must not take others' room."""
    place, row = whom
    if place.status is not ReceiptStatus.HELD:
        return place

    def has_room(count: int, size_bytes: int) -> bool:
        return (count + 1) * _HELD_SHARE <= terms.settings.queue_messages and (
            size_bytes + sent.size_bytes
        ) * _HELD_SHARE <= terms.settings.queue_bytes

    if has_room(row["messages"] or 0, row["bytes"] or 0):
        # All that waits, of whomever, is no more than this: nothing needs to be counted.
        return place
    count, held_bytes = queues.held_of(sql, sent.header.mesh, place.peer, terms.member)
    # One may always be there, however small the queue is.
    if has_room(count, held_bytes) or not count:
        return place
    return replace(place, status=ReceiptStatus.DECLINED, reason="held_full", node=None)


def _may_message(row: Row, terms: Terms) -> bool:
    """Tell whether the recipient's member lets the sender's have messages shown to its peers."""
    grant = Grant.parse(row["granted"]) if row["granted"] else None
    sender = terms.chain.member(terms.member)
    return right_of(row["member"], sender, grant, Capability.MESSAGE).allowed


def _check_room(sent: Consignment, rows: Sequence[Row], terms: Terms) -> None:
    full = [
        row
        for row in rows
        if (row["messages"] or 0) >= terms.settings.queue_messages
        or (row["bytes"] or 0) + sent.size_bytes > terms.settings.queue_bytes
    ]
    if full:
        names = ", ".join(row["handle"] or row["peer"] for row in full[:5])
        raise TooMuch(
            f"The queue of {names} is full.",
            "Wait until it has been read; nothing was stored for anybody.",
            code="queue_full",
            retry_after_s=30.0,
            details={"recipients": [row["peer"] for row in full]},
        )


@serves
async def fetch(context: Context, request: Fetch) -> Fetched:
    """Read the caller's queue; a row stays in it until its receipt."""
    caller = context.caller
    rows, more = await context.read(
        partial(
            queues.waiting,
            mesh=caller.mesh,
            peer=caller.peer,
            after=request.after_row,
            bounds=(request.limit, queues.MAX_FETCH_BYTES),
        )
    )
    certificates = {row.certificate_hash: row.certificate for row in rows if row.certificate}
    return Fetched(
        deliveries=[
            Delivery(row=row.seq, envelope=row.envelope, queued_ms=row.queued_ms) for row in rows
        ],
        certificates=list(certificates.values()),
        more=more,
    )
