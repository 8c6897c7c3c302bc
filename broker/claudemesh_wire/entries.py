"""Membership entries: what an admin, or a joiner with an invite, signs about the members of a mesh.

``membership.py`` walks them. An entry is ``payload || signature(64)`` and names the hash of the
entry before it, so that a log can't be shortened or changed unnoticed.
"""

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from claudemesh_wire import canonical
from claudemesh_wire.address import Handle
from claudemesh_wire.errors import Invalid
from claudemesh_wire.keys import SIGNATURE_BYTES, SigningKey, VerifyKey
from claudemesh_wire.message import Digest, MemberId, MeshId

DOMAIN: Final = "claudemesh/membership/v1"
MAX_ENTRY_BYTES: Final = 8192


class EntryKind(StrEnum):
    """What an entry does."""

    FOUND = "found"
    ADD = "add"
    REMOVE = "remove"
    ROLE = "role"
    CUSTODY = "custody"
    REVOKE_DEVICE = "revoke_device"
    RETURN = "return"
    """A removal that had an end is over: signed by the member itself."""
    RENAME = "rename"
    END = "end"
    """An owner has ended the mesh; nothing follows."""


class Custody(StrEnum):
    """Who holds a member's private key."""

    SELF = "self"
    BROKER = "broker"
    CONNECTOR = "connector"


class EntryFields(canonical.Signed):
    """What an entry says. Which optional fields it needs is a matter of its kind.

    ``expires`` ends a membership that is added with it, and a removal that is made with it (ms).
    ``name_until`` keeps the name of whom it removes from those who join, until then (ms).
    """

    v: int = 1
    mesh: MeshId
    seq: int
    prev: str
    at: int
    kind: str
    by: MemberId
    member: MemberId | None = None
    key: str | None = None
    name: Handle | None = None
    role: str | None = None
    custody: str | None = None
    scopes: list[str] | None = None
    expires: int | None = None
    name_until: int | None = None
    salt: str | None = None
    mesh_name: Handle | None = None
    device: Digest | None = None
    invite: str | None = None
    proof: str | None = None


@dataclass(frozen=True)
class Entry:
    """An entry with the bytes that carry it; parsed does not mean believed."""

    blob: bytes
    fields: EntryFields

    @classmethod
    def issue(cls, fields: EntryFields, signer: SigningKey) -> Self:
        """Sign the fields with the key of the member in ``by``."""
        payload = canonical.encode(fields)
        return cls(payload + signer.sign(DOMAIN, payload), fields)

    @classmethod
    def parse(cls, blob: bytes) -> Self:
        """Read an entry without believing it.

        Raises:
            Invalid: no plausible size, malformed, or another version.
        """
        if not SIGNATURE_BYTES < len(blob) <= MAX_ENTRY_BYTES:
            raise Invalid("A membership entry has no plausible size.", code="malformed")
        payload = blob[:-SIGNATURE_BYTES]
        return cls(blob, canonical.decode(payload, EntryFields, "membership entry"))

    @property
    def hash(self) -> bytes:
        """SHA-256 of the whole entry."""
        return hashlib.sha256(self.blob).digest()

    def is_signed_by(self, key: VerifyKey) -> bool:
        """Tell whether this key signed it."""
        return key.accepts(self.blob[-SIGNATURE_BYTES:], DOMAIN, self.blob[:-SIGNATURE_BYTES])
