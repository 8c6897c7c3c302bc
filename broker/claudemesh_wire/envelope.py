"""Envelope ``cm1``: a message sealed to at most 256 readers and signed by its sender.

``outbox.py`` seals, the broker splits a sealed envelope into one copy per reader, ``inbox.py``
opens. Opening goes in a fixed order, so that nothing is believed before it is proved; what can
never succeed is told apart from what may succeed later (``Refusal.permanent``).

Sealed:  u8 1 | u16be header | u32be slots      | header | slots      | body | signature(64)
Copy:    u8 1 | u16be header | u32be hash bytes | header | slot hashes | slot(80) | body | signature
"""

import hashlib
import hmac
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Final, Literal, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import ConfigDict, Field

from claudemesh_wire import canonical
from claudemesh_wire.address import direct_conversation, is_conversation
from claudemesh_wire.certificate import Certificate
from claudemesh_wire.errors import Invalid, TooMuch
from claudemesh_wire.keys import (
    KEY_BYTES,
    SIGNATURE_BYTES,
    SLOT_BYTES,
    KemPrivateKey,
    KemPublicKey,
    SigningKey,
    VerifyKey,
    b64,
    public_hash,
    same,
    unb64,
)
from claudemesh_wire.message import Digest, MeshId, MessageId, PeerId

VERSION: Final = 1
ALGORITHM: Final = "cm1"
DOMAIN: Final = "claudemesh/env/v1"
SLOT_INFO: Final = b"claudemesh/env/v1/slot"
COMMIT: Final = b"claudemesh/commit"
HASH_BYTES: Final = 32
MAX_RECIPIENTS: Final = 256
MAX_HEADER_BYTES: Final = 65_535
MAX_BODY_BYTES: Final = 320 * 1024
MAX_TTL_MS: Final = 7 * 24 * 3600 * 1000
MAX_AHEAD_MS: Final = 5 * 60 * 1000
MAX_HOPS: Final = 4
_NONCE: Final = bytes(12)
_PREFIX: Final = struct.Struct(">BHI")
_SMALL_STEP: Final = 256
_LARGE_STEP: Final = 4096
AGAIN: Final = "Ask its sender to send it again."
TRANSIENT: Final = frozenset({"unknown_certificate", "membership_behind", "future"})


class Refusal(Invalid):
    """An envelope that is not opened; ``code`` says why, ``permanent`` whether for good."""

    @property
    def permanent(self) -> bool:
        """Whether no later attempt can succeed, so that the sender is told ``declined``."""
        return self.code not in TRANSIENT


class MembershipHead(canonical.Signed):
    """The membership head the sender saw."""

    seq: Annotated[int, Field(ge=1)]
    head: Digest


class Header(canonical.Signed):
    """What stands in clear and is signed; times in milliseconds. ``seal`` fills in ``kc``."""

    model_config = ConfigDict(populate_by_name=True)

    v: int = VERSION
    alg: str = ALGORITHM
    mesh: MeshId
    conv: Annotated[str, Field(max_length=80)]
    kind: Annotated[str, Field(max_length=40)]
    id: MessageId
    sender: Annotated[PeerId, Field(alias="from")]
    cert: Digest
    mh: MembershipHead
    seq: Annotated[int, Field(ge=1)]
    ts: int
    exp: int
    to: Annotated[list[PeerId], Field(min_length=1, max_length=MAX_RECIPIENTS)]
    kgen: list[int]
    kc: Digest | Literal[""] = ""
    re: MessageId | None = None
    hop: Annotated[int, Field(ge=0, le=MAX_HOPS)] | None = None
    via: Annotated[str, Field(max_length=80)] | None = None


def parse_header(raw: bytes) -> Header:
    """Read header bytes and check what they say of themselves.

    Raises:
        Refusal: malformed, another version or algorithm, lists of different length, a reader twice.
    """
    try:
        header = canonical.decode(raw, Header, "envelope header")
    except Invalid as error:
        raise Refusal(error.reason, error.hint, code=error.code) from error
    if "alg" not in header.model_fields_set or not header.kc:
        raise Refusal("The envelope names no algorithm or no commitment.", code="malformed")
    if header.alg != ALGORITHM:
        raise Refusal("The envelope is of an unknown algorithm.", code="unsupported_version")
    if len(header.kgen) != len(header.to) or len(set(header.to)) != len(header.to):
        raise Refusal("The envelope's list of readers is inconsistent.", code="malformed")
    if not is_conversation(header.conv):
        raise Refusal("The envelope names no conversation.", code="malformed")
    return header


