"""Changes what this home's member lets others do, and releases what is held.

``cli/grants.py`` calls it. A change is in this home's file, and in force there, before a broker is
asked for; one that can't be told of it is told with the next change that reaches it.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import anyio.to_thread

from claudemesh_mcp import governing, held
from claudemesh_mcp.client import Client
from claudemesh_mcp.grantfile import Change, Granted
from claudemesh_mcp.grantnames import check_provided
from claudemesh_mcp.held import Choice, Found, Held
from claudemesh_mcp.peer import Peer
from claudemesh_mcp.rights import right_here, verified
from claudemesh_wire.errors import Conflict, Forbidden, Invalid, MeshError, NotFound, TooMuch
from claudemesh_wire.grants import (
    MAX_NAMES,
    PROVIDE,
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
Reach = Callable[[], Awaitable[Client]]
_MESSAGES: Final = Change(allow=frozenset({Capability.MESSAGE}))


@dataclass(frozen=True)
class Said:
    """Of whom something was said; it holds in this home.

    Args:
        member: The other member.
        untold: Why the broker was not told yet, if it was not.
    """

    member: Member
    untold: MeshError | None = None


@dataclass(frozen=True)
class Released:
    """What was let through: of whom, which messages, and whether a grant was signed for it.

    Args:
        member: Whose messages.
        messages: Those that were held.
        is_granted: Whether the member lacked the grant and has it now.
        untold: Why the broker was not told of it yet, if it was not.
        skipped: Of each file that could not be looked into, a sentence that says so.
    """

    member: Member
    messages: list[Held]
    is_granted: bool = False
    untold: MeshError | None = None
    skipped: Sequence[str] = ()


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


async def change(peer: Peer, reach: Reach, name: str, wanted: Change) -> Said:
    """Sign what a member may do from now on; it holds here before a broker is asked for.

    Args:
        peer: Of this home.
        reach: Gives the connection to the broker, or raises why there is none.
        name: The member's name or id.
        wanted: What is to be said.

    Raises:
        NotFound: ``unknown_member``; ``not_provided``: what it may not provide is not taken back.
        TooMuch: ``too_many_services``.
        MeshError: the file can't be read or written: nothing was changed.
    """

    def changed(member: Member, granted: Granted) -> Granted:
        check_provided(member, granted.grants.get(member.id), wanted)
        return _with_change(peer, member.id, wanted, granted)

    return await _say(peer, reach, name, lambda one: _in_file(peer, partial(changed, one)))


async def block(peer: Peer, reach: Reach, name: str, *, blocked: bool) -> Said:
    """Refuse, or admit again, whatever a member writes to this member's peers; as ``change``."""
    return await _say(
        peer,
        reach,
        name,
        lambda one: _in_file(peer, lambda granted: granted.with_block(one.id, blocked=blocked)),
    )


async def _say(
    peer: Peer, reach: Reach, name: str, act: Callable[[Member], Awaitable[Granted]]
) -> Said:
    try:
        member = find_member(peer, name)
    except NotFound as unknown:
        # It may have joined since this home heard of the mesh.
        client = await _reached_for(unknown, reach)
        member = find_member(peer, name)
        await act(member)
        return Said(member, await _told(peer, client))
    await act(member)
    try:
        client = await reach()
    except MeshError as error:
        return Said(member, error)
    with suppress(NotFound):
        # Whom the name means may be known better now.
        meant = find_member(peer, name)
        if meant.id != member.id:
            await act(meant)
            member = meant
    return Said(member, await _told(peer, client))


async def _reached_for(unknown: NotFound, reach: Reach) -> Client:
    """Give the connection by which an unknown member may turn out to be one."""
    try:
        return await reach()
    except MeshError as error:
        hint = f"{unknown.hint} The broker could not be asked for newer members: {error.reason}"
        raise NotFound(unknown.reason, hint, code=unknown.code) from error


async def _told(peer: Peer, client: Client) -> MeshError | None:
    """Level with the broker; gives why it could not be told all."""
    try:
        await level(peer, client)
    except MeshError as error:
        return error
    return None


