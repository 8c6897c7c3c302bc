"""What the membership chain says of one member, which names are free, who may do what to others.

``membership.py`` makes these in its walk; the broker and every client read them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from typing import Final

from claudemesh_wire.address import MAX_HANDLE
from claudemesh_wire.entries import Custody
from claudemesh_wire.errors import Conflict
from claudemesh_wire.keys import VerifyKey
from claudemesh_wire.message import Role

NAME_KEPT_MS: Final = 30 * 24 * 3600 * 1000
"""So long after a removal, or after its end if it has one, nobody joins under that name."""


@dataclass(frozen=True)
class Member:
    """What the chain says of a member now; a removed one stays known as removed.

    Args:
        expires_ms: When its membership ends by itself; ``None`` for not at all.
        removed_by: Who removed it; itself when it left.
        returns_ms: From when on a removed member may return by itself; ``None`` for not at all.
        name_until_ms: Until when the name of a removed member is kept from those who join.
        invited_by: The member whose invite it came by; empty when an admin added it.
        invite_grants: What that member lets it do, by the same invite.
    """

    id: str
    key: VerifyKey
    name: str
    role: Role
    custody: Custody
    removed: bool = False
    expires_ms: int | None = None
    scopes: tuple[str, ...] = ()
    removed_by: str = ""
    returns_ms: int | None = None
    name_until_ms: int | None = None
    invited_by: str = ""
    invite_grants: tuple[str, ...] = ()

    @property
    def has_left(self) -> bool:
        """Whether it went by itself, so that an invite may bring it back."""
        return self.removed and self.removed_by == self.id

    def may_come(self, at_ms: int) -> bool:
        """Tell whether an invite brings it back: it left, or may return by itself at that time."""
        is_due = self.removed and self.returns_ms is not None and self.returns_ms <= at_ms
        return self.has_left or is_due

    def keeps_name(self, at_ms: int) -> bool:
        """Tell whether it has its name at that time, present or removed."""
        is_kept = self.name_until_ms is not None and at_ms < self.name_until_ms
        return not self.removed or is_kept

    def has_expired(self, now_ms: int) -> bool:
        """Tell whether its membership is over at that time."""
        return self.expires_ms is not None and self.expires_ms <= now_ms

    def is_good(self, now_ms: int) -> bool:
        """Tell whether it is present, and its membership not over at that time."""
        return not self.removed and not self.has_expired(now_ms)

    def may_give(self, role: Role) -> bool:
        """Tell whether it may give or take this role: owners all, admins all but owner."""
        return self.role is Role.OWNER or (self.role is Role.ADMIN and role is not Role.OWNER)


def name_for_joiner(members: Iterable[Member], joiner: str, name: str, at_ms: int) -> str:
    """Give the name under which somebody may join: this one, with a number when another has it.

    Args:
        members: All that the chain knows.
        joiner: The id of who joins; its own name is not kept from it.
        name: The one that is wished for.
        at_ms: When it joins.
    """
    others = [one for one in members if one.id != joiner]
    return _numbered(name, {one.name for one in others if one.keeps_name(at_ms)})


def name_when_back(members: Iterable[Member], member: Member, at_ms: int) -> str:
    """Give the name that a removed member has when it is back: its own, unless another is here."""
    known = list(members)
    if all(one.removed or one.name != member.name for one in known):
        return member.name
    return name_for_joiner(known, member.id, member.name, at_ms)


def name_taken(name: str | None) -> Conflict:
    """Say that a present member has the name."""
    return Conflict(
        f"A member named {name} is here already.",
        "Join under another name: claudemesh join LINK --as NAME; or an admin removes that one.",
        code="name_taken",
    )


def name_kept(name: str) -> Conflict:
    """Say that the name is kept for a member that was removed."""
    return Conflict(
        f"The name {name} is kept for a member that was removed from this mesh.",
        "Join under another name: claudemesh join LINK --as NAME.",
        code="name_taken",
    )


def _numbered(name: str, taken: set[str]) -> str:
    if name not in taken:
        return name
    endings = (f"-{number}" for number in count(2))
    numbered = (name[: MAX_HANDLE - len(ending)] + ending for ending in endings)
    return next(one for one in numbered if one not in taken)