@dataclass(frozen=True)
class Sealed:
    """A whole envelope, as its sender made it and the broker accepts it."""

    header: bytes
    slots: tuple[bytes, ...]
    body: bytes
    signature: bytes

    @classmethod
    def parse(cls, blob: bytes) -> Self:
        """Take the bytes apart.

        Raises:
            Refusal: another version, a length that does not fit, or a size above its cap.
        """
        header, slots, rest = _split(blob)
        if len(slots) % SLOT_BYTES or not SLOT_BYTES <= len(slots) <= SLOT_BYTES * MAX_RECIPIENTS:
            raise Refusal("The envelope's slots have no plausible size.", code="malformed")
        body, signature = _body_and_signature(rest)
        cut = range(0, len(slots), SLOT_BYTES)
        return cls(header, tuple(slots[at : at + SLOT_BYTES] for at in cut), body, signature)

    def to_bytes(self) -> bytes:
        """Give the bytes that travel and are kept."""
        slots = b"".join(self.slots)
        prefix = _PREFIX.pack(VERSION, len(self.header), len(slots))
        return b"".join((prefix, self.header, slots, self.body, self.signature))

    def read_header(self) -> Header:
        """Give the header; raises ``Refusal`` as ``parse_header``, and unless slots fit readers."""
        header = parse_header(self.header)
        if len(header.to) != len(self.slots):
            raise Refusal("The envelope's slots do not fit its readers.", code="malformed")
        return header

    @cached_property
    def header_hash(self) -> bytes:
        """SHA-256 of the header bytes."""
        return hashlib.sha256(self.header).digest()

    @cached_property
    def slot_hashes(self) -> bytes:
        """The SHA-256 of every slot, one behind the other."""
        return b"".join(hashlib.sha256(slot).digest() for slot in self.slots)

    def copy_for(self, position: int) -> "Copy":
        """Give the copy that carries one reader's slot and only the hashes of the others."""
        return Copy(self.header, self.slot_hashes, self.slots[position], self.body, self.signature)


@dataclass(frozen=True)
class Copy:
    """One reader's copy of an envelope."""

    header: bytes
    slot_hashes: bytes
    slot: bytes
    body: bytes
    signature: bytes

    @classmethod
    def parse(cls, blob: bytes) -> Self:
        """Take the bytes apart; raises ``Refusal`` as ``Sealed.parse`` does."""
        header, hashes, rest = _split(blob)
        if len(hashes) % HASH_BYTES or not 0 < len(hashes) <= HASH_BYTES * MAX_RECIPIENTS:
            raise Refusal("The envelope's hashes have no plausible size.", code="malformed")
        body, signature = _body_and_signature(rest[SLOT_BYTES:])
        return cls(header, hashes, rest[:SLOT_BYTES], body, signature)

    def to_bytes(self) -> bytes:
        """Give the bytes that travel."""
        prefix = _PREFIX.pack(VERSION, len(self.header), len(self.slot_hashes))
        return b"".join(
            (prefix, self.header, self.slot_hashes, self.slot, self.body, self.signature)
        )

    @cached_property
    def fields(self) -> Header:
        """What the header says; raises ``Refusal`` as ``parse_header`` does."""
        return parse_header(self.header)

    @cached_property
    def header_hash(self) -> bytes:
        """SHA-256 of the header bytes."""
        return hashlib.sha256(self.header).digest()


@dataclass(frozen=True)
class Opened:
    """An envelope that passed every check."""

    header: Header
    header_hash: bytes
    certificate: Certificate
    plaintext: bytes


