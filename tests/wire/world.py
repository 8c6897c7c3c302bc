"""A mesh made by hand for the tests of the wire: people, devices, entries, envelopes.

Keys are made of labels, so that a failure can be looked at twice. ``forge`` seals what ``seal``
would never make.
"""

import hashlib
import hmac
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from claudemesh_wire.address import direct_conversation
from claudemesh_wire.certificate import Certificate, CertificateFields
from claudemesh_wire.envelope import (
    COMMIT,
    DOMAIN,
    SLOT_INFO,
    Header,
    MembershipHead,
    Reader,
    Refusal,
    Sealed,
    seal,
)
from claudemesh_wire.errors import MeshError
from claudemesh_wire.invites import Invite, InviteFields, prove
from claudemesh_wire.keys import (
    KemPrivateKey,
    SigningKey,
    anchor_digest,
    b64,
    make_id,
    member_id,
    mesh_id,
    peer_id,
)
from claudemesh_wire.membership import Chain, Entry, EntryFields, walk

NOW: Final = 1_790_000_000_000
MINUTE: Final = 60_000
DAY: Final = 24 * 3600 * 1000


def seed(label: str) -> bytes:
    """32 bytes that stand for this label."""
    return hashlib.sha256(label.encode()).digest()


def code_of(act: Callable[[], object]) -> str:
    """The code of the error that an act ends with; nothing but a MeshError may come out."""
    with pytest.raises(MeshError) as caught:
        act()
    return caught.value.code


@dataclass(frozen=True)
class Person:
    """A member with its root key."""

    name: str

    @cached_property
    def key(self) -> SigningKey:
        """Its root key."""
        return SigningKey(seed(f"member {self.name}"))

    @cached_property
    def id(self) -> str:
        """Its id."""
        return member_id(self.key.public)

    def named(self) -> dict[str, Any]:
        """What an entry that brings it in says of it."""
        return {"member": self.id, "key": b64(self.key.public.raw), "name": self.name}


ADA: Final = Person("ada")
BOB: Final = Person("bob")
CLEO: Final = Person("cleo")
DAN: Final = Person("dan")
SALT: Final = seed("salt")[:16]
MESH: Final = mesh_id(ADA.key.public, SALT)
OTHER_MESH: Final = mesh_id(BOB.key.public, SALT)


@dataclass
class Log:
    """A membership log under construction; ada founds it."""

    mesh: str = MESH
    blobs: list[bytes] = field(default_factory=list[bytes])

    def __post_init__(self) -> None:
        """Let ada found it."""
        if not self.blobs:
            self.add("found", ADA, **ADA.named(), salt=b64(SALT), mesh_name="home")

    @property
    def chain(self) -> Chain:
        """What the entries so far come to."""
        return walk(self.mesh, self.blobs)

    def entry(self, kind: str, by: Person, *, signer: Person | None = None, **fields: Any) -> bytes:
        """The entry that would follow; ``fields`` may also replace its place in the log."""
        head = self.chain.head
        said: dict[str, Any] = {
            "mesh": self.mesh,
            "seq": head.seq + 1,
            "prev": b64(head.hash),
            "at": NOW,
            "kind": kind,
            "by": by.id,
        }
        return Entry.issue(EntryFields(**{**said, **fields}), (signer or by).key).blob

    def add(self, kind: str, by: Person, **fields: Any) -> "Log":
        """Append an entry."""
        self.blobs.append(self.entry(kind, by, **fields))
        return self

    def bring(self, who: Person, role: str = "member", by: Person = ADA) -> "Log":
        """Append the entry by which an admin adds a member."""
        return self.add("add", by, **who.named(), role=role)

    def refuses(self, kind: str, by: Person, **fields: Any) -> str:
        """The code with which the chain refuses what would follow."""
        blob = self.entry(kind, by, **fields)
        return code_of(lambda: self.chain.extend([blob]))


def invite(by: Person, *, signer: Person | None = None, **changes: Any) -> Invite:
    """An invite as a member for one use, proved by the key of the label ``one-time``."""
    fields: dict[str, Any] = {
        "mesh": MESH,
        "id": make_id("", seed("invite")),
        "role": "member",
        "uses": 1,
        "expires": NOW + DAY,
        "by": by.id,
        "key": b64(SigningKey(seed("one-time")).public.raw),
    }
    return Invite.issue(InviteFields(**{**fields, **changes}), (signer or by).key)


def joining(who: Person, shown: Invite, *, meant: Person | None = None) -> dict[str, Any]:
    """What a joiner's entry says that rests on this invite."""
    proof = prove(SigningKey(seed("one-time")), shown.fields, (meant or who).id)
    return {**who.named(), "role": "member", "invite": b64(shown.blob), "proof": b64(proof)}


