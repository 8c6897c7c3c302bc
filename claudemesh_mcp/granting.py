"""Changes what this home's member lets others do, and releases what is held.

``cli/grants.py`` calls it. A change is in this home's file, and in force there, before the broker
hears of it; what the broker lacks is given to it with the next one.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

import anyio.to_thread

from claudemesh_mcp import governing, held
from claudemesh_mcp.client import Client
from claudemesh_mcp.grantfile import Granted
from claudemesh_mcp.held import Choice, Held
from claudemesh_mcp.peer import Peer
from claudemesh_mcp.rights import right_here, verified
from claudemesh_mcp.suggestions import did_you_mean, quoted
from claudemesh_wire.errors import Conflict, Invalid, MeshError, NotFound
from claudemesh_wire.grants import (
    Capability,
    Grant,
    GrantFields,
    GrantsFound,
    ListGrants,
    PutGrant,
    SetBlock,
)
from claudemesh_wire.membership import Member

_ATTEMPTS: Final = 3
Made = Callable[[Granted], Granted]


@dataclass(frozen=True)
class Change:
    """What is to be said of capabilities; those not named stay as they are."""

    allow: frozenset[str] = frozenset()
    deny: frozenset[str] = frozenset()


_MESSAGES: Final = Change(allow=frozenset({Capability.MESSAGE}))


@dataclass(frozen=True)
class Released:
    """What was let through: of whom, and which messages."""

    member: Member
    messages: list[Held]


def find_member(peer: Peer, name: str) -> Member:
    """Find another member that is present, by name or id.

    Raises:
        Invalid: ``bad_name``: it looks like a name and is none; ``self``.
        NotFound: ``unknown_member``.
    """
    member = governing.find_member(peer.trust.chain, name)
    if member.id == peer.identity.member:
        raise Invalid(
            f"{member.name} is this home's own member.",
            "Its sessions may do everything among themselves; name another member.",
            code="self",
        )
    return member


def capabilities(names: Iterable[str]) -> frozenset[str]:
    """Read the names of capabilities.

    Raises:
        Invalid: ``unknown_capability``.
    """
    known, asked = [str(one) for one in Capability], frozenset(names)
    for name in sorted(asked):
        if name not in known:
            raise Invalid(
                f"There is no capability {quoted(name)}.",
                did_you_mean(name, known),
                code="unknown_capability",
            )
    return asked


async def change(peer: Peer, client: Client, member: Member, wanted: Change) -> None:
    """Sign what a member may do from now on; it holds here before the broker is told.

    Raises:
        Conflict: ``grant_moved``: others of this home change the same all the time.
        MeshError: the file can't be written, or the broker refused; then the change holds in this
            home, and the broker is told with the next one.
    """
    for _ in range(_ATTEMPTS):
        await level(peer, client, member.id)
        granted = await _in_file(peer, partial(_with_change, peer, member.id, wanted))
        try:
            await client.call(PutGrant(grant=granted.grants[member.id].blob))
        except Conflict as error:
            if error.code != "grant_moved":
                raise
        else:
            return
    raise Conflict(
        f"The grants for {member.name} are being changed by another command.",
        "Look at them with claudemesh grants, and try again.",
        code="grant_moved",
    )


async def level(peer: Peer, client: Client, member: str | None = None) -> GrantsFound:
    """Bring this home's file and the broker's copy to the later grants of both.

    The broker's are taken as far as this home's own key has signed them: the file may have been
    restored from a backup.
    """
    found = await client.call(ListGrants(member=member))
    granted = await _in_file(peer, partial(_with_found, peer, found.made))
    theirs = {grant.fields.to: grant.fields.seq for grant in _made(peer, found.made)}
    for subject, grant in granted.grants.items():
        is_meant = member in {None, subject} and not found.more
        if is_meant and grant.fields.seq > theirs.get(subject, 0):
            with suppress(MeshError):
                await client.call(PutGrant(grant=grant.blob))
    return found


async def _in_file(peer: Peer, change: Made) -> Granted:
    return await anyio.to_thread.run_sync(peer.grants.change, change)


def _made(peer: Peer, blobs: Iterable[bytes]) -> list[Grant]:
    """Give those grants that this home's member has signed."""
    return [one for one in verified(peer, blobs) if one.fields.by == peer.identity.member]


def _with_found(peer: Peer, blobs: Iterable[bytes], granted: Granted) -> Granted:
    for grant in _made(peer, blobs):
        granted = granted.with_grant(grant)
    return granted


def _with_change(peer: Peer, member: str, wanted: Change, granted: Granted) -> Granted:
    before = granted.grants.get(member)
    allowed = set(before.fields.allow if before else ())
    denied = set(before.fields.deny if before else ())
    fields = GrantFields(
        mesh=peer.identity.mesh,
        by=peer.identity.member,
        to=member,
        seq=granted.seq(member) + 1,
        at=peer.now_ms(),
        allow=sorted((allowed - wanted.deny) | wanted.allow),
        deny=sorted((denied - wanted.allow) | wanted.deny),
    )
    return granted.with_grant(Grant.issue(fields, peer.identity.key))


async def block(peer: Peer, client: Client, member: Member, *, blocked: bool) -> None:
    """Refuse, or admit again, whatever a member writes to this member's peers."""

    def with_block(granted: Granted) -> Granted:
        others = granted.blocked - {member.id}
        return Granted(granted.grants, others | {member.id} if blocked else others)

    await _in_file(peer, with_block)
    await client.call(SetBlock(member=member.id, blocked=blocked))


async def allow(peer: Peer, client: Client, what: str) -> Released:
    """Let a member's messages through, now and from now on, or one held message by its id.

    Raises:
        NotFound: ``unknown_member``, or ``not_held``: no such message is held in this home.
        Conflict: ``ambiguous``: messages of several members are held under that id.
        Invalid: ``blocked``: the member is blocked here.
    """
    if what.startswith("msg_"):
        return await _allow_one(peer, what)
    member = find_member(peer, what)
    granted = await anyio.to_thread.run_sync(peer.grants.read)
    if member.id in granted.blocked:
        raise Invalid(
            f"{member.name} is blocked here.",
            f"Admit it again first: claudemesh unblock {member.name}",
            code="blocked",
        )
    lacks = not right_here(peer, granted, member, Capability.MESSAGE).allowed
    if lacks:
        # Before the release: what comes meanwhile is judged by it already.
        await _in_file(peer, partial(_with_change, peer, member.id, _MESSAGES))
    messages = await _release(peer, member.id)
    if lacks:
        # Behind the release: the broker tells this home's sessions to look.
        await change(peer, client, member, _MESSAGES)
    return Released(member, messages)


async def _allow_one(peer: Peer, message: str) -> Released:
    found = await anyio.to_thread.run_sync(held.find, peer.home, peer.identity.mesh)
    senders = {one.member for one in found if one.id == message}
    if not senders:
        raise NotFound(
            f"No message {message[:60]!a} is held here.",
            "claudemesh inbox --held lists those that are.",
            code="not_held",
        )
    if len(senders) > 1:
        raise Conflict(
            "Messages of several members are held under this id.",
            "Let one of the members through by name.",
            code="ambiguous",
        )
    member = peer.trust.chain.member(senders.pop())
    return Released(member, await _release(peer, member.id, message))


async def _release(peer: Peer, member: str, message: str | None = None) -> list[Held]:
    choice = Choice(member, Capability.MESSAGE, message)
    return await held.release(peer.home, peer.identity.mesh, choice, peer.now_ms())
