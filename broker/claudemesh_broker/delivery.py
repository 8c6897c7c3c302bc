"""Hands messages and notices to the peers that are attached, in order and no faster than they ack.

Features hand over what they have committed; ``session.py`` attaches a connection and takes frames
for its socket from the connection's ``Feed``. The rows in the store are the truth: whatever does
not go out at once is read from there later, and is pushed again on the next attach until acked.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, TypeVar

import anyio

from claudemesh_broker import queues
from claudemesh_broker.bus import Bus
from claudemesh_broker.queues import Consignment, Place, Waiting
from claudemesh_broker.sql import Sql
from claudemesh_wire import frame
from claudemesh_wire.errors import Conflict
from claudemesh_wire.handshake import Closing
from claudemesh_wire.keys import public_hash
from claudemesh_wire.message import Notice
from claudemesh_wire.messages import Deliver, Delivery
from claudemesh_wire.receipts import ReceiptNews, ReceiptStatus, SignedReceipts

MAX_IN_FRAME: Final = 64
MAX_FRAME_LOAD_BYTES: Final = 512 * 1024
_GATHER_S: Final = 0.5
_QUIET_S: Final = 1.0
_REPLACED: Final = Closing(
    code="replaced", reason="Another session of this peer attached and took its place."
)
R = TypeVar("R")


class Reader(Protocol):
    """The part of the store that feeds need."""

    def read(self, query: Callable[[Sql], R], /) -> Awaitable[R]:
        """Answer a query; it sees every change that was resolved before."""
        ...


class Outlet(Protocol):
    """A connection, as far as what is pushed to it goes."""

    def put(self, text: str) -> None:
        """Queue a text for the socket."""
        ...

    def wake(self) -> None:
        """Come and take from the feed."""
        ...

    def end(self, closing: Closing) -> None:
        """Say why, and close."""
        ...

    async def room(self) -> None:
        """Wait until little waits for the socket."""
        ...


@dataclass(frozen=True)
class Credit:
    """How much of a queue may be with a peer without its ack."""

    messages: int = 256
    bytes: int = 4 * 1024 * 1024


@dataclass(frozen=True)
class Attachment:
    """Which peer a connection serves, by which device; the higher fence is the later attach."""

    mesh: str
    peer: str
    member: str
    device: str
    fence: int


class Feed:
    """What one attached connection is owed.

    Either it is level with the store, and a commit goes straight to the connection; or it is
    behind, and everything waits for its turn in the store. So no push overtakes an older row.

    Args:
        attachment: Whose queue this is.
        outlet: The connection.
        store: Where the queue is.
        credit: How much may be unacked.
    """

    def __init__(
        self, attachment: Attachment, outlet: Outlet, store: Reader, credit: Credit
    ) -> None:
        self.attachment = attachment
        self.outlet = outlet
        self._store = store
        self._credit = credit
        self._ready: deque[Waiting] = deque()
        self._news: deque[tuple[SignedReceipts, bytes, bytes]] = deque()
        self._news_items = 0
        self._news_are_due = False
        self._news_timer: asyncio.TimerHandle | None = None
        self._told_s = -_QUIET_S
        self._unacked: dict[int, int] = {}
        self._unacked_bytes = 0
        self._cursor = 0
        self._behind = True
        self._missed = False
        self._refill = anyio.Event()
        self._refill.set()
        self._told: set[bytes] = set()
        self._closed = False

    def push(self, seq: int, copy: Callable[[], Waiting]) -> None:
        """Hand over a row that was committed just now; ``copy`` makes it when it can go out."""
        if self._closed or seq in self._unacked:
            return
        if self._behind:
            self._missed = True
        elif seq <= self._cursor or not self._has_room():
            # Its turn is in the store, behind what else waits there.
            self._cursor = min(self._cursor, seq - 1)
            self._fall_behind()
        else:
            self._offer(copy())
            self.outlet.wake()

    def look(self) -> None:
        """Look into the store: something may be there."""
        if self._behind:
            self._missed = True
        elif not self._closed:
            self._fall_behind()

    def tell_receipts(self, batch: SignedReceipts, certificate: bytes) -> None:
        """Hand over receipts for messages that this peer sent; where many come, they gather."""
        if self._closed:
            return
        self._news.append((batch, batch.certificate, certificate))
        self._news_items += len(batch.items)
        loop = asyncio.get_running_loop()
        if self._news_items >= MAX_IN_FRAME or loop.time() - self._told_s >= _QUIET_S:
            self._let_news_out()
        elif self._news_timer is None:
            self._news_timer = loop.call_later(_GATHER_S, self._let_news_out)

    def _let_news_out(self) -> None:
        if self._news_timer is not None:
            self._news_timer.cancel()
            self._news_timer = None
        self._news_are_due = True
        self.outlet.wake()

    def settle(self, rows: Iterable[int]) -> None:
        """Give back the credit of rows that left the queue."""
        for seq in rows:
            self._unacked_bytes -= self._unacked.pop(seq, 0)
        if self._behind and len(self._unacked) * 2 <= self._credit.messages:
            self._refill.set()

    def close(self) -> None:
        """Hand out nothing more: the connection is gone, or another took its place."""
        self._closed = True
        self._ready.clear()
        self._news.clear()
        if self._news_timer is not None:
            self._news_timer.cancel()
        self._refill.set()

    async def run(self) -> None:
        """Read from the store whenever the feed is behind and the peer has room, until closed."""
        while not self._closed:
            await self._refill.wait()
            self._refill = anyio.Event()
            while self._behind and self._has_room() and not self._closed:
                await self._catch_up()

    def take(self) -> str | None:
        """Give the next frame for the socket, or ``None`` when nothing is ready."""
        if self._ready:
            return self._deliveries()
        if self._news and self._news_are_due:
            return self._receipts()
        return None

    def _has_room(self) -> bool:
        return (
            len(self._unacked) < self._credit.messages and self._unacked_bytes < self._credit.bytes
        )

    def _fall_behind(self) -> None:
        self._behind = True
        if self._has_room():
            self._refill.set()

    def _offer(self, waiting: Waiting) -> None:
        size = len(waiting.envelope)
        self._cursor = waiting.seq
        self._unacked[waiting.seq] = size
        self._unacked_bytes += size
        self._ready.append(waiting)

    async def _catch_up(self) -> None:
        """Offer the next rows from the store; level with it when there were no more."""
        self._missed = False
        here = self.attachment
        bounds = (
            min(MAX_IN_FRAME, self._credit.messages - len(self._unacked)),
            min(MAX_FRAME_LOAD_BYTES, self._credit.bytes - self._unacked_bytes),
        )
        query = partial(
            queues.waiting, mesh=here.mesh, peer=here.peer, after=self._cursor, bounds=bounds
        )
        rows, more = await self._store.read(query)
        if self._closed:
            return
        for row in rows:
            self._cursor = row.seq
            if row.seq not in self._unacked:
                self._offer(row)
        # A commit meanwhile may be newer than what was read.
        self._behind = more or self._missed
        if rows:
            self.outlet.wake()

    def _deliveries(self) -> str:
        chosen: list[Delivery] = []
        certificates: list[bytes] = []
        load = 0
        while self._ready and len(chosen) < MAX_IN_FRAME:
            row = self._ready[0]
            unknown = row.certificate_hash not in self._told
            load += len(row.envelope) + (len(row.certificate) if unknown else 0)
            if chosen and load > MAX_FRAME_LOAD_BYTES:
                break
            self._ready.popleft()
            if unknown and row.certificate:
                self._told.add(row.certificate_hash)
                certificates.append(row.certificate)
            chosen.append(Delivery(row=row.seq, envelope=row.envelope, queued_ms=row.queued_ms))
        return frame.encode(0, 0, Deliver(deliveries=chosen, certificates=certificates))

    def _receipts(self) -> str:
        batches: list[SignedReceipts] = []
        certificates: list[bytes] = []
        items = 0
        while self._news and len(batches) < MAX_IN_FRAME and items < 4 * MAX_IN_FRAME:
            batch, name, certificate = self._news.popleft()
            items += len(batch.items)
            batches.append(batch)
            if name not in self._told:
                self._told.add(name)
                certificates.append(certificate)
        self._news_items -= items
        self._news_are_due = bool(self._news)
        self._told_s = asyncio.get_running_loop().time()
        return frame.encode(0, 0, ReceiptNews(batches=batches, certificates=certificates))


class Deliveries:
    """The feeds of all connections attached here.

    Args:
        store: Where the queues are.
        bus: The way to the other nodes that work on the same store.
        node: The name of this one.
        credit: How much may be with a peer without its ack.
    """

    def __init__(self, store: Reader, bus: Bus, node: str, credit: Credit) -> None:
        self._store = store
        self._bus = bus
        self._node = node
        self._credit = credit
        self._feeds: dict[str, dict[str, Feed]] = {}
        bus.subscribe(node, self._hear)

    @property
    def credit(self) -> Credit:
        """How much may be with a peer without its ack."""
        return self._credit

    def attach(self, attachment: Attachment, outlet: Outlet) -> Feed:
        """Make a connection the one its peer's queue goes to; an older one is told and closed.

        Raises:
            Conflict: ``replaced``: a later attach of the peer is here already.
        """
        feeds = self._feeds.setdefault(attachment.mesh, {})
        older = feeds.get(attachment.peer)
        if older is not None:
            if older.attachment.fence > attachment.fence:
                raise Conflict(_REPLACED.reason, "Use that one.", code=_REPLACED.code)
            older.close()
            older.outlet.end(_REPLACED)
        feed = Feed(attachment, outlet, self._store, self._credit)
        feeds[attachment.peer] = feed
        return feed

    def detach(self, feed: Feed) -> None:
        """Forget a connection that is gone."""
        feed.close()
        here = feed.attachment
        if self.feed(here.mesh, here.peer) is feed:
            del self._feeds[here.mesh][here.peer]

    def feed(self, mesh: str, peer: str) -> Feed | None:
        """Give the feed of an attached peer."""
        return self._feeds.get(mesh, {}).get(peer)

    def is_current(self, attachment: Attachment) -> bool:
        """Tell whether no later attach took this one's place."""
        feed = self.feed(attachment.mesh, attachment.peer)
        return feed is not None and feed.attachment.fence == attachment.fence

    def push(self, sent: Consignment, seq: int, places: Sequence[Place], now_ms: int) -> None:
        """Hand a committed message to those of its recipients that are attached."""
        name = public_hash(sent.header.cert)
        for place in places:
            feed = self.feed(sent.header.mesh, place.peer)
            if place.status is ReceiptStatus.DECLINED:
                continue
            if feed is not None:
                feed.push(seq, partial(_copy, sent, place.position, (seq, now_ms, name)))
            elif place.node is not None and place.node != self._node:
                self._bus.publish(place.node, f"{sent.header.mesh}/{place.peer}".encode())

    def _hear(self, payload: bytes) -> None:
        """Another node committed something for a peer that may be attached here."""
        mesh, _, peer = payload.decode().partition("/")
        feed = self.feed(mesh, peer)
        if feed is not None:
            feed.look()

    def tell(self, mesh: str, peer: str, notice: Notice) -> None:
        """Tell one peer, if it is attached."""
        feed = self.feed(mesh, peer)
        if feed is not None:
            feed.outlet.put(frame.encode(0, 0, notice))

    def tell_mesh(self, mesh: str, notice: Notice, besides: str = "") -> None:
        """Tell all attached peers of a mesh but one, with a text that is written once."""
        text = frame.encode(0, 0, notice)
        for peer, feed in self._feeds.get(mesh, {}).items():
            if peer != besides:
                feed.outlet.put(text)

    def tell_apart(
        self, member: str, own: Notice, others: Notice, besides: tuple[str, str]
    ) -> None:
        """Tell all attached peers of a mesh but one: one thing to a member's, another to the rest.

        Args:
            member: Whose peers hear ``own``.
            own: What those hear.
            others: What the others hear.
            besides: The mesh, and the peer that hears nothing.
        """
        mesh, peer = besides
        texts = [frame.encode(0, 0, notice) for notice in (own, others)]
        for name, feed in self._feeds.get(mesh, {}).items():
            if name != peer:
                feed.outlet.put(texts[feed.attachment.member != member])

    def tell_members(self, mesh: str, members: Collection[str], notice: Notice) -> None:
        """Tell all attached peers of some members, with a text that is written once."""
        text = frame.encode(0, 0, notice)
        for feed in self._feeds.get(mesh, {}).values():
            if feed.attachment.member in members:
                feed.outlet.put(text)

    def end(self, closing: Closing, is_meant: Callable[[Attachment], bool]) -> None:
        """Tell some of the attached connections why the broker closes them, and close them."""
        for feeds in self._feeds.values():
            for feed in feeds.values():
                if is_meant(feed.attachment):
                    feed.close()
                    feed.outlet.end(closing)


def _copy(sent: Consignment, position: int, facts: tuple[int, int, bytes]) -> Waiting:
    seq, now_ms, name = facts
    envelope = sent.sealed.copy_for(position).to_bytes()
    return Waiting(seq, envelope, now_ms, name, sent.certificate)
