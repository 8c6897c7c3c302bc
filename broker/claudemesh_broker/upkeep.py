"""What becomes due by itself: leases that end, messages that expire, rows that may be forgotten.

``session.py`` starts a lease here, ``features/messages.py`` says what expires soonest, ``app.py``
registers the handlers with the scheduler, which calls them back.
"""

import logging
from functools import partial
from typing import Final

from claudemesh_broker import absence, outcomes, peers, scheduler
from claudemesh_broker.delivery import Attachment
from claudemesh_broker.outcomes import Expired
from claudemesh_broker.peers import News
from claudemesh_broker.scheduler import Payload
from claudemesh_broker.service import Parts
from claudemesh_broker.sql import Sql
from claudemesh_wire.presence import Change
from claudemesh_wire.receipts import BrokerNews, ReceiptStatus

LEASE: Final = "lease"
EXPIRY: Final = "expiry"
FORGETTING: Final = "forgetting"
FORGET_EVERY_MS: Final = 3600 * 1000
_AT_ONCE: Final = 500
_ONLY: Final = "-"
logger: Final = logging.getLogger(__name__)


def start_lease(sql: Sql, place: Attachment, now_ms: int, lease_ms: int) -> None:
    """Note that a peer's socket is gone, and when its lease will have ended."""
    until_ms = now_ms + lease_ms
    if peers.detach(sql, place.mesh, place.peer, place.fence, (now_ms, until_ms)):
        scheduler.put(sql, LEASE, f"{place.mesh}/{place.peer}", until_ms)


def recover(sql: Sql, node: str, now_ms: int, lease_ms: int) -> int:
    """Start the leases of all peers that this node left attached when it ended; gives how many."""
    peers.forget_stays(sql, node)
    left = peers.attached(sql, node)
    for mesh, peer, fence in left:
        start_lease(sql, Attachment(mesh, peer, "", "", fence), now_ms, lease_ms)
    scheduler.put(sql, FORGETTING, _ONLY, now_ms + FORGET_EVERY_MS)
    soonest = outcomes.next_expiry_ms(sql)
    if soonest is not None:
        scheduler.put(sql, EXPIRY, _ONLY, soonest)
    return len(left)


def expect_expiry(sql: Sql, expires_ms: int) -> bool:
    """Have the scheduler look when this message expires, unless it looks before.

    Returns:
        Whether the scheduler has to be woken after the commit.
    """
    due_ms = sql.value("SELECT due_ms FROM schedule WHERE kind = ? AND key = ?", EXPIRY, _ONLY)
    is_sooner = due_ms is None or expires_ms < due_ms
    if is_sooner:
        scheduler.put(sql, EXPIRY, _ONLY, expires_ms)
    return is_sooner


class Upkeep:
    """The handlers of what is due."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def register(self) -> None:
        """Take over the kinds of rows that are written here; none keeps an idle broker."""
        schedule = self._parts.scheduler
        schedule.register(LEASE, self.end_lease, holds_broker=False)
        schedule.register(EXPIRY, self.expire, holds_broker=False)
        schedule.register(FORGETTING, self.forget, holds_broker=False)

    async def end_lease(self, key: str, payload: Payload, due_ms: int) -> None:  # noqa: ARG002 - the scheduler's shape
        """See off a peer that has not come back in its lease."""
        mesh, _, peer = key.partition("/")
        parts = self._parts
        told = await parts.commit(
            partial(peers.end_lease, mesh=mesh, peer=peer, now_ms=parts.now_ms())
        )
        if told and await parts.roster.load(mesh) is not None:
            await parts.tell_presence(mesh, peer, News(Change.LEFT))

    async def expire(self, key: str, payload: Payload, due_ms: int) -> None:  # noqa: ARG002 - the scheduler's shape
        """Take off the queues what nobody took in time, and tell those who sent it."""
        parts = self._parts
        while True:
            gone = await parts.commit(self._expire_some)
            for one in gone:
                self._tell(one)
            if len(gone) < _AT_ONCE:
                return

    def _expire_some(self, sql: Sql) -> list[Expired]:
        gone = outcomes.expire(sql, self._parts.now_ms(), _AT_ONCE)
        soonest = outcomes.next_expiry_ms(sql)
        if soonest is not None:
            scheduler.put(sql, EXPIRY, _ONLY, soonest)
        return gone

    def _tell(self, one: Expired) -> None:
        deliveries = self._parts.deliveries
        reader = deliveries.feed(one.mesh, one.recipient)
        if reader is not None:
            reader.settle([one.seq])
        news = BrokerNews(
            id=one.id,
            recipient=one.recipient,
            status=ReceiptStatus.EXPIRED,
            at_ms=one.expires_ms,
        )
        deliveries.tell(one.mesh, one.sender, news)

    async def forget(self, key: str, payload: Payload, due_ms: int) -> None:  # noqa: ARG002 - the scheduler's shape
        """Delete what nobody can ask for any more."""
        parts = self._parts
        now_ms = parts.now_ms()

        def change(sql: Sql) -> int:
            scheduler.put(sql, FORGETTING, _ONLY, now_ms + FORGET_EVERY_MS)
            return max(
                outcomes.forget(sql, now_ms, _AT_ONCE), absence.put_away(sql, now_ms, _AT_ONCE)
            )

        while await parts.commit(change) >= _AT_ONCE:
            pass
        await parts.commit(partial(absence.sweep, now_ms=now_ms))
