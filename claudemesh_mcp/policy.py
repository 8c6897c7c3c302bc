"""Decides, for a message that was opened and proved, whether it is shown and whether it wakes.

``receiving.py`` asks it inside the change that keeps the message, ``shown_messages.py`` once more
before messages are handed out; both with this home's own copy of its member's grants: what the
broker thinks of the sender is no matter here.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable
from typing import Final

from claudemesh_mcp import held, openrows, staleness
from claudemesh_mcp.grantfile import Granted
from claudemesh_mcp.inbox import Ruling, Sender
from claudemesh_mcp.peer import Peer
from claudemesh_mcp.rights import right_here
from claudemesh_mcp.routes import waking
from claudemesh_wire.content import Priority
from claudemesh_wire.envelope import Refusal
from claudemesh_wire.errors import MeshError
from claudemesh_wire.grants import Capability, Right
from claudemesh_wire.membership import Member

HOUR_MS: Final = 3600 * 1000
MAX_HELD: Final = 200
"""So many messages of one member are held by a peer; further ones are declined."""
BLOCKED: Final = "blocked"
REMOVED: Final = "removed"
_BY_URGENCY: Final = (Priority.NOW, Priority.NEXT, Priority.LOW)
_MAY_WAKE: Final = frozenset({Priority.NOW, Priority.NEXT})


class Policy:
    """The receiver's side of grants.

    Args:
        peer: Whose messages are judged.
    """

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.has_news = False
        """Whether ``review`` or ``review_next`` noted what is to be reported; it stays so."""

    def judge(self, sql: sqlite3.Connection, sender: Sender, priority: str, now_ms: int) -> Ruling:
        """Judge a message.

        Raises:
            Refusal: ``blocked``: this home's member blocks the sender's; ``held_full``: as much of
                it is held here as may be.
        """
        own = self.peer.identity.member
        if sender.member == own:
            return Ruling(wakes=priority in _MAY_WAKE)
        granted = self._granted()
        if granted is not None and sender.member in granted.blocked:
            raise Refusal(
                "The member is blocked here.",
                "To take what it writes again: claudemesh unblock NAME",
                code=BLOCKED,
            )
        member = self.peer.trust.chain.members[sender.member]
        if granted is None or not self._right(granted, member, Capability.MESSAGE).allowed:
            return _held(sql, sender)
        right = self._right(granted, member, Capability.WAKE)
        return Ruling(wakes=_wakes(sql, right, sender, priority, now_ms))

    def _granted(self) -> Granted | None:
        try:
            return self.peer.grants.read()
        except MeshError as error:
            self.peer.detect(error)
            return None

    def unread(self, sql: sqlite3.Connection, now_ms: int) -> int:
        """Count what ``review`` would leave to be handed out, and change nothing."""
        return sum(self.waiting(sql, now_ms).values())

    def waiting(self, sql: sqlite3.Connection, now_ms: int) -> dict[str, int]:
        """Count by priority what ``review`` would leave to be handed out, and change nothing."""
        there = openrows.count_by_priority(sql, now_ms)
        members = {member for member, _ in there}
        verdicts = self._verdicts(members, self._granted())
        found = Counter[str]()
        for (member, priority), count in there.items():
            found[priority] += 0 if member in verdicts else count
        released = openrows.count_by_priority(sql, now_ms, held.RELEASED) if verdicts else {}
        for (member, priority), count in released.items():
            found[priority] += count if verdicts.get(member) == Capability.MESSAGE else 0
        return {one.value: found[one] for one in _BY_URGENCY if found[one]}

    def review(self, sql: sqlite3.Connection, now_ms: int, thread: str | None = None) -> int:
        """Judge again by whom the rows are that could be handed out now; give how many may be.

        Between arrival and look their member may have lost the right, been blocked or removed, and
        what they say may have become stale.

        Raises:
            MeshError: the grants can't be read: nothing of others is shown, and all of it waits.
        """
        waiting = openrows.count_open(sql, now_ms, thread)
        kept_back = self._judge_again(sql, now_ms, waiting, now_ms)
        # In this order: who may not send here learns nothing of what is checked out here.
        kept_back |= self._withhold(sql, now_ms)
        return sum((openrows.count_open(sql, now_ms, thread) if kept_back else waiting).values())

    def keep_back(self, sql: sqlite3.Connection, now_ms: int) -> None:
        """Judge by whom the rows are, when nothing is handed out: what is stale may yet hold.

        What is being shown is judged too: if its offer ends without evidence, the hook that makes
        the next one judges nothing.

        Raises:
            MeshError: as ``review``.
        """
        every = openrows.count_open(sql, openrows.FAR_MS)
        self._judge_again(sql, now_ms, every, openrows.FAR_MS)

    def _judge_again(
        self, sql: sqlite3.Connection, now_ms: int, members: Iterable[str], ends_ms: int
    ) -> bool:
        # A hook releases these with a prompt and shows them at once.
        limited = {row["member"] for row in waking.limited(sql)}
        return self._keep_back(sql, now_ms, limited.union(members), ends_ms)

    def review_next(self, sql: sqlite3.Connection, now_ms: int, limit: int) -> None:
        """Judge again by whom the oldest of these rows are, however many there are behind them.

        Raises:
            MeshError: as ``review``.
        """
        judged = set[str]()
        while more := openrows.whose(sql, now_ms, limit) - judged:
            self._keep_back(sql, now_ms, more, now_ms)
            judged |= more
        self._withhold(sql, now_ms)

    def _withhold(self, sql: sqlite3.Connection, now_ms: int) -> bool:
        """Take out what is stale; tell whether there was any."""
        is_news = staleness.withhold(sql, now_ms) > 0
        self.has_news = self.has_news or is_news
        return is_news

    def _keep_back(
        self, sql: sqlite3.Connection, now_ms: int, members: Iterable[str], ends_ms: int
    ) -> bool:
        """Hold or decline what may not be handed out any more; tell whether there was any.

        Args:
            sql: The peer file.
            now_ms: The time.
            members: Those whose rows are judged.
            ends_ms: Rows whose offers end until then are.
        """
        others = [one for one in members if one != self.peer.identity.member]
        verdicts = self._verdicts(others, self.peer.grants.read()) if others else {}
        self.has_news = self.has_news or bool(verdicts)
        for member, verdict in verdicts.items():
            rows = [*openrows.open_of(sql, ends_ms, member), *waking.limited(sql, member)]
            if verdict == Capability.MESSAGE:
                rows = [row for row in rows if row["route"] != held.RELEASED]
                held.hold_back(sql, rows, verdict, now_ms)
            else:
                # What was offered may have been shown: its evidence may still come.
                offered = [row for row in rows if row["offers"]]
                held.hold_back(sql, offered, Capability.MESSAGE, now_ms)
                held.decline(sql, (row for row in rows if not row["offers"]), verdict, now_ms)
        return bool(verdicts)

    def _verdicts(self, members: Iterable[str], granted: Granted | None) -> dict[str, str]:
        """Give those whose messages are not to be shown any more, each with the reason."""
        others = [one for one in members if one != self.peer.identity.member]
        if any(self._is_gone(one) for one in others):
            # Another process of this home, which took their messages in, may know the log further.
            try:
                self.peer.trust.extend([])
            except MeshError as error:
                self.peer.detect(error)
        found = ((one, self._verdict(granted, one)) for one in others)
        return {one: verdict for one, verdict in found if verdict is not None}

    def _is_gone(self, sender: str) -> bool:
        member = self.peer.trust.chain.members.get(sender)
        # What somebody wrote before it left by itself was written by a member.
        return member is None or (member.removed and not member.has_left)

    def _verdict(self, granted: Granted | None, sender: str) -> str | None:
        """Say why a member's messages are not shown any more: the right it lacks, or a reason."""
        member = self.peer.trust.chain.members.get(sender)
        if member is None:
            # One that this log does not know is no reason to destroy what another one vouched for.
            return Capability.MESSAGE
        if self._is_gone(sender):
            return REMOVED
        if granted is not None and sender in granted.blocked:
            return BLOCKED
        if granted is None or not self._right(granted, member, Capability.MESSAGE).allowed:
            return Capability.MESSAGE
        return None

    def _right(self, granted: Granted, member: Member, capability: Capability) -> Right:
        return right_here(self.peer, granted, member, capability)


def _held(sql: sqlite3.Connection, sender: Sender) -> Ruling:
    # What nobody may ever read must not fill this disk.
    if held.count(sql, sender.member) >= MAX_HELD:
        raise Refusal(
            "Too many messages of its member are held here.",
            "claudemesh allow NAME lets them through, claudemesh discard NAME declines them.",
            code="held_full",
        )
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
