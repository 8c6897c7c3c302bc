"""What of a membership log that comes with a hello the broker takes, and from whom.

``admission.py`` asks it before it believes a hello. An entry is shown to the broker when it is made
and looked at then; a log that is offered later was lost here, or some of it was never shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from claudemesh_broker.roster import check_certificate
from claudemesh_wire.certificate import Certificate
from claudemesh_wire.entries import Entry, EntryKind
from claudemesh_wire.envelope import MAX_AHEAD_MS
from claudemesh_wire.errors import Forbidden, Invalid, MeshError
from claudemesh_wire.handshake import Claims
from claudemesh_wire.membership import Chain
from claudemesh_wire.message import Role

MAX_PARTS: Final = 32


@dataclass
class Offered:
    """The log that one connection offers, in as many hellos as it takes; it counts once whole.

    Args:
        chain: What is verified of it.
        parts: In how many hellos that came.
        by: The certificate of who offers it: what one may offer is no offer of another.
        is_known: Whether the broker knew the mesh, so that it was looked at who offers what.
    """

    chain: Chain | None = None
    parts: int = 0
    by: bytes = b""
    is_known: bool = False

    def behind(self, known: Chain | None, by: bytes) -> Chain | None:
        """Give what a further part follows: the log known here, or what was offered behind it."""
        before = known.entries if known else ()
        is_same = (self.by, self.is_known) == (by, known is not None)
        goes_on = self.chain is not None and self.chain.entries[: len(before)] == before
        return self.chain if is_same and goes_on else known

    def keep(self, chain: Chain, by: bytes, *, is_known: bool) -> None:
        """Keep what was verified until the rest is here."""
        self.chain, self.parts = chain, min(self.parts + 1, MAX_PARTS)
        self.by, self.is_known = by, is_known


@dataclass(frozen=True)
class Offer:
    """A log that comes with a hello, by whom, when, and whether the mesh was known before."""

    log: Sequence[bytes]
    certificate: Certificate
    now_ms: int
    is_known: bool


def longest(start: Chain | None, offer: Offer, claims: Claims) -> Chain:
    """Give the start, or a chain that extends it by what a client offers up to its head."""
    chain = start or Chain(claims.mesh)
    if claims.head_seq <= chain.head.seq:
        return chain
    for blob in offer.log:
        entry = Entry.parse(blob)
        if entry.fields.seq <= chain.head.seq:
            continue
        before, chain = chain, chain.extend([blob])
        if before.head.seq > 0:
            _check_time(entry, offer.now_ms)
        if offer.is_known:
            _check_offer(before, chain, entry, offer)
    return chain


def _check_time(entry: Entry, now_ms: int) -> None:
    """Refuse what is of a time to come: a return that is not due yet would be made due so."""
    if entry.fields.at > now_ms + MAX_AHEAD_MS:
        raise Invalid(
            f"Entry {entry.fields.seq} of the membership log is of a time that is still to come.",
            "Put the clock of the broker's machine right, or wait until it is due.",
            code="clock",
            details={"now_ms": now_ms},
        )


def _check_offer(before: Chain, after: Chain, entry: Entry, offer: Offer) -> None:
    """Refuse what only the broker's clock and its invites could have vouched for.

    Who joins, returns, or signs until its time is over shows the entry when it is made, and the
    broker looks at the clock and at the invite it keeps. A log that holds such an entry all the
    same was lost here, or the entry was never shown; a member who could have done the same by
    its own hand gains nothing by the latter, and nobody else brings it along.
    """
    said = entry.fields
    signer = before.members.get(said.by)
    is_timed = said.invite is not None or said.kind == EntryKind.RETURN
    if not is_timed and signer is not None and not signer.has_expired(offer.now_ms):
        return
    concerned = said.member or said.by
    known = (chain.members.get(concerned) for chain in (before, after))
    roles = {Role.ADMIN, *(member.role for member in known if member is not None)}
    voucher = before.members.get(offer.certificate.fields.member)
    is_vouched = (
        voucher is not None
        and is_proved(before, offer.certificate, offer.now_ms)
        and all(voucher.may_give(role) for role in roles)
    )
    if not is_vouched:
        raise Forbidden(
            f"Entry {said.seq} of this log was not shown to the broker when it was made.",
            "If the broker was restored from a backup, an admin's session brings it along: connect"
            " again after that. Otherwise join by the link of an invite.",
            code="membership_forbidden",
        )


def is_proved(chain: Chain, certificate: Certificate, now_ms: int) -> bool:
    """Tell whether the member that a certificate names is one, and has signed it."""
    try:
        check_certificate(chain, certificate, now_ms)
    except MeshError:
        return False
    return True
