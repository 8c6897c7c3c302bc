"""What the membership chain says of one member, and what that member may do about others.

``membership.py`` makes these in its walk; the broker and every client read them.
"""

from dataclasses import dataclass

from claudemesh_wire.entries import Custody
from claudemesh_wire.keys import VerifyKey
from claudemesh_wire.message import Role


@dataclass(frozen=True)
class Member:
    """What the chain says of a member now; a removed one stays known as removed.

    Args:
        expires_ms: When its membership ends by itself; ``None`` for not at all.
        removed_by: Who removed it; itself when it left.
        returns_ms: From when on a removed member may return by itself; ``None`` for not at all.
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
    invited_by: str = ""
    invite_grants: tuple[str, ...] = ()

    @property
    def has_left(self) -> bool:
        """Whether it went by itself, so that an invite may bring it back."""
        return self.removed and self.removed_by == self.id

    def has_expired(self, now_ms: int) -> bool:
        """Tell whether its membership is over at that time."""
        return self.expires_ms is not None and self.expires_ms <= now_ms

    def is_good(self, now_ms: int) -> bool:
        """Tell whether it is present, and its membership not over at that time."""
        return not self.removed and not self.has_expired(now_ms)

    def may_give(self, role: Role) -> bool:
        """Tell whether it may give or take this role: owners all, admins all but owner."""
        return self.role is Role.OWNER or (self.role is Role.ADMIN and role is not Role.OWNER)
