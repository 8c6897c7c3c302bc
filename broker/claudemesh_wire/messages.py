"""Messages: resolve who is meant, send what was sealed to them, hand it to its readers.

Served by ``claudemesh_broker.features.messages``; used by the client for the tools ``send`` and
``inbox``.
"""

from typing import Annotated, Final

from pydantic import Field

from claudemesh_wire.message import (
    MemberId,
    Message,
    MessageId,
    Notice,
    Part,
    PeerId,
    Rate,
    Refused,
    Request,
    Rule,
    Whole,
)

MAX_RESOLVE_AGE_MS: Final = 60_000
MAX_TEXT_BYTES: Final = 256 * 1024
MAX_ADDRESSES: Final = 1024
MAX_SENT_AT_ONCE: Final = 64
DEFAULT_TTL_MS: Final = 7 * 24 * 3600 * 1000


class Recipient(Part):
    """One peer an address stands for; the certificate holds the key to seal to."""

    peer: PeerId
    handle: str
    member: MemberId
    certificate: bytes
    online: bool = False


class Resolved(Message, kind="messages.resolved"):
    """The audience, fixed now; ``conversation`` is what the envelope's header must name."""

    recipients: list[Recipient]
    conversation: str
    resolved_ms: Whole
    head_seq: int
    head: bytes


class Resolve(Request[Resolved], kind="messages.resolve", rule=Rule.WRITE, rate=Rate.RPC):
    """Ask who is meant. One address that stands for nobody, and nothing is answered but that."""

    to: Annotated[list[str], Field(min_length=1, max_length=MAX_ADDRESSES)]


class RecipientState(Part):
    """Where a message is on its way to one recipient; ``at_ms`` is when that began."""

    peer: PeerId
    status: str
    at_ms: Whole


class Accepted(Message, kind="messages.accepted"):
    """The message is on disk; a repeated send of the same id gets the first answer again."""

    id: MessageId
    accepted_ms: Whole
    expires_ms: Whole
    recipients: list[RecipientState]


class Send(Request[Accepted], kind="messages.send", rule=Rule.WRITE, rate=Rate.CHAT, audited=True):
    """Hand over a sealed envelope for the audience that was resolved at ``resolved_ms``.

    Refused with ``stale_recipients`` (nothing stored, ``details.recipients`` the peers in question)
    when the resolve is older than 60 s or a recipient has no valid slot; with ``conflict`` when the
    id stands for another header already.
    """

    envelope: bytes
    resolved_ms: Whole


class Outbound(Part):
    """One sealed envelope of several, as ``Send`` has it."""

    envelope: bytes
    resolved_ms: Whole


class SendOutcome(Part):
    """What came of one envelope of several: one of the two is there."""

    accepted: Accepted | None = None
    refused: Refused | None = None


class Bundle(Message, kind="messages.bundle"):
    """What came of each envelope, in the order in which they were handed over."""

    outcomes: list[SendOutcome]


class SendBundle(
    Request[Bundle], kind="messages.send_bundle", rule=Rule.WRITE, rate=Rate.CHAT, audited=True
):
    """Hand over envelopes that were ready together, each as by ``Send``.

    One that is refused keeps none of the others back. Each takes a token of the rate class.
    """

    messages: Annotated[list[Outbound], Field(min_length=1, max_length=MAX_SENT_AT_ONCE)]


class Delivery(Part):
    """One reader's copy; ``row`` orders a recipient's queue at the broker."""

    row: Whole
    envelope: bytes
    queued_ms: Whole


class Deliver(Notice, kind="messages.deliver"):
    """Copies for the attached peer, with certificates it was not sent on this connection yet."""

    deliveries: list[Delivery]
    certificates: list[bytes] = Field(default_factory=list[bytes])


class Fetched(Message, kind="messages.fetched"):
    """Part of the queue, oldest first; ``more`` when rows are left behind it."""

    deliveries: list[Delivery]
    certificates: list[bytes]
    more: bool


class Fetch(Request[Fetched], kind="messages.fetch", rule=Rule.READ, rate=Rate.RPC):
    """Read one's queue behind a row without attaching; nothing leaves it before its receipt."""

    after_row: Whole = 0
    limit: Annotated[int, Field(ge=1, le=100)] = 50
