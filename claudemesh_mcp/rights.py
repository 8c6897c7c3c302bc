"""Says what members let each other do: by the table of defaults, and by grants that were verified.

``granting.py`` asks it for this home's peers, ``shown_mesh.py`` and ``cli/grants.py`` for what is
shown of both directions.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final

from claudemesh_mcp.grantfile import Granted
from claudemesh_mcp.meshresults import GrantShown, GrantsShown, MemberRights, RightsResult
from claudemesh_mcp.peer import Peer
from claudemesh_wire.errors import MeshError
from claudemesh_wire.grants import (
    DEFAULTS,
    PROVIDE,
    Capability,
    Grant,
    GrantsFound,
    Right,
    Standing,
    believe,
    right_of,
    services,
    standing_of,
)
from claudemesh_wire.membership import Member
from claudemesh_wire.message import Role

_WRITTEN: Final = frozenset({Capability.MESSAGE, Capability.TOPIC, Capability.WAKE})


def right_here(peer: Peer, granted: Granted, member: Member, capability: Capability) -> Right:
    """Say what a member may do to the peers of this home."""
    strict = peer.setup.settings.strict
    grant = granted.grants.get(member.id)
    return right_of(peer.identity.member, member, grant, capability, strict=strict)


def verified(peer: Peer, blobs: Iterable[bytes]) -> list[Grant]:
    """Give the grants that are their members' own among those that a broker shows."""
    found: list[Grant] = []
    for blob in blobs:
        try:
            found.append(believe(peer.trust.chain, blob))
        except MeshError as error:
            # What a removed member once granted is no lie, and no grant.
            if error.code != "member_removed":
                peer.detect(error)
    return found


def given_to(peer: Peer, blobs: Iterable[bytes]) -> list[Grant]:
    """Give the verified grants for this home's member among those that a broker shows."""
    return [one for one in verified(peer, blobs) if one.fields.to == peer.identity.member]


def rights(peer: Peer, found: GrantsFound) -> RightsResult:
    """Say what holds between this member and each other one, in both directions.

    Args:
        peer: Whose home it is.
        found: The grants that the broker keeps.
    """
    granted = peer.grants.read()
    given = {grant.fields.by: grant for grant in given_to(peer, found.given)}
    own = peer.member
    let: list[MemberRights] = []
    lets: list[MemberRights] = []
    others = [one for one in peer.trust.chain.members.values() if not one.removed and one != own]
    for member in sorted(others, key=lambda one: one.name):
        is_blocked = member.id in granted.blocked
        mine = {one: right_here(peer, granted, member, one) for one in Capability}
        theirs = {one: right_of(member.id, own, given.get(member.id), one) for one in Capability}
        let.append(
            MemberRights(
                member=member.name,
                member_id=member.id,
                standing=standing_of(own.id, member),
                rights=_usable(mine, member, is_blocked=is_blocked),
                provides=_provided(member, granted.grants.get(member.id)),
                granted=member.id in granted.grants
                or (member.invited_by == own.id and bool(member.invite_grants)),
                blocked=is_blocked,
            )
        )
        lets.append(
            MemberRights(
                member=member.name,
                member_id=member.id,
                standing=standing_of(member.id, own),
                rights=_usable(theirs, own),
                provides=_provided(own, given.get(member.id)),
                granted=member.id in given
                or (own.invited_by == member.id and bool(own.invite_grants)),
            )
        )
    return RightsResult(i_let=let, let_me=lets, more=found.more)


def _usable(
    given: Mapping[Capability, Right], subject: Member, *, is_blocked: bool = False
) -> dict[str, str]:
    """Say what may be done in fact: no grant lets an observer do it, nor a blocked one write."""
    idle = _WRITTEN if is_blocked else frozenset[Capability]()
    if subject.role is Role.OBSERVER:
        idle = frozenset(Capability)
    return {str(one): "no" if one in idle else in_words(right) for one, right in given.items()}


def _provided(subject: Member, grant: Grant | None) -> list[str]:
    """Name the services that a member may provide in fact: an observer offers nothing."""
    return [] if subject.role is Role.OBSERVER else services(grant)


def in_words(right: Right) -> str:
    """Give a right as `yes`, `no` or its bounds."""
    return (str(right) or "yes") if right.allowed else "no"


def defaults(*, strict: bool) -> dict[str, list[str]]:
    """Give the table of defaults in words, as it holds for sessions with this setting."""
    table: dict[str, list[str]] = {}
    for standing, row in DEFAULTS.items():
        told = {one: right for one, right in row.items() if right.allowed}
        if strict and standing is not Standing.OWN:
            told.pop(Capability.WAKE, None)
        table[standing] = [f"{one} ({right})" if str(right) else one for one, right in told.items()]
    return table


def differing(peer: Peer, found: GrantsFound | None) -> GrantsShown:
    """Show what grants and invites say that is something else than the defaults."""
    own, made = peer.member, dict[str, Grant]()
    with suppress(MeshError):  # a damaged file is named where a message is judged by it
        made |= peer.grants.read().grants
    given = {one.fields.by: one for one in given_to(peer, found.given if found else ())}
    others = [one for one in peer.trust.chain.members.values() if not one.removed and one != own]
    by_me = [difference(own.id, one, made.get(one.id), one.name) for one in others]
    to_me = [difference(one.id, own, given.get(one.id), one.name) for one in others]
    return GrantsShown(by_me=list(filter(None, by_me)), to_me=list(filter(None, to_me)))


def difference(owner: str, subject: Member, grant: Grant | None, name: str) -> GrantShown | None:
    """Give what a member lets another do beside the defaults; ``None`` when that is nothing.

    Args:
        owner: Who lets it do something.
        subject: Who is let.
        grant: What was signed for it, if anything was.
        name: Of the one of them that is not the reader.
    """
    invited = subject.invited_by == owner and subject.invite_grants
    if grant is None and not invited:
        return None
    row = DEFAULTS[standing_of(owner, subject)]
    held = {one: right_of(owner, subject, grant, one) for one in row}
    allowed: list[str] = [one for one in row if held[one].allowed and held[one] != row[one]]
    shown = GrantShown(
        member=name,
        allow=allowed + [f"{PROVIDE}{one}" for one in _provided(subject, grant)],
        deny=[one for one in row if row[one].allowed and not held[one].allowed],
    )
    return shown if shown.allow or shown.deny else None