@dataclass(frozen=True)
class Reader:
    """What an envelope is checked against: who I am, what I know, what time it is.

    Args:
        mesh: The mesh I read in.
        peer: My own id.
        now_ms: The time, as the broker's welcome corrected it.
        certificate: Gives the verified certificate of a hash; raises ``Refusal`` otherwise.
        seen_before: Tells whether (sender, message id) is in the durable inbox already.
        kem_key: Gives my opening key of a generation, or ``None`` when it is gone.
    """

    mesh: str
    peer: str
    now_ms: int
    certificate: Callable[[Header], Certificate]
    seen_before: Callable[[str, str], bool]
    kem_key: Callable[[int], KemPrivateKey | None]


def seal(
    header: Header,
    plaintext: bytes,
    readers: list[KemPublicKey],
    signer: SigningKey,
    content_key: bytes,
) -> Sealed:
    """Seal a message to its readers and sign it.

    Args:
        header: All of it but the key commitment, which is filled in here.
        plaintext: The content, at most 320 KiB with its padding.
        readers: One sealing key for each entry of ``header.to``, in that order.
        signer: The sender's device key.
        content_key: 32 random bytes for this sealing alone: sealing the same message again, as
            for another list of readers, takes a new key, or both bodies are readable.

    Raises:
        TooMuch: more than 256 readers, or too large a header or body.
        Invalid: the lists differ in length, or the content key is not 32 bytes.
    """
    if len(readers) > MAX_RECIPIENTS:
        raise TooMuch(
            f"An envelope has at most {MAX_RECIPIENTS} recipients.",
            "Write to a topic to reach more.",
            code="too_many_recipients",
        )
    if not len(readers) == len(header.to) == len(header.kgen):
        raise Invalid("Every recipient needs one key and one generation.", "Give both for each.")
    if len(content_key) != KEY_BYTES:
        raise Invalid("A content key is not 32 bytes.", "Draw 32 random ones.", code="bad_key")
    committed = header.model_copy(update={"kc": b64(_commitment(content_key))})
    raw = canonical.encode(committed.model_dump(mode="json", by_alias=True))
    padded = _pad(plaintext)
    if len(raw) > MAX_HEADER_BYTES or len(padded) + 16 > MAX_BODY_BYTES:
        raise TooMuch("The message is too large.", "Share it as a file.", code="message_too_large")
    header_hash = hashlib.sha256(raw).digest()
    slots = tuple(key.seal(content_key, SLOT_INFO + header_hash) for key in readers)
    body = AESGCM(content_key).encrypt(_NONCE, padded, header_hash)
    unsigned = Sealed(raw, slots, body, b"")
    signature = signer.sign(DOMAIN, raw, *_digests(unsigned.slot_hashes, body))
    return Sealed(raw, slots, body, signature)


def open_copy(copy: Copy, reader: Reader) -> Opened:
    """Check one's own copy in the fixed order and open it.

    Raises:
        Refusal: the first check that failed.
    """
    header = copy.fields
    certificate = reader.certificate(header)
    _check_signature(copy, header, certificate)
    _check_audience(header, reader)
    _check_time(header, reader.now_ms)
    if reader.seen_before(header.sender, header.id):
        raise Refusal("The envelope was received before.", "Look into the inbox.", code="replay")
    content_key = _open_slot(copy, header, reader)
    if not same(unb64(header.kc), _commitment(content_key)):
        raise Refusal("The envelope's key is not the one committed to.", AGAIN, code="commitment")
    try:
        padded = AESGCM(content_key).decrypt(_NONCE, copy.body, copy.header_hash)
    except InvalidTag as error:
        raise Refusal("The envelope's body was altered.", AGAIN, code="bad_body") from error
    return Opened(header, copy.header_hash, certificate, _unpad(padded))


def verify_key_accepts(copy: Copy, key: VerifyKey) -> bool:
    """Tell whether the copy's signature is this device key's."""
    return key.accepts(copy.signature, DOMAIN, copy.header, *_digests(copy.slot_hashes, copy.body))


