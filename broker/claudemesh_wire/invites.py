"""Invites: an admin's signed permission to join, proved by a one-time key.

``membership.py`` walks the entries that rest on one. The key's seed travels in a URL fragment,
which no server sees; the invite itself is public and ends up inside the membership entry.
"""

from dataclasses import dataclass
from typing import Annotated, Final, Self

from pydantic import Field

from claudemesh_wire import canonical
from claudemesh_wire.errors import Invalid
from claudemesh_wire.keys import SIGNATURE_BYTES, SigningKey, VerifyKey, unb64
from claudemesh_wire.message import MemberId, MeshId

DOMAIN: Final = "claudemesh/invite/v1"
PROOF_DOMAIN: Final = "claudemesh/join/v1"
MAX_INVITE_BYTES: Final = 2048


class InviteFields(canonical.Signed):
    """What an invite gives: a role, a number of uses, until when (ms); ``key`` is base64url."""

    v: int = 1
    mesh: MeshId
    id: Annotated[str, Field(pattern="^[a-z2-7]{26}$")]
    role: str
    uses: Annotated[int, Field(ge=1, le=10_000)]
    expires: int
    by: MemberId
    key: str


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
