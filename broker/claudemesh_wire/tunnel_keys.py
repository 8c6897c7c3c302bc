"""The keys of a tunnel: two signed ephemeral keys agree on one key for each direction.

``claudemesh_mcp.tunnels`` makes offers and answers with it and seals what it passes. Whoever
recorded all of it and later learns the devices' keys can read none of it. An offer that is played
again leads to keys that only the caller of then could make: an answer to it is of no use.

Offer and answer are ``payload || signature(64)`` of canonical JSON. Source: signed Diffie-Hellman
as in SIGMA; X25519 (RFC 7748), HKDF-SHA256 (RFC 5869), AES-256-GCM with counters as nonces.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Generic, Self, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from claudemesh_wire import canonical
from claudemesh_wire.certificate import Certificate
from claudemesh_wire.errors import Forbidden, Invalid, ProtocolError
from claudemesh_wire.keys import KEY_BYTES, SIGNATURE_BYTES, b64, pae, unb64
from claudemesh_wire.message import Digest, MeshId, PeerId
from claudemesh_wire.tunnels import MAX_OFFER_BYTES

OFFER_DOMAIN: Final = "claudemesh/tunnel-offer/v1"
ANSWER_DOMAIN: Final = "claudemesh/tunnel-answer/v1"
KEYS_DOMAIN: Final = "claudemesh/tunnel-keys/v1"
_NONCE_BYTES: Final = 12
_MOST_SEALED: Final = 2**32

Sign = Callable[..., bytes]
"""Signs parts with the key of a device, as ``SigningKey.sign``."""


class OfferFields(canonical.Signed):
    """Who wants a line to whom; ``eph`` is the caller's ephemeral key, ``at`` milliseconds."""

    v: int = 1
    mesh: MeshId
    caller: PeerId
    callee: PeerId
    cert: Digest
    eph: Digest
    at: int


class AnswerFields(canonical.Signed):
    """That the callee takes the offer with the hash ``offer``."""

    v: int = 1
    offer: Digest
    callee: PeerId
    cert: Digest
    eph: Digest


FieldsT = TypeVar("FieldsT", OfferFields, AnswerFields)


@dataclass(frozen=True)
class _Said(Generic[FieldsT]):
    """What one end says at the beginning, with the bytes that carry it."""

    blob: bytes
    fields: FieldsT

    @cached_property
    def hash(self) -> bytes:
        """SHA-256 of the whole of it."""
        return hashlib.sha256(self.blob).digest()

    def _check(self, domain: str, certificate: Certificate, mesh: str, peer: str) -> None:
        """Believe it by the certificate that it has to name, which was verified."""
        shown = certificate.fields
        named = (shown.mesh, shown.peer, b64(certificate.hash))
        if named != (mesh, peer, self.fields.cert):
            raise _forged("The beginning of a tunnel names another certificate.")
        signature, payload = self.blob[-SIGNATURE_BYTES:], self.blob[:-SIGNATURE_BYTES]
        if not certificate.sign_key.accepts(signature, domain, payload):
            raise _forged("The beginning of a tunnel was not signed by who it claims to be of.")


class Offer(_Said[OfferFields]):
    """What the caller offers; parsed does not mean believed."""

    @classmethod
    def make(cls, fields: OfferFields, sign: Sign) -> Self:
        """Sign an offer by the caller's device."""
        return cls(_signed(fields, OFFER_DOMAIN, sign), fields)

    @classmethod
    def parse(cls, blob: bytes) -> Self:
        """Read an offer without believing it; raises ``Invalid``."""
        return cls(blob, _read(blob, OfferFields, "tunnel offer"))

    def check(self, certificate: Certificate) -> None:
        """Believe it by the caller's certificate, which was verified; raises ``Forbidden``."""
        self._check(OFFER_DOMAIN, certificate, self.fields.mesh, self.fields.caller)


