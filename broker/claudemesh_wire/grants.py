"""Grants: what a member lets another do to its peers, by default and as it has signed; blocks.

Served by ``claudemesh_broker.features.grants``. The broker judges its copy when it accepts a
message, the receiver's own copy decides; both ask ``decide``. A grant is ``payload ||
signature(64)``, and the one with the highest seq is the whole of what holds between two members.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import Field

from claudemesh_wire import canonical
from claudemesh_wire.errors import Forbidden, Invalid
from claudemesh_wire.keys import SIGNATURE_BYTES, SigningKey, VerifyKey
from claudemesh_wire.membership import Chain, Member
from claudemesh_wire.message import (
    SERVER_NAME,
    MemberId,
    MeshId,
    Message,
    Notice,
    Rate,
    Request,
    Role,
    Rule,
)

DOMAIN: Final = "claudemesh/grant/v1"
MAX_GRANT_BYTES: Final = 4096


class Capability(StrEnum):
    """What one may be let do to another's peers."""

    MESSAGE = "message"
    """Have a message shown to them."""
    TOPIC = "topic"
    """Have what one writes in a topic shown to them."""
    WAKE = "wake"
    """Wake an idle one by a message."""
    TASK = "task"
    """Give them a task."""
    TOOL = "tool"
    """Call the tools they offer."""
    FILE = "file"
    """Read files inside their share roots."""


class Standing(StrEnum):
    """What a member is to the one whose peers are meant."""

    OWN = "own"
    MEMBER = "member"
    OBSERVER = "observer"


@dataclass(frozen=True)
class Right:
    """Whether something may be done, and within which bounds.

    Args:
        allowed: Whether at all.
        per_hour: At most so often; ``None`` for as often as one likes.
        only_now: By what has the priority ``now`` alone.
    """

    allowed: bool
    per_hour: int | None = None
    only_now: bool = False

    def __str__(self) -> str:
        """Give the bounds in words, as `now only, 3 an hour`."""
        words = ["now only"] if self.only_now else []
        words += [f"{self.per_hour} an hour"] if self.per_hour is not None else []
        return ", ".join(words)


_YES: Final = Right(allowed=True)
_NO: Final = Right(allowed=False)

DEFAULTS: Final[dict[Standing, dict[Capability, Right]]] = {
    Standing.OWN: {
        Capability.MESSAGE: _YES,
        Capability.TOPIC: _YES,
        Capability.WAKE: _YES,
        Capability.TASK: _YES,
        Capability.TOOL: _YES,
        Capability.FILE: _YES,
    },
    Standing.MEMBER: {
        Capability.MESSAGE: _YES,
        Capability.TOPIC: _YES,
        Capability.WAKE: Right(allowed=True, per_hour=3, only_now=True),
        Capability.TASK: _NO,
        Capability.TOOL: _NO,
        Capability.FILE: _NO,
    },
    Standing.OBSERVER: {
        Capability.MESSAGE: _NO,
        Capability.TOPIC: _NO,
        Capability.WAKE: _NO,
        Capability.TASK: _NO,
        Capability.TOOL: _NO,
        Capability.FILE: _NO,
    },
}


MAX_NAMES: Final = 40
"""So many things a grant allows, and denies."""
PROVIDE: Final = "provide:"
"""Stands in ``allow`` before the name of a service: an MCP server of the other's by that name, with
the same definitions, is a further provider of the grantor's own."""
_SERVICE: Final = re.compile(SERVER_NAME)
Names = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=80)]], Field(max_length=MAX_NAMES)
]


class GrantFields(canonical.Signed):
    """What a member says of another; capabilities that are not known here mean nothing here."""

    v: int = 1
    mesh: MeshId
    by: MemberId
    to: MemberId
    seq: Annotated[int, Field(ge=1, le=canonical.MAX_WHOLE)]
    at: int
    allow: Names
    deny: Names


@dataclass(frozen=True)
class Grant:
    """A grant with the bytes that carry it; parsed does not mean believed."""

    blob: bytes
    fields: GrantFields

    @classmethod
    def issue(cls, fields: GrantFields, member: SigningKey) -> Self:
        """Sign the fields with the root key of the member in ``by``."""
        payload = canonical.encode(fields)
        return cls(payload + member.sign(DOMAIN, payload), fields)

    @classmethod
    def parse(cls, blob: bytes) -> Self:
        """Read a grant without believing it.

        Raises:
            Invalid: no plausible size, malformed, or another version.
        """
        if not SIGNATURE_BYTES < len(blob) <= MAX_GRANT_BYTES:
            raise Invalid("A grant has no plausible size.", code="malformed")
        return cls(blob, canonical.decode(blob[:-SIGNATURE_BYTES], GrantFields, "grant"))

    def is_signed_by(self, member: VerifyKey) -> bool:
        """Tell whether this key signed it."""
        return member.accepts(self.blob[-SIGNATURE_BYTES:], DOMAIN, self.blob[:-SIGNATURE_BYTES])


