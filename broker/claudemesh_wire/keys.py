"""Keys as types, what they sign, and the ids made of their hashes.

Certificates, membership entries, envelopes, receipts and the handshake sign and verify through
this file. Randomness is passed in as seeds; signatures cover ``PAE(domain, parts…)``, so that
nothing signed for one purpose passes for another.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from claudemesh_wire.errors import Invalid

KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
SLOT_BYTES: Final = 80
_SMALL_ORDER: Final = frozenset(
    bytes.fromhex(y)
    for y in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
)
_BASE32: Final = "abcdefghijklmnopqrstuvwxyz234567"
_BASE32_PAIRS: Final = [first + second for first in _BASE32 for second in _BASE32]
_PROBE: Final = X25519PrivateKey.from_private_bytes(bytes(KEY_BYTES))
_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def pae(*parts: bytes | str) -> bytes:
    """Encode parts so that no two different lists give the same bytes.

    Source: PASETO v4, Pre-Authentication Encoding: the count, then each part behind its length,
    all as unsigned 64-bit little-endian numbers.
    """
    pieces = [len(parts).to_bytes(8, "little")]
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        pieces += (len(data).to_bytes(8, "little"), data)
    return b"".join(pieces)


def make_id(prefix: str, sixteen: bytes) -> str:
    """Write 16 bytes as an id: the prefix and 26 characters of lower-case base32."""
    # Ten bits at a time: the library's base32 takes twice as long, and each message has ids.
    bits = int.from_bytes(sixteen[:16], "big") << 2
    return prefix + "".join([_BASE32_PAIRS[bits >> at & 1023] for at in range(120, -1, -10)])


def b64(data: bytes) -> str:
    """Write bytes as unpadded base64url."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def unb64(text: str) -> bytes:
    """Read unpadded base64url, in its one canonical spelling.

    Raises:
        Invalid: the text is not base64url, or not the spelling ``b64`` gives.
    """
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError as error:
        raise Invalid("A value is not base64url.", code="malformed") from error
    if b64(data) != text:
        raise Invalid("A value is not base64url in its canonical spelling.", code="malformed")
    return data


@lru_cache(maxsize=1024)
def public_hash(text: str) -> bytes:
    """Read a hash that many messages name, as a certificate's; raises as ``unb64``.

    What was read is remembered: never use it for a secret.
    """
    return unb64(text)


def mac(key: bytes, *parts: bytes | str) -> bytes:
    """Give HMAC-SHA256 over ``PAE(parts…)``."""
    return hmac.digest(key, pae(*parts), "sha256")


def same(left: bytes, right: bytes) -> bool:
    """Compare two secrets in constant time."""
    return hmac.compare_digest(left, right)


