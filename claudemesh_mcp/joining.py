"""Enters a mesh by the link of an invite, or makes one; both put it on this home's list.

The commands ``join`` and ``mesh create`` call it. The log that a broker shows is walked from the
mesh's own id, which the link names, or from what this home has verified of it before; each step
looks first at what is there, so that one that was killed is finished by the next.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

import anyio
import anyio.to_thread

from claudemesh_mcp import meshes
from claudemesh_mcp.client import Client
from claudemesh_mcp.config import Settings
from claudemesh_mcp.connection import Patience, pauses, websocket
from claudemesh_mcp.home import Home
from claudemesh_mcp.identity import Identity, found, open_identity
from claudemesh_mcp.meshes import KnownMesh, Place
from claudemesh_mcp.peer import system_ms
from claudemesh_mcp.trust import check_head, keep_log, kept_log, rolled_back
from claudemesh_wire.entries import Entry, EntryFields, EntryKind
from claudemesh_wire.errors import Conflict, Forbidden, MeshError, Unavailable
from claudemesh_wire.invites import (
    Enter,
    Invite,
    OpenInvite,
    prove,
    prove_member,
    prove_opening,
)
from claudemesh_wire.keys import b64
from claudemesh_wire.links import InviteLink
from claudemesh_wire.members import name_for_joiner
from claudemesh_wire.membership import Chain, Member, walk

_ATTEMPTS: Final = 12
_ASK: Final = "Do not use this link: ask who gave it to you."
_ANOTHER_HISTORY: Final = frozenset({"membership_gap", "membership_fork"})
# Somebody else joined meanwhile: the entry has to follow theirs.
_MOVED: Final = _ANOTHER_HISTORY | {"membership_moved", "already_a_member"}


@dataclass(frozen=True)
class Joined:
    """A mesh that was entered.

    Args:
        mesh: As this home knows it now.
        member: Who this home is in it.
        inviter: Whose invite it was.
        chain: Its members, verified.
        anew: Whether this call did it; else it was in it already.
    """

    mesh: KnownMesh
    member: Member
    inviter: Member | None
    chain: Chain
    anew: bool


@dataclass(frozen=True)
class Wish:
    """How somebody wants to join.

    Args:
        name: The member's name in the mesh; the home's own if not given, numbered when taken.
        called: What this home is to call the mesh; the mesh's own name if not given.
    """

    name: str | None = None
    called: str | None = None


@dataclass(frozen=True)
class _Joiner:
    """Who joins, by which link, over which connection (its nonce, and the broker's time)."""

    link: InviteLink
    identity: Identity
    wish: Wish
    nonce: bytes
    now_ms: int


@asynccontextmanager
async def stranger(place: Place, settings: Settings) -> AsyncGenerator[Client]:
    """Connect to a broker before being anybody there.

    Raises:
        MeshError: it can't be reached, or is not the one that is meant.
    """
    async with websocket(place.url, Patience(settings.ping_interval_s), place.pin) as link:
        client = Client(link)
        try:
            yield client
        finally:
            client.close()


async def join(link: InviteLink, settings: Settings, wish: Wish) -> Joined:
    """Enter the mesh that a link leads to, and keep it.

    Raises:
        NotFound: ``unknown_invite``: taken back, or the link is not whole.
        Forbidden: ``invite_expired``, ``invite_used_up``, ``invite_dead``; ``member_removed``: an
            admin keeps this member out; ``invite_forged`` when what the broker shows was not signed
            by an admin of that mesh; ``wrong_mesh`` when it is another mesh than the link's.
        Conflict: ``name_taken``: another member has the name that was asked for, or it is kept for
            one that was removed;
            ``mesh_name_taken``: this home calls another mesh so; ``membership_rollback``: the
            broker shows less of this mesh than this home has verified, or another history.
        MeshError: the broker can't be reached, or is not the one of the link.
    """
    home = Home.open(settings.paths())
    identity = await anyio.to_thread.run_sync(open_identity, home, _local(settings))
    chain = await anyio.to_thread.run_sync(_before, home, link.mesh, wish)
    place = Place(link.url, link.broker, link.pin)
    waits, anew = pauses(), None
    for attempt in range(_ATTEMPTS):
        if attempt:
            await anyio.sleep(next(waits))
        # Each on a connection of its own: a broker hangs up on who is refused several times.
        async with stranger(place, settings) as client:
            challenge = await client.meet(link.broker)
            joiner = _Joiner(link, identity, wish, challenge.nonce, challenge.now_ms)
            chain, invite = await _opened(client, joiner, chain)
            anew = not chain.is_present(identity.member) if anew is None else anew
            chain = await _entered(client, joiner, chain, invite)
        if chain.is_present(identity.member):
            how = (place, invite, wish, anew)
            return await anyio.to_thread.run_sync(_keep, home, identity, chain, how)
    raise Unavailable("Others keep joining this mesh at the same moment.", "Join again.")


def _before(home: Home, mesh: str, wish: Wish) -> Chain:
    """Give what this home has verified of the mesh before; refuses a name it can't call it by."""
    if wish.called is not None:
        hint = "Choose another name for this one: --called NAME."
        meshes.check_name(home, wish.called, mesh, hint)
    return kept_log(home, mesh)


async def _opened(client: Client, joiner: _Joiner, chain: Chain) -> tuple[Chain, Invite]:
    """Look at the invite and verify the log behind it, from what is known of it on."""
    link, member = joiner.link, joiner.identity.member
    proof = prove_opening(link.one_time, link.broker, joiner.nonce, link.code)
    told = prove_member(joiner.identity.key, link.broker, joiner.nonce, link.code)
    least = chain.head.seq
    while True:
        asked = OpenInvite(
            code=link.code, proof=proof, member=member, member_proof=told, after_seq=chain.head.seq
        )
        shown = await client.ask(asked)
        grown = _grown(chain, shown.log.entries)
        if not check_head(grown, shown.log.head_seq, shown.log.head, least):
            break
        if grown.head.seq == chain.head.seq:
            raise Unavailable(
                "The broker did not send the membership log it speaks of.", "Join again."
            )
        chain = grown
    invite = Invite.parse(shown.invite)
    _check(grown, invite, link)
    return grown, invite


def _grown(chain: Chain, entries: Sequence[bytes]) -> Chain:
    try:
        return chain.extend(entries)
    except MeshError as error:
        if error.code == "wrong_mesh":
            raise Forbidden(
                "The broker shows another mesh than the one that the link leads to.",
                _ASK,
                code=error.code,
            ) from error
        if error.code not in _ANOTHER_HISTORY:
            raise
        raise rolled_back(chain, chain.head.seq + len(entries)) from error


async def _entered(client: Client, joiner: _Joiner, chain: Chain, invite: Invite) -> Chain:
    """Have one's entry appended; gives the chain as it was when somebody else was quicker."""
    if chain.is_present(joiner.identity.member):
        return chain
    entry = _entry(chain, invite, joiner)
    try:
        grown = await client.ask(Enter(entry=entry.blob))
        return chain.extend(grown.entries)
    except Conflict as error:
        if error.code not in _MOVED:
            raise
        return chain


def _check(chain: Chain, invite: Invite, link: InviteLink) -> None:
    """Believe what the broker shows only if it is the invite of this link, by an admin's hand."""
    fields = invite.fields
    inviter = chain.members.get(fields.by)
    genuine = (
        (fields.mesh, fields.id, fields.key)
        == (link.mesh, link.code, b64(link.one_time.public.raw))
        and inviter is not None
        and invite.is_signed_by(inviter.key)
    )
    if not genuine:
        raise Forbidden(
            "The broker shows another invite than the one of the link.",
            _ASK,
            code="invite_forged",
        )


def _entry(chain: Chain, invite: Invite, joiner: _Joiner) -> Entry:
    """Sign the entry that joins, on the end of the log."""
    identity = joiner.identity
    fields = EntryFields(
        mesh=chain.mesh,
        seq=chain.head.seq + 1,
        prev=b64(chain.head.hash),
        at=joiner.now_ms,
        kind=EntryKind.ADD,
        by=identity.member,
        member=identity.member,
        key=b64(identity.key.public.raw),
        name=_name(chain, joiner),
        role=invite.fields.role,
        invite=b64(invite.blob),
        proof=b64(prove(joiner.link.one_time, invite.fields, identity.member)),
    )
    return Entry.issue(fields, identity.key)


def _name(chain: Chain, joiner: _Joiner) -> str:
    """Give the name asked for; without one the home's own, with a number when it is not free."""
    identity, wish = joiner.identity, joiner.wish
    if wish.name is not None:
        return wish.name
    members = chain.members.values()
    return name_for_joiner(members, identity.member, identity.name, joiner.now_ms)


def _keep(
    home: Home, identity: Identity, chain: Chain, how: tuple[Place, Invite, Wish, bool]
) -> Joined:
    place, invite, wish, anew = how
    with home.lock():
        known = meshes.find(home, chain.mesh)
        keep_log(home, chain)
        name = known.name if known else wish.called or meshes.free_name(home, chain.name)
        mesh = KnownMesh(chain.mesh, name, chain.entries[0], place)
        meshes.remember(home, mesh)
    inviter = chain.members.get(invite.fields.by)
    return Joined(mesh, chain.member(identity.member), inviter, chain, anew)


def _local(settings: Settings) -> Settings:
    """Give the settings of the home itself: which mesh is chosen plays no part yet."""
    return replace(settings, mesh=None)


def make_mesh(home: Home, settings: Settings, name: str, place: Place | None) -> KnownMesh:
    """Make a mesh whose owner this home's member is; its broker learns of it when it is dialled.

    Raises:
        Conflict: ``mesh_name_taken``.
    """
    identity = open_identity(home, _local(settings))
    with home.lock():
        entry = found(identity.key, name, identity.name, system_ms())
        chain = walk(entry.fields.mesh, [entry.blob])
        mesh = meshes.remember(home, KnownMesh(chain.mesh, name, entry.blob, place))
        keep_log(home, chain)
    return mesh