def believe(chain: Chain, blob: bytes) -> Grant:
    """Verify a grant through the key that the chain knows of its member.

    Raises:
        Invalid: it is malformed, or ``wrong_mesh``.
        Forbidden: ``grant_forged``, or the member is none any more.
    """
    grant = Grant.parse(blob)
    if grant.fields.mesh != chain.mesh:
        raise Invalid("A grant belongs to another mesh.", code="wrong_mesh")
    member = chain.member(grant.fields.by)
    if not grant.is_signed_by(member.key):
        raise Forbidden(
            f"A grant was not signed by {member.name}.",
            "It counts for nothing: that member has to grant it itself.",
            code="grant_forged",
        )
    return grant


def standing_of(own: str, member: Member) -> Standing:
    """Say what a member is to the one whose id is ``own``; its role in the mesh gives no more."""
    if member.id == own:
        return Standing.OWN
    return Standing.OBSERVER if member.role is Role.OBSERVER else Standing.MEMBER


def decide(
    standing: Standing,
    grant: Grant | None,
    capability: Capability,
    *,
    initial: frozenset[str] = frozenset(),
    strict: bool = False,
) -> Right:
    """Say whether a capability is given.

    Args:
        standing: What the one that wants it is to the one who gives.
        grant: The latest that was signed for it, if any; what it names is decided by it alone,
            and what it both allows and denies is denied.
        capability: What is wanted.
        initial: What an invite of the giver's gave, where no grant says otherwise.
        strict: Whether the giver lets nobody else wake its peers without a grant.
    """
    if grant is not None and capability in grant.fields.deny:
        return _NO
    if (grant is not None and capability in grant.fields.allow) or capability in initial:
        return _YES
    if strict and capability is Capability.WAKE and standing is not Standing.OWN:
        return _NO
    return DEFAULTS[standing][capability]


def right_of(
    own: str, member: Member, grant: Grant | None, capability: Capability, *, strict: bool = False
) -> Right:
    """Say what a member may do to the peers of the member ``own``, by all that is known of it.

    Args:
        own: Whose peers are meant.
        member: Who wants it.
        grant: The latest that ``own`` signed for it, if any.
        capability: What is wanted.
        strict: As in ``decide``.
    """
    invited = frozenset(member.invite_grants if member.invited_by == own else ())
    return decide(standing_of(own, member), grant, capability, initial=invited, strict=strict)


def services(grant: Grant | None) -> list[str]:
    """Give the names of the services that a grant lets its member provide beside the grantor."""
    if grant is None:
        return []
    allowed = set(grant.fields.allow) - set(grant.fields.deny)
    return sorted(name for one in allowed if (name := service_in(one)))


def service_in(said: str) -> str:
    """Give the name of the service in ``provide:name``; nothing where it is none."""
    name = said.removeprefix(PROVIDE)
    return name if name != said and _SERVICE.fullmatch(name) else ""


class GrantPut(Message, kind="grants.put_done"):
    """The grant is kept; it is what the broker goes by from now on."""

    seq: int


class PutGrant(Request[GrantPut], kind="grants.put", rule=Rule.READ, rate=Rate.RPC, audited=True):
    """Replace what the caller's member says of another.

    Refused with ``grant_moved`` when the broker has one of the same or a higher seq; its details
    carry that one's ``seq``.
    """

    grant: bytes


class GrantsFound(Message, kind="grants.found"):
    """The latest grants, as they were signed; ``more`` when some found no room."""

    made: list[bytes]
    given: list[bytes]
    blocked: list[MemberId]
    more: bool = False


class ListGrants(Request[GrantsFound], kind="grants.list", rule=Rule.READ, rate=Rate.RPC):
    """Ask for the grants the caller's member made and was given; only with ``member``, if named."""

    member: MemberId | None = None


class GrantChanged(Notice, kind="grants.changed"):
    """A member changed what it lets another do; told to the peers of both."""

    by: MemberId
    to: MemberId


class BlockSet(Message, kind="grants.block_set"):
    """The members one blocks now."""

    blocked: list[MemberId]


class SetBlock(Request[BlockSet], kind="grants.block", rule=Rule.READ, rate=Rate.RPC, audited=True):
    """Refuse, or admit again, messages from another member to all of one's own peers."""

    member: MemberId
    blocked: bool