@dataclass(frozen=True)
class VerifyKey:
    """The public half of an Ed25519 key, as its 32 raw bytes."""

    raw: bytes

    def __post_init__(self) -> None:
        """Refuse anything but 32 bytes, and the keys under which anybody can sign."""
        if len(self.raw) != KEY_BYTES:
            raise Invalid("A signing key is not 32 bytes.", code="bad_key")
        if _is_of_small_order(self.raw):
            raise Invalid("A signing key is a point of small order.", code="bad_key")

    @cached_property
    def _key(self) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_public_bytes(self.raw)

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the raw key."""
        return hashlib.sha256(self.raw).digest()

    def accepts(self, signature: bytes, *parts: bytes | str) -> bool:
        """Tell whether the signature covers exactly these parts under this key."""
        if _is_of_small_order(signature[:KEY_BYTES]):
            return False
        try:
            self._key.verify(signature, pae(*parts))
        except (InvalidSignature, ValueError):
            return False
        return True


def _is_of_small_order(point: bytes) -> bool:
    """Tell whether an Ed25519 point has order 1, 2, 4 or 8, whatever its sign bit.

    Source: W3C Web Cryptography Level 2, Ed25519 verify: browsers refuse such a key and such an R;
    a reader that accepted them would believe what a browser does not.
    """
    return point[:-1] + bytes(byte & 0x7F for byte in point[-1:]) in _SMALL_ORDER


@dataclass(frozen=True)
class SigningKey:
    """The private half of an Ed25519 key, as its 32-byte seed."""

    seed: bytes

    def __post_init__(self) -> None:
        """Refuse anything but 32 bytes."""
        if len(self.seed) != KEY_BYTES:
            raise Invalid("A signing seed is not 32 bytes.", "Give the whole seed.", code="bad_key")

    def __repr__(self) -> str:
        """Never show the seed."""
        return "SigningKey(…)"

    @cached_property
    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)

    @cached_property
    def public(self) -> VerifyKey:
        """The half that may be shown."""
        return VerifyKey(self._key.public_key().public_bytes_raw())

    def sign(self, *parts: bytes | str) -> bytes:
        """Give the 64-byte signature over ``PAE(parts…)``; the first part names the purpose."""
        return self._key.sign(pae(*parts))


@dataclass(frozen=True)
class KemPublicKey:
    """The public half of an X25519 key to which anybody may seal, as its 32 raw bytes."""

    raw: bytes

    def __post_init__(self) -> None:
        """Refuse anything but 32 bytes, and points of small order: nothing can be sealed to them.

        Refused here, one recipient's bad key costs that recipient; refused at sealing, it would
        cost a whole group its message.
        """
        if len(self.raw) != KEY_BYTES:
            raise Invalid("A sealing key is not 32 bytes.", code="bad_key")
        try:
            _PROBE.exchange(self._key)
        except ValueError as error:
            raise Invalid("A sealing key is a point of small order.", code="bad_key") from error

    @cached_property
    def _key(self) -> X25519PublicKey:
        return X25519PublicKey.from_public_bytes(self.raw)

    def seal(self, secret: bytes, info: bytes) -> bytes:
        """Seal to this key: RFC 9180 base mode, ``enc || ciphertext``."""
        return _SUITE.encrypt(secret, self._key, info)


@dataclass(frozen=True)
class KemPrivateKey:
    """The private half of an X25519 key, as its 32 raw bytes."""

    raw: bytes

    def __post_init__(self) -> None:
        """Refuse anything but 32 bytes."""
        if len(self.raw) != KEY_BYTES:
            raise Invalid("An opening key is not 32 bytes.", "Give the whole key.", code="bad_key")

    def __repr__(self) -> str:
        """Never show the key."""
        return "KemPrivateKey(…)"

    @cached_property
    def _key(self) -> X25519PrivateKey:
        return X25519PrivateKey.from_private_bytes(self.raw)

    @cached_property
    def public(self) -> KemPublicKey:
        """The half that may be shown."""
        return KemPublicKey(self._key.public_key().public_bytes_raw())

    def open(self, sealed: bytes, info: bytes) -> bytes | None:
        """Open what was sealed to this key under the same info, or give ``None``."""
        try:
            return _SUITE.decrypt(sealed, self._key, info)
        except (InvalidTag, ValueError):
            return None


def member_id(key: VerifyKey) -> str:
    """Name a member after its key, so that an id cannot be claimed for another key."""
    return make_id("mem_", hashlib.sha256(pae("claudemesh/member/v1", key.raw)).digest())


def mesh_id(founder: VerifyKey, salt: bytes) -> str:
    """Name a mesh after its founder's key and a random salt."""
    return make_id("mesh_", hashlib.sha256(pae("claudemesh/mesh/v1", founder.raw, salt)).digest())


def broker_id(key: VerifyKey) -> str:
    """Name a broker after its key: the first 16 bytes of the key's SHA-256."""
    return make_id("b_", key.fingerprint)


def anchor_digest(anchor: str) -> bytes:
    """Sum up what a peer is anchored on, so that a certificate can show it without telling it."""
    return hashlib.sha256(pae("claudemesh/anchor/v1", anchor)).digest()


def peer_id(mesh: str, member: str, anchor: bytes) -> str:
    """Name a peer after its mesh, member and anchor digest: no other member can certify it."""
    return make_id("p_", hashlib.sha256(pae("claudemesh/peer/v1", mesh, member, anchor)).digest())