@dataclass(frozen=True)
class Device:
    """The keys of one peer."""

    owner: Person
    handle: str
    generation: int = 1

    @cached_property
    def peer(self) -> str:
        """The peer's id."""
        return peer_id(MESH, self.owner.id, anchor_digest(self.handle))

    @cached_property
    def sign(self) -> SigningKey:
        """Its signing key."""
        return SigningKey(seed(f"device {self.handle}"))

    @cached_property
    def kem(self) -> KemPrivateKey:
        """Its opening key of this generation."""
        return KemPrivateKey(seed(f"kem {self.handle} {self.generation}"))

    def fields(self, **changes: Any) -> CertificateFields:
        """What its certificate says."""
        said: dict[str, Any] = {
            "mesh": MESH,
            "member": self.owner.id,
            "peer": self.peer,
            "anchor": b64(anchor_digest(self.handle)),
            "handle": self.handle,
            "sign": b64(self.sign.public.raw),
            "kem": b64(self.kem.public.raw),
            "kem_generation": self.generation,
            "not_before": NOW - DAY // 2,
            "not_after": NOW + DAY // 2,
        }
        return CertificateFields(**{**said, **changes})

    def certificate(self, **changes: Any) -> Certificate:
        """Its certificate, signed by its owner."""
        return Certificate.issue(self.fields(**changes), self.owner.key)


ADAS: Final = Device(ADA, "ada")
BOBS: Final = Device(BOB, "bob")
CLEOS: Final = Device(CLEO, "cleo")
DANS: Final = Device(DAN, "dan")


def header(sender: Device, readers: Sequence[Device], **changes: Any) -> Header:
    """The header of a message to these readers, valid for a day from now."""
    peers = [one.peer for one in readers]
    said: dict[str, Any] = {
        "mesh": MESH,
        "conv": direct_conversation([sender.peer, *peers]),
        "kind": "message",
        "id": make_id("msg_", seed("message")),
        "sender": sender.peer,
        "cert": b64(sender.certificate().hash),
        "mh": MembershipHead(seq=1, head=b64(seed("head"))),
        "seq": 1,
        "ts": NOW,
        "exp": NOW + DAY,
        "to": peers,
        "kgen": [one.generation for one in readers],
    }
    return Header(**{**said, **changes})


def letter(
    sender: Device, readers: Sequence[Device], plaintext: bytes = b"hello", **changes: Any
) -> Sealed:
    """A sealed message, as a client makes it."""
    keys = [one.kem.public for one in readers]
    return seal(header(sender, readers, **changes), plaintext, keys, sender.sign, seed("content"))


def as_json(said: Header, **changes: Any) -> bytes:
    """A header's bytes with any fields replaced; those that become ``None`` are left out."""
    fields = said.model_dump(mode="json", by_alias=True, exclude_none=True) | changes
    return json.dumps({name: value for name, value in fields.items() if value is not None}).encode()


@dataclass(frozen=True)
class Forgery:
    """What ``forge`` seals with; the defaults are those of an honest sender."""

    content_key: bytes = field(default_factory=lambda: seed("content"))
    slot_keys: tuple[bytes, ...] = ()
    body: bytes | None = None
    padded: bytes = b"hello\x80" + bytes(250)


def forge(
    raw: bytes, sender: Device, readers: Iterable[Device], forgery: Forgery | None = None
) -> Sealed:
    """Seal and sign any header bytes and any body: what a dishonest client could send."""
    forgery = forgery or Forgery()
    readers = list(readers)
    digest = hashlib.sha256(raw).digest()
    keys = forgery.slot_keys or (forgery.content_key,) * len(readers)
    pairs = zip(readers, keys, strict=True)
    slots = tuple(one.kem.public.seal(key, SLOT_INFO + digest) for one, key in pairs)
    body = forgery.body
    if body is None:
        body = AESGCM(forgery.content_key).encrypt(bytes(12), forgery.padded, digest)
    unsigned = Sealed(raw, slots, body, b"")
    digests = hashlib.sha256(unsigned.slot_hashes).digest(), hashlib.sha256(body).digest()
    return replace(unsigned, signature=sender.sign.sign(DOMAIN, raw, *digests))


def commitment(content_key: bytes) -> str:
    """The commitment to a content key, as a header holds it."""
    return b64(hmac.digest(content_key, COMMIT, "sha256"))


def reading(device: Device, *senders: Certificate, **changes: Any) -> Reader:
    """What this device checks an envelope against; it knows these certificates."""
    known = {b64(one.hash): one for one in senders or (ADAS.certificate(),)}

    def certificate(said: Header) -> Certificate:
        if said.cert not in known:
            raise Refusal("The certificate is not here.", code="unknown_certificate")
        return known[said.cert]

    kems = {device.generation: device.kem}
    reader = Reader(
        MESH, device.peer, NOW + 1000, certificate, lambda _sender, _message: False, kems.get
    )
    return replace(reader, **changes)
