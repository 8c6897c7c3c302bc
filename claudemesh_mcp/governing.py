"""What admins and members do about a mesh: invite, give roles, remove, take back, rename, end.

The commands around members call it with a connected ``Mesh``. Each act is an entry that this home's
member signs on the end of the log it has verified; when somebody else was quicker, it is signed
again on the new end, if the right to it is still there.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import anyio.to_thread

from claudemesh_mcp.catchup import catch_up
from claudemesh_mcp.client import Client
from claudemesh_mcp.peer import Peer
from claudemesh_mcp.suggestions import did_you_mean, quoted
from claudemesh_wire.address import PEER_ID_LENGTH, Address, AddressKind, parse
from claudemesh_wire.certificate import Certificate
from claudemesh_wire.entries import Entry, EntryFields, EntryKind
from claudemesh_wire.errors import Conflict, Forbidden, Invalid, NotFound
from claudemesh_wire.invites import Invite, InviteFields, ListInvites, PutInvite
from claudemesh_wire.keys import SigningKey, b64, make_id
from claudemesh_wire.links import InviteLink
from claudemesh_wire.members import NAME_KEPT_MS, name_when_back
from claudemesh_wire.membership import Chain, Member
from claudemesh_wire.meshes import AppendEntry, EndMesh, LogEntries, ReadLog
from claudemesh_wire.message import Role
from claudemesh_wire.presence import FetchCertificates
from claudemesh_wire.search import SearchPeers

_ATTEMPTS: Final = 5
_MOVED: Final = frozenset({"membership_moved", "membership_gap", "membership_fork"})
_MOST_FOUND: Final = 200
HOUR_MS: Final = 3600 * 1000
MOST_INVITE_MS: Final = 30 * 24 * HOUR_MS


@dataclass(frozen=True)
class Terms:
    """What an invite is to give.

    Args:
        role: The role that a joiner gets.
        uses: How many may join by it.
        lasts_ms: How long it is good for.
        grants: What its maker lets joiners do with its own peers, beyond the defaults.
    """

    role: Role = Role.MEMBER
    uses: int = 1
    lasts_ms: int = 24 * HOUR_MS
    grants: tuple[str, ...] = ()


@dataclass(frozen=True)
class Invited:
    """An invite that was made: the link that gives it, and what it says."""

    link: InviteLink = field(repr=False)
    fields: InviteFields


@dataclass(frozen=True)
class Revoked:
    """The peer whose keys were revoked."""

    peer: str
    handle: str


@dataclass(frozen=True)
class OpenInvites:
    """An invite that is open, who made it, and how often it was used."""

    fields: InviteFields
    by: str
    used: int


async def invite(peer: Peer, client: Client, broker: str, terms: Terms) -> Invited:
    """Make an invite and leave it with the broker.

    Args:
        peer: An admin's.
        client: A connection to the broker.
        broker: The broker's id.
        terms: What it gives.

    Raises:
        Forbidden: ``role``: this member is no admin, or gives a role above its own.
        Conflict: ``loopback_only``: nobody else reaches this broker.
        Invalid: it would last for more than 30 days.
    """
    _check_right(peer, terms)
    seed = secrets.token_bytes(32)
    fields = InviteFields(
        mesh=peer.trust.mesh,
        id=make_id("", secrets.token_bytes(16)),
        role=terms.role,
        uses=terms.uses,
        expires=peer.now_ms() + terms.lasts_ms,
        by=peer.identity.member,
        key=b64(SigningKey(seed).public.raw),
        grants=list(terms.grants) or None,
    )
    made = Invite.issue(fields, peer.identity.key)
    kept = await client.call(PutInvite(invite=made.blob))
    link = InviteLink(kept.url, fields.id, seed, fields.mesh, broker, kept.pin)
    return Invited(link, fields)


def _check_right(peer: Peer, terms: Terms) -> None:
    me = peer.trust.chain.member(peer.identity.member)
    is_allowed = me.role is Role.OWNER or (me.role is Role.ADMIN and terms.role is not Role.OWNER)
    if not is_allowed:
        raise Forbidden(
            f"{me.name} is {me.role} of this mesh and may not invite as {terms.role}.",
            "An owner can change that: claudemesh role NAME admin.",
            code="role",
        )
    if not 0 < terms.lasts_ms <= MOST_INVITE_MS:
        raise Invalid("An invite is good for at most 30 days.", "Let it expire earlier.")


async def open_invites(peer: Peer, client: Client) -> list[OpenInvites]:
    """Give the invites that are open, newest first.

    Raises:
        Forbidden: ``invite_forged``: the broker shows one that no member of this mesh signed.
        MeshError: the broker refuses, or what it shows is no invite.
    """
    found = await client.call(ListInvites())
    members = peer.trust.chain.members
    shown: list[OpenInvites] = []
    for one in found.invites:
        made = Invite.parse(one.invite)
        maker = members.get(made.fields.by)
        is_genuine = made.fields.mesh == peer.trust.mesh and (
            maker is not None and made.is_signed_by(maker.key)
        )
        if maker is None or not is_genuine:
            raise Forbidden(
                "The broker shows an invite that no member of this mesh signed.",
                "Do not rely on this broker's word about invites.",
                code="invite_forged",
            )
        shown.append(OpenInvites(made.fields, maker.name, one.used))
    return shown


def find_member(chain: Chain, name: str) -> Member:
    """Give a member that is present, by its name or id.

    Raises:
        NotFound: ``unknown_member``; the hint names those who are meant perhaps.
        Invalid: ``bad_name``: it looks like a name and is none.
    """
    among = [one for one in chain.members.values() if not one.removed]
    return _one_of(among, name) or _unknown(among, name, "member")


def find_removed(chain: Chain, name: str) -> Member:
    """Give a member that left or was removed, by its name or id.

    Raises:
        NotFound: ``unknown_member``.
        Conflict: ``ambiguous``: several of that name are gone; ``details.candidates`` lists them.
        Invalid: ``bad_name``.
    """
    among = [one for one in chain.members.values() if one.removed]
    return _one_of(among, name) or _unknown(among, name, "removed member")


def find_anyone(chain: Chain, name: str) -> Member:
    """Give a member that is present, or else one that is gone; raises as ``find_removed``."""
    everyone = list(chain.members.values())
    present = [one for one in everyone if not one.removed]
    return _one_of(present, name) or _one_of(everyone, name) or _unknown(present, name, "member")


def as_written(name: str) -> str:
    """Give the name or id of a member as the log writes it, however somebody typed it.

    Raises:
        Invalid: ``bad_name``.
    """
    if not name.isascii():
        raise Invalid(
            f"{name[:60]!a} holds characters that only look like those of a name.",
            "Member names are ASCII; type it anew.",
            code="bad_name",
        )
    return name.lower()


def _one_of(among: Sequence[Member], name: str) -> Member | None:
    written = as_written(name)
    found = [one for one in among if written in {one.name, one.id}]
    if len(found) > 1:
        shown = [f"{one.id} ({'left' if one.has_left else 'removed'})" for one in found]
        raise Conflict(
            f"{len(found)} members of the name {quoted(name)} are gone.",
            f"Name one by its id: {', '.join(shown)}. claudemesh members --all lists them.",
            code="ambiguous",
            details={"candidates": [one.id for one in found]},
        )
    return found[0] if found else None


def _unknown(among: Sequence[Member], name: str, kind: str) -> NoReturn:
    command = "claudemesh members" if kind == "member" else "claudemesh members --all"
    raise NotFound(
        f"There is no {kind} {quoted(name)} in this mesh.",
        f"{did_you_mean(name, (one.name for one in among))} {command} lists them.",
        code="unknown_member",
    )


async def set_role(peer: Peer, client: Client, name: str, role: Role) -> Member:
    """Give a member another role, also for when it is back; gives the member as it is now."""
    target = find_anyone(peer.trust.chain, name)
    await _append(peer, client, EntryKind.ROLE, member=target.id, role=role)
    return peer.trust.chain.members[target.id]


async def remove(peer: Peer, client: Client, name: str, until_ms: int | None) -> Member:
    """Remove a member: until some moment, or until an admin takes it back.

    Of one that is removed already this says anew how long it lasts.
    """
    target = find_anyone(peer.trust.chain, name)
    if target.id == peer.identity.member:
        raise Invalid("That is yourself.", "To go: claudemesh mesh leave.", code="self")
    said = {"expires": until_ms, "name_until": (until_ms or peer.now_ms()) + NAME_KEPT_MS}
    await _append(peer, client, EntryKind.REMOVE, member=target.id, **said)
    return peer.trust.chain.members[target.id]


async def take_back(peer: Peer, client: Client, name: str) -> Member:
    """Add a removed member again as what it was; with a number when another has its name now.

    A membership whose own time is over has none any more: that is how an admin renews it.
    """
    chain, now_ms = peer.trust.chain, peer.now_ms()
    target = find_removed(chain, name)
    await _append(
        peer,
        client,
        EntryKind.ADD,
        member=target.id,
        key=b64(target.key.raw),
        name=name_when_back(chain.members.values(), target, now_ms),
        role=target.role,
        custody=target.custody,
        scopes=list(target.scopes) or None,
        expires=None if target.has_expired(now_ms) else target.expires_ms,
    )
    return peer.trust.chain.members[target.id]


async def leave(peer: Peer, client: Client) -> None:
    """Go out of the mesh oneself.

    Raises:
        Forbidden: ``last_owner``.
    """
    await _append(peer, client, EntryKind.REMOVE, member=peer.identity.member)


async def rename(peer: Peer, client: Client, name: str) -> None:
    """Give the mesh another name, for all."""
    await _append(peer, client, EntryKind.RENAME, mesh_name=name)


async def end(peer: Peer, client: Client) -> None:
    """End the mesh for everybody.

    Raises:
        Forbidden: ``membership_forbidden``: this member is no owner.
    """
    entry = _entry(peer, EntryKind.END)
    peer.trust.chain.extend([entry.blob])
    await client.call(EndMesh(entry=entry.blob))


async def revoke_device(peer: Peer, client: Client, address: str) -> Revoked:
    """Revoke the keys of one peer: what it signs is believed by nobody.

    Args:
        peer: Who asks.
        client: A connection to the broker.
        address: A handle, ``member/handle`` or id. The whole id also reaches a peer that hides or
            is archived, and one of a member that was removed.

    Raises:
        NotFound: nobody is called so.
        Invalid: ``self``: it is the peer that asks; ``bad_address``.
        Forbidden: it is another member's, and this one is no admin.
    """
    meant = parse(address)
    if meant.is_multicast:
        raise _no_session(meant, ())
    certificate = await _certificate_of(peer, client, meant)
    fields = certificate.fields
    if fields.peer == peer.id:
        raise Invalid(
            f"{fields.handle} is the session that this command speaks as.",
            "An admin elsewhere can revoke its keys; to go yourself: claudemesh mesh leave.",
            code="self",
        )
    device = b64(certificate.sign_key.fingerprint)
    await _append(peer, client, EntryKind.REVOKE_DEVICE, member=fields.member, device=device)
    return Revoked(fields.peer, fields.handle)


async def _certificate_of(peer: Peer, client: Client, meant: Address) -> Certificate:
    """Give the certificate of the peer that is meant, as its member signed it."""
    found = await client.call(SearchPeers(query=meant.name, limit=_MOST_FOUND))
    card = next((one for one in found.peers if meant.name in {one.handle, one.peer}), None)
    if card is not None:
        certificate = _believed(peer, card.certificate)
        if (certificate.fields.peer, certificate.fields.handle) != (card.peer, card.handle):
            raise _swapped()
        owner = peer.trust.chain.members[certificate.fields.member]
        if meant.member in {"", owner.name, owner.id}:
            return certificate
    elif meant.kind is AddressKind.PEER_ID and len(meant.name) == PEER_ID_LENGTH:
        asked = FetchCertificates(hashes=[], peers=[meant.name])
        for blob in (await client.call(asked)).certificates:
            certificate = _believed(peer, blob)
            if certificate.fields.peer != meant.name:
                raise _swapped()
            return certificate
    raise _no_session(meant, [one.handle for one in found.peers])


def _believed(peer: Peer, blob: bytes) -> Certificate:
    """Believe a certificate, also one of a member that is removed: it may be back."""
    try:
        return peer.trust.verify(blob)
    except Forbidden as error:
        certificate = Certificate.parse(blob)
        known = peer.trust.chain.members.get(certificate.fields.member)
        if error.code != "member_removed" or known is None:
            raise
        if not certificate.is_signed_by(known.key):
            raise
        return certificate


def _no_session(meant: Address, handles: Sequence[str]) -> NotFound:
    return NotFound(
        f"No session in this mesh is called {quoted(str(meant))}.",
        f"{did_you_mean(meant.name, handles)} claudemesh peers lists them; one that hides, or was"
        " not seen for 30 days, is named by its whole id.",
    )


def _swapped() -> Forbidden:
    return Forbidden("The broker shows it under another's certificate.", code="certificate_swapped")


def _entry(peer: Peer, kind: EntryKind, **fields: Any) -> Entry:
    trust, identity = peer.trust, peer.identity
    said = EntryFields(
        mesh=trust.mesh,
        seq=trust.head.seq + 1,
        prev=b64(trust.head.hash),
        at=peer.now_ms(),
        kind=kind,
        by=identity.member,
        **fields,
    )
    return Entry.issue(said, identity.key)


async def _append(peer: Peer, client: Client, kind: EntryKind, **fields: Any) -> None:
    """Sign an entry on the end of the log and have it taken; again when the log has moved."""
    for attempt in range(_ATTEMPTS):
        entry = _entry(peer, kind, **fields)
        # What the walk refuses here, every other member would refuse as well.
        peer.trust.chain.extend([entry.blob])
        try:
            grown = await client.call(AppendEntry(entry=entry.blob))
        except Conflict as error:
            if error.code not in _MOVED or attempt == _ATTEMPTS - 1:
                raise
            await _learn(peer, client)
            continue
        await anyio.to_thread.run_sync(peer.trust.extend, grown.entries)
        return


async def _learn(peer: Peer, client: Client) -> None:
    """Take in what others have appended meanwhile."""
    log: LogEntries = await client.call(ReadLog(after_seq=peer.trust.head.seq, limit=1))
    await catch_up(peer, client, log.head_seq, log.head)
