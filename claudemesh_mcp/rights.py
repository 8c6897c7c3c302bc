"""Says what members let each other do: by the table of defaults, and by grants that were verified.

``granting.py`` asks it for this home's peers, ``shown_mesh.py`` and ``cli/grants.py`` for what is
shown of both directions.
"""

from collections.abc import Iterable
from contextlib import suppress

from claudemesh_mcp.grantfile import Granted
from claudemesh_mcp.meshresults import GrantShown, GrantsShown, MemberRights, RightsResult
from claudemesh_mcp.peer import Peer
from claudemesh_wire.errors import MeshError
from claudemesh_wire.grants import (
    DEFAULTS,
    Capability,
    Grant,
    GrantsFound,
    Right,
    Standing,
    believe,
    right_of,
    standing_of,
)
from claudemesh_wire.membership import Member


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
        mine = {one: right_here(peer, granted, member, one) for one in Capability}
        theirs = {one: right_of(member.id, own, given.get(member.id), one) for one in Capability}
        let.append(
            MemberRights(
                member=member.name,
                member_id=member.id,
                standing=standing_of(own.id, member),
                rights={str(one): in_words(right) for one, right in mine.items()},
                granted=member.id in granted.grants,
                blocked=member.id in granted.blocked,
            )
        )
        lets.append(
            MemberRights(
                member=member.name,
                member_id=member.id,
                standing=standing_of(member.id, own),
                rights={str(one): in_words(right) for one, right in theirs.items()},
                granted=member.id in given,
                blocked=False,
            )
        )
    return RightsResult(i_let=let, let_me=lets)


def in_words(right: Right) -> str:
    """Give a right as `yes`, `no` or its bounds."""
    return (str(right) or "yes") if right.allowed else "no"


def defaults(peer: Peer) -> dict[str, list[str]]:
    """Give the table of defaults in words, as it holds for this session's peers."""
    strict = peer.setup.settings.strict
    table: dict[str, list[str]] = {}
    for standing, row in DEFAULTS.items():
        told = {one: right for one, right in row.items() if right.allowed}
        if strict and standing is not Standing.OWN:
            told.pop(Capability.WAKE, None)
        table[standing] = [f"{one} ({right})" if str(right) else one for one, right in told.items()]
    return table


def differing(peer: Peer, found: GrantsFound | None) -> GrantsShown:
    """Show the grants that say something else than the defaults."""
    made: list[Grant] = []
    with suppress(MeshError):  # a damaged file is named where a message is judged by it
        made = list(peer.grants.read().grants.values())
    given = given_to(peer, found.given) if found else []
    return GrantsShown(
        by_me=[one for grant in made if (one := _difference(peer, grant, grant.fields.to))],
        to_me=[one for grant in given if (one := _difference(peer, grant, grant.fields.by))],
    )


def _difference(peer: Peer, grant: Grant, other: str) -> GrantShown | None:
    """Give what a grant says beside the defaults; ``None`` when it is nothing, or of nobody."""
    member = peer.trust.chain.members.get(other)
    subject = peer.trust.chain.members.get(grant.fields.to)
    if member is None or subject is None:
        return None
    row = DEFAULTS[standing_of(grant.fields.by, subject)]
    denied = set(grant.fields.deny)
    allow = [one for one in row if one in grant.fields.allow and one not in denied]
    shown = GrantShown(
        member=member.name,
        allow=[one for one in allow if in_words(row[one]) != "yes"],
        deny=[one for one in row if one in denied and row[one].allowed],
    )
    return shown if shown.allow or shown.deny else None
