"""Who this home is: its member, its local mesh, and the device keys of each of its peers.

``sdk.py`` opens an identity in a worker thread before it connects. Everything is made on first use
under the home's lock, in steps that each look first at what is there, so that a start killed at any
point is finished by the next one with the same identity. Keys are kept in sealed files.
"""

import getpass
import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from claudemesh_mcp import meshes
from claudemesh_mcp.config import Settings
from claudemesh_mcp.home import Home, create_once, private_folder, read_private
from claudemesh_mcp.keystore import open_wrapping_key
from claudemesh_mcp.meshes import KnownMesh, Place, choose, known_meshes
from claudemesh_mcp.sealedfile import NEVER_NEW, SealedFile, WrappingKey, damaged
from claudemesh_wire.address import handle_from
from claudemesh_wire.certificate import (
    LIFETIME_MS,
    Certificate,
    CertificateFields,
    locality_tag,
)
from claudemesh_wire.errors import MeshError, NotFound
from claudemesh_wire.keys import (
    KemPrivateKey,
    SigningKey,
    anchor_digest,
    b64,
    member_id,
    mesh_id,
    peer_id,
    unb64,
)
from claudemesh_wire.membership import NO_HEAD, Entry, EntryFields, EntryKind, walk

Checkpoint = Callable[[str], None]

CHECKPOINTS: Final = (
    "member:before",
    "member:after",
    "machine:after",
    "mesh:before",
    "mesh:after",
)
PEER_ID: Final = re.compile("p_[a-z2-7]{26}")
KEM_ROTATION_MS: Final = 24 * 3600 * 1000
KEM_KEPT_MS: Final = 8 * 24 * 3600 * 1000
# A certificate starts a little in the past, so that a reader with a slower clock accepts it.
_BACKDATED_MS: Final = 10 * 60 * 1000


def _pass(_name: str) -> None:
    """Go on: outside of tests nothing happens between two steps."""


@dataclass(frozen=True)
class Identity:
    """A member and the mesh it is in.

    Args:
        home: Where everything is kept.
        wrapping: The key that seals this profile's key files.
        key: The member's root key, which never leaves this home.
        name: The member's name in its local mesh, which it also wishes for in others.
        mesh: The mesh's id.
        founding: The mesh's first membership entry.
        machine_secret: 32 bytes that peers on this machine share: the proof of locality.
        mesh_name: What this home calls the mesh.
        place: Where the mesh's broker is; ``None`` for the embedded one.
    """

    home: Home
    wrapping: WrappingKey
    key: SigningKey
    name: str
    mesh: str
    founding: bytes
    machine_secret: bytes = field(repr=False)
    mesh_name: str = meshes.LOCAL
    place: Place | None = None

    @cached_property
    def member(self) -> str:
        """The member's id."""
        return member_id(self.key.public)

    def peer(self, anchor: str) -> str:
        """Give the id of the peer that is anchored there.

        Args:
            anchor: A Claude session id or resume id with its kind (``claude:…``), or the id of a
                peer that this home has kept.

        Raises:
            NotFound: ``unknown_peer``: this home has kept no peer of that id.
        """
        if not PEER_ID.fullmatch(anchor):
            return peer_id(self.mesh, self.member, anchor_digest(anchor))
        if not (self.home.sessions / anchor).is_dir():
            raise _unknown_peer(anchor)
        return anchor

    def folder(self, peer: str) -> Path:
        """Give the folder of one peer, made on first use."""
        return private_folder(self.home.sessions / peer)


def _unknown_peer(peer: str) -> NotFound:
    return NotFound(
        f"This home has kept no peer {peer}.",
        "Resume by the id that mesh_info of the earlier session told, in the same home.",
        code="unknown_peer",
    )


