"""People, their mesh, and the devices of their peers, for tests of the broker.

Keys are random; a mesh is its log, which a test extends as it likes.
"""

import secrets
from dataclasses import dataclass, field, replace
from typing import Any, Final

from claudemesh_wire.certificate import LIFETIME_MS, Certificate, CertificateFields
from claudemesh_wire.keys import (
    KemPrivateKey,
    SigningKey,
    anchor_digest,
    b64,
    member_id,
    mesh_id,
    peer_id,
)
from claudemesh_wire.membership import Chain, Entry, EntryFields, walk
from claudemesh_wire.message import Role

NOW: Final = 1_790_000_000_000
DAY: Final = 24 * 3600 * 1000


@dataclass(frozen=True)
class Person:
    """A member and its root key."""

    name: str
    key: SigningKey = field(default_factory=lambda: SigningKey(secrets.token_bytes(32)))

    @property
    def id(self) -> str:
        """Its id."""
        return member_id(self.key.public)


class Mesh:
    """A membership log in the making; the first person founds it."""

    def __init__(self, founder: Person) -> None:
        salt = secrets.token_bytes(16)
        self.id = mesh_id(founder.key.public, salt)
        self.founder = founder
        self.log: list[bytes] = []
        self.say(
            founder,
            "found",
            member=founder.id,
            key=b64(founder.key.public.raw),
            name=founder.name,
            salt=b64(salt),
            mesh_name="home",
        )

    @property
    def chain(self) -> Chain:
        """What the log comes to."""
        return walk(self.id, self.log)

    def entry(self, by: Person, kind: str, **fields: Any) -> bytes:
        """Sign what would be the next entry."""
        head = self.chain.head
        said = EntryFields(
            mesh=self.id,
            seq=head.seq + 1,
            prev=b64(head.hash),
            at=fields.pop("at", NOW),
            kind=kind,
            by=by.id,
            **fields,
        )
        return Entry.issue(said, by.key).blob

    def say(self, by: Person, kind: str, **fields: Any) -> bytes:
        """Append an entry."""
        blob = self.entry(by, kind, **fields)
        self.log.append(blob)
        return blob

    def add(self, name: str, role: Role = Role.MEMBER, **fields: Any) -> Person:
        """Append a new member."""
        newcomer = Person(name)
        key = b64(newcomer.key.public.raw)
        self.say(self.founder, "add", member=newcomer.id, key=key, name=name, role=role, **fields)
        return newcomer


@dataclass(frozen=True)
class Device:
    """The keys of one peer."""

    mesh: Mesh
    owner: Person
    anchor: str
    sign: SigningKey = field(default_factory=lambda: SigningKey(secrets.token_bytes(32)))
    kem: KemPrivateKey = field(default_factory=lambda: KemPrivateKey(secrets.token_bytes(32)))
    generation: int = 1

    @property
    def peer(self) -> str:
        """Its peer's id."""
        return peer_id(self.mesh.id, self.owner.id, anchor_digest(self.anchor))

    def certificate(self, handle: str, now_ms: int = NOW, **changed: Any) -> Certificate:
        """Sign a certificate for a handle."""
        said: dict[str, Any] = {
            "mesh": self.mesh.id,
            "member": self.owner.id,
            "peer": self.peer,
            "anchor": b64(anchor_digest(self.anchor)),
            "handle": handle,
            "sign": b64(self.sign.public.raw),
            "kem": b64(self.kem.public.raw),
            "kem_generation": self.generation,
            "not_before": now_ms,
            "not_after": now_ms + LIFETIME_MS,
        }
        return Certificate.issue(CertificateFields(**{**said, **changed}), self.owner.key)

    def renewed(self) -> "Device":
        """Give the same device with a new opening key."""
        kem = KemPrivateKey(secrets.token_bytes(32))
        return replace(self, kem=kem, generation=self.generation + 1)