async def level(peer: Peer, client: Client) -> GrantsFound:
    """Bring this home's file and what the broker has of it to the same.

    The broker's grants are taken as far as this home's own key has signed them: the file may have
    been restored from a backup; what was changed since is said again on top of them. Blocks bear no
    signature: the broker's are taken into a file that was made anew, and set right by any other.

    Raises:
        MeshError: the file can't be used, or something could not be told; the rest was.
    """
    found = await client.call(ListGrants())
    granted = await _in_file(peer, partial(_levelled, peer, found))
    theirs = {grant.fields.to: grant.fields.seq for grant in _made(peer, found.made)}
    failures: list[MeshError] = []
    for subject, grant in granted.grants.items():
        is_lacking = grant.fields.seq > theirs.get(subject, 0) and not found.more
        if subject in granted.untold or is_lacking:
            failures += await _failure(_tell_grant(peer, client, subject))
    for member in sorted(granted.blocked ^ frozenset(found.blocked)):
        wanted = SetBlock(member=member, blocked=member in granted.blocked)
        failures += await _failure(client.call(wanted))
    for failure in failures[:1]:
        raise failure
    return found


async def _failure(act: Awaitable[object]) -> list[MeshError]:
    """Do one thing of several; one that fails must not keep back the others."""
    try:
        await act
    except MeshError as error:
        return [error]
    return []


async def _tell_grant(peer: Peer, client: Client, subject: str) -> None:
    """Give the broker the grant for a member, on top of what another process said meanwhile."""
    for _ in range(_ATTEMPTS):
        granted = await anyio.to_thread.run_sync(peer.grants.read)
        grant = granted.grants[subject]
        try:
            await client.call(PutGrant(grant=grant.blob))
        except Conflict as error:
            if error.code != "grant_moved":
                raise
            found = await client.call(ListGrants(member=subject))
            await _in_file(peer, partial(_levelled, peer, found))
        else:
            await _in_file(peer, partial(_without_untold, grant))
            return
    raise Conflict(
        "The grants of this home are being changed by another command.",
        "Look at them with claudemesh grants, and try again.",
        code="grant_moved",
    )


async def _in_file(peer: Peer, change: Made) -> Granted:
    return await anyio.to_thread.run_sync(peer.grants.change, change)


def _made(peer: Peer, blobs: Iterable[bytes]) -> list[Grant]:
    """Give those grants that this home's member has signed."""
    return [one for one in verified(peer, blobs) if one.fields.by == peer.identity.member]


def _levelled(peer: Peer, found: GrantsFound, granted: Granted) -> Granted:
    """Take what the broker has and this file lacks; what it was not told of stays in force."""
    for grant in _made(peer, found.made):
        subject = grant.fields.to
        ours, untold = granted.grants.get(subject), granted.untold.get(subject)
        is_later = grant.fields.seq > granted.seq(subject)
        is_beside = untold is not None and ours is not None and ours.blob != grant.blob
        if is_later or (is_beside and grant.fields.seq == granted.seq(subject)):
            granted = granted.with_grant(grant)
            if untold is not None:
                granted = _with_change(peer, subject, untold, granted)
    return granted.with_blocks_of(frozenset(found.blocked) - {peer.identity.member})


def _without_untold(told: Grant, granted: Granted) -> Granted:
    """Note that the broker has a grant, unless more was said meanwhile."""
    member = told.fields.to
    if granted.grants.get(member) != told:
        return granted
    left = {one: said for one, said in granted.untold.items() if one != member}
    return replace(granted, untold=left)


def _with_change(peer: Peer, member: str, wanted: Change, granted: Granted) -> Granted:
    before = granted.grants.get(member)
    allowed = set(before.fields.allow if before else ())
    denied = set(before.fields.deny if before else ())
    allowed = (allowed - wanted.deny) | wanted.allow
    # Nobody provides a service by default: it is enough that it is not allowed any more.
    refused = {one for one in wanted.deny if not one.startswith(PROVIDE)}
    if len(allowed) > MAX_NAMES:
        raise TooMuch(
            f"A grant names {MAX_NAMES} things at most, capabilities and services together.",
            "Take back what is not needed: claudemesh revoke",
            code="too_many_services",
        )
    fields = GrantFields(
        mesh=peer.identity.mesh,
        by=peer.identity.member,
        to=member,
        seq=granted.seq(member) + 1,
        at=peer.now_ms(),
        allow=sorted(allowed),
        deny=sorted((denied - wanted.allow) | refused),
    )
    untold = {**granted.untold, member: granted.untold.get(member, Change()).then(wanted)}
    return replace(granted.with_grant(Grant.issue(fields, peer.identity.key)), untold=untold)