def open_identity(home: Home, settings: Settings, checkpoint: Checkpoint = _pass) -> Identity:
    """Find the identity of this home, or make it on its first start.

    Args:
        home: The home; its lock is taken here.
        settings: Where the wrapping key is to be found.
        checkpoint: Called with the name of each step, for tests that die there.

    Raises:
        NotFound: ``identity_incomplete``: a part of it was lost; never a new identity instead;
            ``unknown_mesh``: the settings name a mesh that this home is not in.
        MeshError: as ``open_wrapping_key`` and ``SealedFile.read``.
    """
    with home.lock():
        wrapping = open_wrapping_key(home, settings, checkpoint)
        _refuse_losses(home)
        checkpoint("member:before")
        key = SigningKey(_kept_secret(home.keys / "member.key", wrapping, "member key"))
        checkpoint("member:after")
        machine_secret = _kept_secret(home.keys / "machine.key", wrapping, "machine secret")
        checkpoint("machine:after")
        checkpoint("mesh:before")
        founding = _founding_entry(home, key)
        checkpoint("mesh:after")
    chain = walk(founding.fields.mesh, [founding.blob])
    member = chain.members[member_id(key.public)]
    local = KnownMesh(chain.mesh, meshes.LOCAL, founding.blob)
    wanted = settings.mesh or meshes.LOCAL
    mesh = local if meshes.is_local(home, wanted) else choose(known_meshes(home), wanted)
    return Identity(
        home=home,
        wrapping=wrapping,
        key=key,
        name=member.name,
        mesh=mesh.id,
        founding=mesh.founding,
        machine_secret=machine_secret,
        mesh_name=mesh.name,
        place=mesh.place,
    )


def _refuse_losses(home: Home) -> None:
    """Refuse to make anew what later steps show to have been there: it was lost."""
    founding, has_log = meshes.founding_file(home), any(home.meshes.glob("mesh_*"))
    expected = (
        (home.keys / "member.key", has_log or founding.exists()),
        (founding, has_log),
    )
    for path, was_there in expected:
        if was_there and not path.exists():
            raise NotFound(
                f"{path} is gone, while what was made after it is there.",
                f"Restore it from a backup. {NEVER_NEW}",
                code="identity_incomplete",
            )


def _kept_secret(path: Path, wrapping: WrappingKey, purpose: str) -> bytes:
    secret = SealedFile.read(path, wrapping, purpose)
    if secret is None:
        create_once(path, SealedFile.seal(secrets.token_bytes(32), wrapping, purpose))
        secret = SealedFile.read(path, wrapping, purpose)
    if secret is None:
        raise damaged(f"{path} vanished while it was made.")
    return secret


def _founding_entry(home: Home, key: SigningKey) -> Entry:
    """Give the first entry of this home's own mesh; its hash is the mesh for ever."""
    path = meshes.founding_file(home)
    kept = read_private(path)
    if kept is None:
        name = handle_from(_user_name(), otherwise="me")
        create_once(path, found(key, meshes.LOCAL, name, 0).blob)
        kept = read_private(path)
    try:
        entry = Entry.parse(kept or b"")
        walk(entry.fields.mesh, [entry.blob])
    except MeshError as error:
        if error.code == "unsupported_version":
            raise
        raise damaged(f"{path} does not hold a founding entry.") from error
    if entry.fields.by != member_id(key.public):
        raise damaged(f"{path} was signed by another member than this home's.")
    return entry


def found(key: SigningKey, mesh_name: str, name: str, at_ms: int) -> Entry:
    """Sign the first entry of a new mesh, whose owner the holder of this key is.

    Args:
        key: The founding member's root key.
        mesh_name: What the mesh is called.
        name: What the member is called in it.
        at_ms: When.
    """
    salt = secrets.token_bytes(16)
    member = member_id(key.public)
    fields = EntryFields(
        mesh=mesh_id(key.public, salt),
        seq=1,
        prev=b64(NO_HEAD),
        at=at_ms,
        kind=EntryKind.FOUND,
        by=member,
        member=member,
        key=b64(key.public.raw),
        name=name,
        salt=b64(salt),
        mesh_name=mesh_name,
    )
    return Entry.issue(fields, key)


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user without a passwd entry
        return "me"


@dataclass(frozen=True)
class KemKey:
    """One generation of a device's opening key; times in milliseconds."""

    generation: int
    key: KemPrivateKey
    created_ms: int
    superseded_ms: int | None = None


