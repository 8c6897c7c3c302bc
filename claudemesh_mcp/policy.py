"""Decides, for a message that was opened and proved, whether it is shown and whether it wakes.

``receiving.py`` asks it inside the change that keeps the message, with this home's own copy of its
member's grants: what the broker thinks of the sender is no matter here.
"""

import sqlite3
from typing import Final

from claudemesh_mcp import held
from claudemesh_mcp.grantfile import Granted
from claudemesh_mcp.inbox import Ruling, Sender
from claudemesh_mcp.peer import Peer
from claudemesh_wire.content import Priority
from claudemesh_wire.envelope import Refusal
from claudemesh_wire.errors import MeshError
from claudemesh_wire.grants import Capability, Right, right_of

HOUR_MS: Final = 3600 * 1000
MAX_HELD: Final = 200
"""So many messages of one member are held by a peer; further ones are declined."""
_MAY_WAKE: Final = frozenset({Priority.NOW, Priority.NEXT})


class Policy:
    """The receiver's side of grants.

    Args:
        peer: Whose messages are judged.
    """

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def judge(self, sql: sqlite3.Connection, sender: Sender, priority: str, now_ms: int) -> Ruling:
        """Judge a message.

        Raises:
            Refusal: ``blocked``: this home's member blocks the sender's; ``held_full``: as much of
                it is held here as may be.
        """
        own = self._peer.identity.member
        if sender.member == own:
            return Ruling(wakes=priority in _MAY_WAKE)
        granted = self._granted()
        if granted is not None and sender.member in granted.blocked:
            raise Refusal("The member is blocked here.", code="blocked")
        if granted is None or not self._right(granted, sender, Capability.MESSAGE).allowed:
            return _held(sql, sender)
        right = self._right(granted, sender, Capability.WAKE)
        return Ruling(wakes=_wakes(sql, right, sender, priority, now_ms))

    def _granted(self) -> Granted | None:
        try:
            return self._peer.grants.read()
        except MeshError as error:
            self._peer.detect(error)
            return None

    def _right(self, granted: Granted, sender: Sender, capability: Capability) -> Right:
        peer = self._peer
        return right_of(
            peer.identity.member,
            peer.trust.chain.members[sender.member],
            granted.grants.get(sender.member),
            capability,
            strict=peer.setup.settings.strict,
        )


def _held(sql: sqlite3.Connection, sender: Sender) -> Ruling:
    # What nobody may ever read must not fill this disk.
    if held.count(sql, sender.member) >= MAX_HELD:
        raise Refusal("Too many messages of its member are held here.", code="held_full")
    return Ruling(held=Capability.MESSAGE, wakes=False)


def _wakes(
    sql: sqlite3.Connection, right: Right, sender: Sender, priority: str, now_ms: int
) -> bool:
    """Tell whether a message may wake, and is then one of those that did in this hour."""
    by_now_alone = priority == Priority.NOW
    if not right.allowed or priority not in _MAY_WAKE or (right.only_now and not by_now_alone):
        return False
    if right.per_hour is None:
        return True
    return held.count_wakes(sql, sender.member, now_ms - HOUR_MS) < right.per_hour