async def allow(peer: Peer, reach: Reach, what: str) -> Released:
    """Let a member's messages through, now and from now on, or one held message by its id.

    Raises:
        NotFound: ``unknown_member``, or ``not_held``: no such message is held in this home.
        Conflict: ``ambiguous``: messages of several members are held under that id.
        Forbidden: ``member_removed``: the one message is of somebody an admin removed.
        Unavailable: ``not_looked_into``: it is not found, and there are files that can't be read.
        Invalid: ``blocked``: the member is blocked here.
    """
    if what.startswith("msg_"):
        return await _allow_one(peer, what)
    released, skipped = list[Held](), list[str]()
    lacked: set[str] = set()

    async def let_through(member: Member) -> Granted:
        granted = await anyio.to_thread.run_sync(peer.grants.read)
        if member.id in granted.blocked:
            raise Invalid(
                f"{member.name} is blocked here.",
                f"Admit it again first: {_command(peer)} unblock {member.name}",
                code="blocked",
            )
        if not right_here(peer, granted, member, Capability.MESSAGE).allowed:
            # Before the release: what comes meanwhile is judged by it already. The broker is told
            # behind it, and has this home's sessions look.
            lacked.add(member.id)
            granted = await _in_file(peer, partial(_with_change, peer, member.id, _MESSAGES))
        found = await _release(peer, member.id)
        released.extend(found.messages)
        skipped.extend(found.skipped)
        return granted

    said = await _say(peer, reach, what, let_through)
    return Released(said.member, released, said.member.id in lacked, said.untold, skipped)


async def _allow_one(peer: Peer, message: str) -> Released:
    found = await anyio.to_thread.run_sync(held.find, peer.home)
    named = [one for one in found.messages if one.id == message]
    here = [one for one in named if one.mesh == peer.identity.mesh]
    if not here:
        held.refuse_if_skipped(found)
        raise held.not_held(f"message {message[:60]!a}", next((one.mesh for one in named), None))
    member = peer.trust.chain.members[held.only_member(here)]
    if member.removed and not member.has_left:
        raise Forbidden(
            f"{member.name} was removed from this mesh; what it wrote is not shown any more.",
            f"Clear it: {_command(peer)} discard {message}",
            code="member_removed",
        )
    released = await _release(peer, member.id, message)
    return Released(member, released.messages, skipped=released.skipped)


def _command(peer: Peer) -> str:
    """Begin a command of the user of this home about the mesh that is meant."""
    return f"claudemesh --mesh {peer.identity.mesh_name}"


async def _release(peer: Peer, member: str, message: str | None = None) -> Found:
    choice = Choice(member, Capability.MESSAGE, message, peer.identity.mesh)
    return await held.release(peer.home, choice, peer.now_ms())


async def discard(peer: Peer, what: str) -> Found:
    """Decline for good what is held of a member, or one message by its id; the broker is not asked.

    Args:
        peer: Of this home.
        what: The name or id of a member, also of one that is in the mesh no more; or a message's.

    Raises:
        NotFound: ``not_held``: nothing of that member, or no such message, is held in this home.
        Conflict: ``ambiguous``: of several members something is held under that name or id.
        Invalid: ``bad_name``.
        Unavailable: ``not_looked_into``: nothing is found, and there are files that can't be read.
    """
    is_message = what.startswith("msg_")
    found = await anyio.to_thread.run_sync(held.find, peer.home, peer.identity.mesh)
    meant = [one for one in found.messages if what == one.id]
    name = governing.as_written(what)
    meant = meant or [one for one in found.messages if name in {one.member, one.member_name}]
    if meant:
        choice = Choice(
            held.only_member(meant), id=what if is_message else None, mesh=peer.identity.mesh
        )
        done = await held.discard(peer.home, choice, peer.now_ms())
    else:
        done = Found(skipped=found.skipped)
    if not done.messages:
        held.refuse_if_skipped(done)
        raise held.not_held(f"message {what[:60]!a}" if is_message else f"message of {what[:80]!a}")
    return done