@dataclass(frozen=True)
class Device:
    """The keys one peer holds: one to sign, and the generations that can still open."""

    identity: Identity
    anchor: bytes
    sign: SigningKey
    kems: tuple[KemKey, ...]

    @cached_property
    def peer(self) -> str:
        """The id of the peer that holds them."""
        return peer_id(self.identity.mesh, self.identity.member, self.anchor)

    @property
    def current(self) -> KemKey:
        """The generation that new certificates carry."""
        return self.kems[-1]

    def kem_key(self, generation: int) -> KemPrivateKey | None:
        """Give the opening key of a generation, or ``None`` when it was erased or never was."""
        return next((kem.key for kem in self.kems if kem.generation == generation), None)

    def certify(self, handle: str, now_ms: int) -> Certificate:
        """Issue a certificate for the present keys, valid for 24 h from now."""
        return Certificate.issue(
            CertificateFields(
                mesh=self.identity.mesh,
                member=self.identity.member,
                peer=self.peer,
                anchor=b64(self.anchor),
                handle=handle,
                sign=b64(self.sign.public.raw),
                kem=b64(self.current.key.public.raw),
                kem_generation=self.current.generation,
                not_before=now_ms - _BACKDATED_MS,
                not_after=now_ms + LIFETIME_MS,
                locality=locality_tag(self.identity.machine_secret, self.sign.public),
            ),
            self.identity.key,
        )


def open_device(identity: Identity, anchor: str, now_ms: int) -> Device:
    """Find a peer's keys, or make them; renew and erase generations as their age demands.

    A new generation is on disk before anybody can seal to it; a superseded one is erased 8 days
    later, when no envelope to it can be waiting any more.

    Args:
        identity: Whose peer it is.
        anchor: As ``Identity.peer`` takes it.
        now_ms: The time.

    Raises:
        NotFound: ``unknown_peer``: an id of which this home has no keys.
        MeshError: as ``SealedFile.read``.
    """
    peer = identity.peer(anchor)
    path = identity.folder(peer) / "device.key"
    with identity.home.lock():
        device = read_device(identity, peer)
        renewed = _renewed(device, now_ms) if device else _new_device(identity, anchor, now_ms)
        if renewed != device:
            SealedFile.write(path, _encode(renewed), identity.wrapping, f"device {peer}")
    return renewed


def read_device(identity: Identity, peer: str) -> Device | None:
    """Read a peer's keys as they are, or ``None`` before there are any.

    Raises:
        MeshError: as ``SealedFile.read``.
    """
    path = identity.home.sessions / peer / "device.key"
    data = SealedFile.read(path, identity.wrapping, f"device {peer}")
    if data is None:
        return None
    try:
        fields: Any = json.loads(data)
        kems = tuple(
            KemKey(generation, KemPrivateKey(unb64(key)), created, superseded)
            for generation, key, created, superseded in fields["kems"]
        )
        device = Device(identity, unb64(fields["anchor"]), SigningKey(unb64(fields["sign"])), kems)
        if not device.kems or device.peer != peer:
            raise ValueError("the keys are of another peer")
    except (ValueError, TypeError, LookupError, MeshError) as error:
        raise damaged(f"{path} holds no device keys.") from error
    return device


def _new_device(identity: Identity, anchor: str, now_ms: int) -> Device:
    if PEER_ID.fullmatch(anchor):
        raise _unknown_peer(anchor)
    kem = KemKey(1, KemPrivateKey(secrets.token_bytes(32)), now_ms)
    sign = SigningKey(secrets.token_bytes(32))
    return Device(identity, anchor_digest(anchor), sign, (kem,))


def _renewed(device: Device, now_ms: int) -> Device:
    kept = tuple(
        kem
        for kem in device.kems
        if kem.superseded_ms is None or now_ms - kem.superseded_ms <= KEM_KEPT_MS
    )
    latest = kept[-1]
    if now_ms - latest.created_ms >= KEM_ROTATION_MS:
        fresh = KemKey(latest.generation + 1, KemPrivateKey(secrets.token_bytes(32)), now_ms)
        kept = (*kept[:-1], replace(latest, superseded_ms=now_ms), fresh)
    return replace(device, kems=kept)


def _encode(device: Device) -> bytes:
    kems = [
        [kem.generation, b64(kem.key.raw), kem.created_ms, kem.superseded_ms] for kem in device.kems
    ]
    fields = {"v": 1, "anchor": b64(device.anchor), "sign": b64(device.sign.seed), "kems": kems}
    return json.dumps(fields).encode()
