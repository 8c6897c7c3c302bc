"""Invites: an admin's signed permission to join, proved by a one-time key.

``membership.py`` walks the entries that rest on one. The key's seed travels in a URL fragment
(``links.py``), which no server sees; the invite itself is public and ends up inside the membership
entry. Served by ``claudemesh_broker.features.invites``, to strangers by ``strangers.py``.
"""

from dataclasses import dataclass
from typing import Annotated, Final, Self

from pydantic import Field

from claudemesh_wire import canonical
from claudemesh_wire.errors import Invalid
from claudemesh_wire.keys import SIGNATURE_BYTES, SigningKey, VerifyKey, unb64
from claudemesh_wire.meshes import LogEntries
from claudemesh_wire.message import MemberId, MeshId, Message, Part, Rate, Request, Rule, Whole

DOMAIN: Final = "claudemesh/invite/v1"
PROOF_DOMAIN: Final = "claudemesh/join/v1"
OPEN_DOMAIN: Final = "claudemesh/open/v1"
MEMBER_DOMAIN: Final = "claudemesh/open/member/v1"
MAX_INVITE_BYTES: Final = 2048
MAX_INVITES: Final = 200
InviteCode = Annotated[str, Field(pattern="^[a-z2-7]{26}$")]


class InviteFields(canonical.Signed):
    """What an invite gives: a role, a number of uses, until when (ms); ``key`` is base64url.

    ``grants`` is what the inviting member lets whoever comes by it do with its own peers.
    """

    v: int = 1
    mesh: MeshId
    id: InviteCode
    role: str
    uses: Annotated[int, Field(ge=1, le=10_000)]
    expires: int
    by: MemberId
    key: str
    grants: Annotated[list[str], Field(max_length=32)] | None = None


@dataclass(frozen=True)
class Invite:
    """An invite with the bytes that carry it: ``payload || signature(64)``."""

    blob: bytes
    fields: InviteFields

    @classmethod
    def issue(cls, fields: InviteFields, admin: SigningKey) -> Self:
        """Sign the invite with the admin's key."""
        payload = canonical.encode(fields)
        return cls(payload + admin.sign(DOMAIN, payload), fields)

    @classmethod
    def parse(cls, blob: bytes) -> Self:
        """Read an invite without believing it.

        Raises:
            Invalid: no plausible size, malformed, or another version.
        """
        if not SIGNATURE_BYTES < len(blob) <= MAX_INVITE_BYTES:
            raise Invalid("The invite has no plausible size.", code="malformed")
        return cls(blob, canonical.decode(blob[:-SIGNATURE_BYTES], InviteFields, "invite"))

    def is_signed_by(self, admin: VerifyKey) -> bool:
        """Tell whether this key signed it."""
        return admin.accepts(self.blob[-SIGNATURE_BYTES:], DOMAIN, self.blob[:-SIGNATURE_BYTES])

    def proves(self, proof: bytes, member: str) -> bool:
        """Tell whether the holder of the one-time key meant this member."""
        key = VerifyKey(unb64(self.fields.key))
        return key.accepts(proof, PROOF_DOMAIN, self.fields.mesh, self.fields.id, member)


def prove(one_time: SigningKey, invite: InviteFields, member: str) -> bytes:
    """Prove with the invite's one-time key that this member was meant."""
    return one_time.sign(PROOF_DOMAIN, invite.mesh, invite.id, member)


def prove_opening(one_time: SigningKey, broker: str, nonce: bytes, code: str) -> bytes:
    """Prove to a broker, on the connection with this nonce, that one has the link of an invite."""
    return one_time.sign(OPEN_DOMAIN, broker, nonce, code)


def may_open(fields: InviteFields, proof: bytes, broker: str, nonce: bytes) -> bool:
    """Tell whether the proof is that of ``prove_opening`` for this invite."""
    key = VerifyKey(unb64(fields.key))
    return key.accepts(proof, OPEN_DOMAIN, broker, nonce, fields.id)


def prove_member(member: SigningKey, broker: str, nonce: bytes, code: str) -> bytes:
    """Prove to a broker, on this connection, that one is a member whom the link brought in."""
    return member.sign(MEMBER_DOMAIN, broker, nonce, code)


def is_member_proved(member: VerifyKey, proof: bytes, broker: str, nonce: bytes, code: str) -> bool:
    """Tell whether the proof is that of ``prove_member``."""
    return member.accepts(proof, MEMBER_DOMAIN, broker, nonce, code)


class InviteKept(Message, kind="invites.kept"):
    """The broker has the invite; ``url`` and ``pin`` say how others reach it."""

    url: str
    pin: bytes = b""


class PutInvite(
    Request[InviteKept], kind="invites.put", rule=Rule.ADMIN, rate=Rate.RPC, audited=True
):
    """Leave a signed invite with the broker, for whoever shows that it has the link.

    Refused with ``loopback_only`` by a broker that no other machine reaches.
    """

    invite: bytes


class InviteShown(Part):
    """An invite that is still there, and how often it was used."""

    invite: bytes
    used: Whole


class InvitesFound(Message, kind="invites.found"):
    """The invites of the mesh that have not expired, newest first."""

    invites: list[InviteShown]


class ListInvites(Request[InvitesFound], kind="invites.list", rule=Rule.ADMIN, rate=Rate.RPC):
    """Ask which invites are open."""


class InviteWithdrawn(Message, kind="invites.withdrawn"):
    """Nobody comes in by it any more."""


class WithdrawInvite(
    Request[InviteWithdrawn], kind="invites.withdraw", rule=Rule.ADMIN, rate=Rate.RPC, audited=True
):
    """Take an invite back; who came by it stays."""

    code: InviteCode


class InviteOpened(Message, kind="invites.opened"):
    """The invite and the membership log behind ``after_seq``, for the joiner to verify."""

    invite: bytes
    log: LogEntries


class OpenInvite(Request[InviteOpened], kind="invites.open", rule=Rule.OPEN, rate=Rate.AUTH):
    """Look at an invite before the hello, by its link's key; ``member`` is who wants to join.

    Whoever is a member already sees the log also when the invite is used up, by ``member_proof``.
    """

    code: InviteCode
    proof: bytes
    member: MemberId
    member_proof: bytes = b""
    after_seq: Whole = 0


class Enter(Request[LogEntries], kind="invites.enter", rule=Rule.OPEN, rate=Rate.AUTH):
    """Append the entry by which one joins; asked before the hello, of which it is the condition."""

    entry: bytes