def _check_signature(copy: Copy, header: Header, certificate: Certificate) -> None:
    fields = certificate.fields
    if public_hash(header.cert) != certificate.hash or fields.peer != header.sender:
        raise Refusal("The certificate is not the sender's.", code="wrong_certificate")
    if fields.mesh != header.mesh or not certificate.covers(header.ts):
        raise Refusal(
            "The certificate did not hold when this was written.", AGAIN, code="not_certified"
        )
    if len(copy.slot_hashes) != HASH_BYTES * len(header.to):
        raise Refusal("The envelope's hashes do not fit its readers.", code="malformed")
    if not verify_key_accepts(copy, certificate.sign_key):
        raise Refusal("The envelope's signature is not its sender's.", code="bad_signature")


def _check_audience(header: Header, reader: Reader) -> None:
    if header.mesh != reader.mesh:
        raise Refusal("The envelope belongs to another mesh.", code="wrong_mesh")
    direct = header.conv.startswith("d_")
    if direct and header.conv != direct_conversation([header.sender, *header.to]):
        raise Refusal("The envelope names a conversation of others.", code="wrong_conversation")
    if reader.peer not in header.to:
        raise Refusal("The envelope is not addressed to this peer.", AGAIN, code="not_addressed")


def _check_time(header: Header, now_ms: int) -> None:
    if header.ts > now_ms + MAX_AHEAD_MS:
        raise Refusal("The envelope is from the future.", "Check the clocks.", code="future")
    if not header.ts <= header.exp <= header.ts + MAX_TTL_MS + MAX_AHEAD_MS:
        raise Refusal("The envelope's lifetime is out of bounds.", code="malformed")
    if now_ms > header.exp:
        raise Refusal("The envelope has expired.", AGAIN, code="expired")


def _open_slot(copy: Copy, header: Header, reader: Reader) -> bytes:
    position = header.to.index(reader.peer)
    hashes = copy.slot_hashes[position * HASH_BYTES : (position + 1) * HASH_BYTES]
    if hashlib.sha256(copy.slot).digest() != hashes:
        raise Refusal("The slot is not the one the sender signed.", AGAIN, code="wrong_slot")
    key = reader.kem_key(header.kgen[position])
    opened = key.open(copy.slot, SLOT_INFO + copy.header_hash) if key else None
    if opened is None or len(opened) != KEY_BYTES:
        raise Refusal("The key this was sealed to is gone.", AGAIN, code="no_key")
    return opened


def _commitment(content_key: bytes) -> bytes:
    return hmac.digest(content_key, COMMIT, "sha256")


def _digests(slot_hashes: bytes, body: bytes) -> tuple[bytes, bytes]:
    return hashlib.sha256(slot_hashes).digest(), hashlib.sha256(body).digest()


def _split(blob: bytes) -> tuple[bytes, bytes, bytes]:
    """Give header, the middle part and the rest."""
    if len(blob) < _PREFIX.size:
        raise Refusal("The envelope is cut short.", code="malformed")
    version, header_length, middle_length = _PREFIX.unpack_from(blob)
    if version != VERSION:
        raise Refusal("The envelope is of an unknown version.", code="unsupported_version")
    middle = _PREFIX.size + header_length
    rest = middle + middle_length
    if rest > len(blob):
        raise Refusal("The envelope is cut short.", code="malformed")
    return blob[_PREFIX.size : middle], blob[middle:rest], blob[rest:]


def _body_and_signature(rest: bytes) -> tuple[bytes, bytes]:
    body, signature = rest[:-SIGNATURE_BYTES], rest[-SIGNATURE_BYTES:]
    if len(signature) != SIGNATURE_BYTES or not 0 < len(body) <= MAX_BODY_BYTES:
        raise Refusal("The envelope's body has no plausible size.", code="malformed")
    return body, signature


def _pad(plaintext: bytes) -> bytes:
    """Pad to a step of 256 bytes, above 4 KiB to a step of 4 KiB (ISO/IEC 7816-4)."""
    needed = len(plaintext) + 1
    step = _SMALL_STEP if needed <= _LARGE_STEP else _LARGE_STEP
    return plaintext + b"\x80" + bytes(-needed % step)


def _unpad(padded: bytes) -> bytes:
    stripped = padded.rstrip(b"\x00")
    if not stripped.endswith(b"\x80"):
        raise Refusal("The envelope's padding is broken.", AGAIN, code="bad_body")
    return stripped[:-1]