class Answer(_Said[AnswerFields]):
    """What the callee answers; parsed does not mean believed."""

    @classmethod
    def make(cls, fields: AnswerFields, sign: Sign) -> Self:
        """Sign an answer by the callee's device."""
        return cls(_signed(fields, ANSWER_DOMAIN, sign), fields)

    @classmethod
    def parse(cls, blob: bytes) -> Self:
        """Read an answer without believing it; raises ``Invalid``."""
        return cls(blob, _read(blob, AnswerFields, "tunnel answer"))

    def check(self, offer: Offer, certificate: Certificate) -> None:
        """Believe it by the callee's certificate, which was verified; raises ``Forbidden``."""
        self._check(ANSWER_DOMAIN, certificate, offer.fields.mesh, self.fields.callee)
        if (self.fields.callee, self.fields.offer) != (offer.fields.callee, b64(offer.hash)):
            raise _forged("An answer to a tunnel is not to this offer.")


class EphemeralKey:
    """An X25519 key that is made for one tunnel and forgotten with it.

    Args:
        seed: 32 random bytes.
    """

    def __init__(self, seed: bytes) -> None:
        self._key = X25519PrivateKey.from_private_bytes(seed)

    @property
    def public(self) -> str:
        """The half that is shown, as base64url."""
        return b64(self._key.public_key().public_bytes_raw())

    def agree(self, public: str) -> bytes:
        """Give the secret that both ends can make.

        Raises:
            Invalid: ``bad_key``: the other key is a point of small order.
        """
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(unb64(public)))
        except ValueError as error:
            raise Invalid("A tunnel's key is a point of small order.", code="bad_key") from error


@dataclass(frozen=True)
class Directions:
    """What seals and what opens at one end."""

    out: "Sealing"
    back: "Sealing"


def directions(secret: bytes, offer: Offer, answer: Answer, *, is_caller: bool) -> Directions:
    """Give both directions of a tunnel, as one of its ends uses them.

    Args:
        secret: What both ephemeral keys agree on.
        offer: Believed.
        answer: Believed.
        is_caller: Whether the end is the caller's.
    """
    transcript = hashlib.sha256(pae(KEYS_DOMAIN, offer.blob, answer.blob)).digest()
    made = HKDF(SHA256(), 2 * KEY_BYTES, transcript, KEYS_DOMAIN.encode()).derive(secret)
    to_callee, to_caller = (
        Sealing(key, transcript) for key in (made[:KEY_BYTES], made[KEY_BYTES:])
    )
    return Directions(to_callee, to_caller) if is_caller else Directions(to_caller, to_callee)


class Sealing:
    """One direction of a tunnel, at one end: seals, or opens, one piece after the other.

    Args:
        key: Of this direction.
        transcript: What both ends saw of the beginning.
    """

    def __init__(self, key: bytes, transcript: bytes) -> None:
        self._cipher = AESGCM(key)
        self._transcript = transcript
        self._count = 0

    def seal(self, piece: bytes) -> bytes:
        """Seal the next piece."""
        return self._cipher.encrypt(self._nonce(), piece, self._transcript)

    def open(self, sealed: bytes) -> bytes:
        """Open the next piece.

        Raises:
            ProtocolError: ``tunnel_broken``: it was altered, or is not the next.
        """
        try:
            return self._cipher.decrypt(self._nonce(), sealed, self._transcript)
        except InvalidTag as error:
            raise ProtocolError(
                "What came through a tunnel is not what was sent.",
                "Try again; if it goes on, do not rely on this broker.",
                code="tunnel_broken",
            ) from error

    def _nonce(self) -> bytes:
        if self._count >= _MOST_SEALED:
            raise ProtocolError(
                "A tunnel has been used for too long.",
                "Try again over a new one.",
                code="tunnel_broken",
            )
        nonce = self._count.to_bytes(_NONCE_BYTES, "big")
        self._count += 1
        return nonce


def _signed(fields: OfferFields | AnswerFields, domain: str, sign: Sign) -> bytes:
    payload = canonical.encode(fields)
    return payload + sign(domain, payload)


def _read(blob: bytes, model: type[FieldsT], what: str) -> FieldsT:
    if not SIGNATURE_BYTES < len(blob) <= MAX_OFFER_BYTES:
        raise Invalid("The beginning of a tunnel has no plausible size.", code="malformed")
    return canonical.decode(blob[:-SIGNATURE_BYTES], model, what)


def _forged(reason: str) -> Forbidden:
    return Forbidden(reason, "Do not rely on this broker's word about it.", code="forged_tunnel")
