"""Certificates: a member's word that a device – the keys one peer holds – is its own.

``identity.py`` issues them, the broker publishes them, every reader verifies them against the
member's key from the membership chain. A certificate is ``payload || signature(64)``; its hash
names it in envelope headers and receipts.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final, Self

from pydantic import Field

from claudemesh_wire import canonical
from claudemesh_wire.address import Handle
from claudemesh_wire.errors import Invalid
from claudemesh_wire.keys import (
    SIGNATURE_BYTES,
    KemPublicKey,
    SigningKey,
    VerifyKey,
    mac,
    peer_id,
    same,
    unb64,
)
from claudemesh_wire.message import Digest, MemberId, MeshId, PeerId

DOMAIN: Final = "claudemesh/certificate/v1"
LOCALITY_DOMAIN: Final = "claudemesh/locality/v1"
LIFETIME_MS: Final = 24 * 3600 * 1000
MAX_LIFETIME_MS: Final = LIFETIME_MS + 3600 * 1000
MAX_CERTIFICATE_BYTES: Final = 4096


class CertificateFields(canonical.Signed):
    """What a certificate says; keys and the locality tag are base64url, times milliseconds."""

    v: int = 1
    mesh: MeshId
    member: MemberId
    peer: PeerId
    anchor: Digest
    handle: Handle
    sign: str
    kem: str
    kem_generation: int
    not_before: int
    not_after: int
    caps: list[str] = Field(default_factory=list[str])
    locality: str = ""


@dataclass(frozen=True)
class Certificate:
    """A certificate with the bytes that carry it; parsed does not mean verified."""

    blob: bytes
    fields: CertificateFields

    @classmethod
    def issue(cls, fields: CertificateFields, member: SigningKey) -> Self:
        """Sign the fields with the member's key."""
        payload = canonical.encode(fields)
        return cls(payload + member.sign(DOMAIN, payload), fields)

    @classmethod
    def parse(cls, blob: bytes) -> Self:
        """Read a certificate without trusting it.

        Raises:
            Invalid: too long or short, malformed, another version, an unusable key, a peer that is
                not its member's, or a lifetime above the longest.
        """
        if not SIGNATURE_BYTES < len(blob) <= MAX_CERTIFICATE_BYTES:
            raise Invalid("The certificate has no plausible size.", code="malformed")
        return cls._read(blob)

    @classmethod
    @lru_cache(maxsize=1024)
    def _read(cls, blob: bytes) -> Self:
        """Read and check the bytes: once, for a program that is many peers sees each many times."""
        fields = canonical.decode(blob[:-SIGNATURE_BYTES], CertificateFields, "certificate")
        parsed = cls(blob, fields)
        _ = parsed.sign_key, parsed.kem_key
        if fields.peer != peer_id(fields.mesh, fields.member, unb64(fields.anchor)):
            raise Invalid(
                "A certificate is for a peer of somebody else.",
                "Make it for a peer of the member that signs it.",
                code="foreign_peer",
            )
        if fields.not_after - fields.not_before > MAX_LIFETIME_MS:
            raise Invalid("A certificate is valid for too long.", code="malformed")
        return parsed

    @cached_property
    def hash(self) -> bytes:
        """SHA-256 of the whole certificate: its name."""
        return hashlib.sha256(self.blob).digest()

    @cached_property
    def sign_key(self) -> VerifyKey:
        """The device key that signs this peer's envelopes, receipts and hellos."""
        return VerifyKey(unb64(self.fields.sign))

    @cached_property
    def kem_key(self) -> KemPublicKey:
        """The device key to which others seal."""
        return KemPublicKey(unb64(self.fields.kem))

    def is_signed_by(self, member: VerifyKey) -> bool:
        """Tell whether this member's key signed it."""
        return _is_signed(self.blob, member.raw)

    def covers(self, at_ms: int) -> bool:
        """Tell whether a new signature made at this time is within its validity."""
        return self.fields.not_before <= at_ms <= self.fields.not_after

    def is_local_to(self, machine_secret: bytes) -> bool:
        """Tell whether its holder knew the secret file of this machine and user."""
        tag = mac(machine_secret, LOCALITY_DOMAIN, self.sign_key.raw)
        return same(self.fields.locality.encode(), tag.hex().encode())


@lru_cache(maxsize=1024)
def _is_signed(blob: bytes, key: bytes) -> bool:
    payload, signature = blob[:-SIGNATURE_BYTES], blob[-SIGNATURE_BYTES:]
    return VerifyKey(key).accepts(signature, DOMAIN, payload)


def locality_tag(machine_secret: bytes, device: VerifyKey) -> str:
    """Prove to readers that share the secret file that the device is on their machine."""
    return mac(machine_secret, LOCALITY_DOMAIN, device.raw).hex()
