"""Handing over: in order, no faster than acked, nothing twice, nothing forgotten.

The feeds read a store whose answers the test lets through one by one, so that a commit can fall
into every moment between them.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import anyio
import pytest
from anyio.lowlevel import checkpoint

from claudemesh_broker.bus import LocalBus
from claudemesh_broker.delivery import (
    MAX_FRAME_LOAD_BYTES,
    MAX_IN_FRAME,
    Attachment,
    Credit,
    Deliveries,
    Feed,
)
from claudemesh_broker.queues import Consignment, Place, Waiting
from claudemesh_wire.address import direct_conversation
from claudemesh_wire.envelope import Copy, Header, MembershipHead, Sealed
from claudemesh_wire.errors import Conflict
from claudemesh_wire.exchange import Exchange, Noticed
from claudemesh_wire.handshake import Closing
from claudemesh_wire.keys import b64, make_id
from claudemesh_wire.message import Notice
from claudemesh_wire.messages import Deliver
from claudemesh_wire.receipts import (
    BrokerNews,
    ReceiptItem,
    ReceiptNews,
    ReceiptStatus,
    SignedReceipts,
)

MESH = "mesh_" + "a" * 26
ADA, BOB, CAROL = (f"p_{letter * 26}" for letter in "abc")
LIMIT_S = 5
Answer = tuple[list[Waiting], bool]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class GatedStore:
    """The queue of one peer, read when the test says so."""

    rows: list[Waiting] = field(default_factory=list[Waiting])
    open: bool = True
    reads: int = 0
    gate: anyio.Event = field(default_factory=anyio.Event)

    def read(self, query: Any) -> Awaitable[Any]:
        """Take the snapshot now, give it when the gate opens."""
        after, (most, most_bytes) = query.keywords["after"], query.keywords["bounds"]
        waiting = [row for row in self.rows if row.seq > after]
        chosen: list[Waiting] = []
        for row in waiting[:most]:
            most_bytes -= len(row.envelope)
            if chosen and most_bytes < 0:
                break
            chosen.append(row)
        return self._answer((chosen, len(chosen) < len(waiting)))

    async def _answer(self, answer: Answer) -> Answer:
        self.reads += 1
        if not self.open:
            await self.gate.wait()
            self.gate = anyio.Event()
        await checkpoint()
        return answer

    def let_through(self) -> None:
        """Answer the read that waits."""
        self.gate.set()

    def commit(self, *numbers: int, size: int = 100, name: bytes = b"n") -> list[Waiting]:
        """Put rows into the queue."""
        rows = [Waiting(seq, bytes(size), seq, name, b"certificate") for seq in numbers]
        self.rows += rows
        return rows

    def ack(self, *numbers: int) -> None:
        """Take rows off the queue."""
        self.rows = [row for row in self.rows if row.seq not in numbers]


@dataclass
class Socket:
    """An outlet that keeps what it is given."""

    feed: Feed | None = None
    texts: list[str] = field(default_factory=list[str])
    closing: Closing | None = None
    woken: anyio.Event = field(default_factory=anyio.Event)

    def put(self, text: str) -> None:
        self.texts.append(text)

    def wake(self) -> None:
        self.woken.set()
        self.woken = anyio.Event()

    def end(self, closing: Closing) -> None:
        self.closing = closing

    def frames(self) -> list[Notice]:
        """Take everything from the feed."""
        assert self.feed is not None
        notices: list[Notice] = []
        while (text := self.feed.take()) is not None:
            notices.append(read(text))
        return notices

    def rows(self) -> list[int]:
        """Take everything from the feed, as the numbers of its rows."""
        deliveries = [notice for notice in self.frames() if isinstance(notice, Deliver)]
        return [one.row for notice in deliveries for one in notice.deliveries]


def read(text: str) -> Notice:
    event = Exchange().receive(text)
    assert isinstance(event, Noticed)
    return event.notice


def place(peer: str, fence: int = 1, mesh: str = MESH) -> Attachment:
    return Attachment(mesh, peer, "mem", "device", fence)


@dataclass
class Desk:
    """A feed with its store and its socket."""

    store: GatedStore
    socket: Socket
    feed: Feed

    def commit(self, *numbers: int, **fields: Any) -> None:
        """Put rows into the queue and hand them over, as a send does."""
        for row in self.store.commit(*numbers, **fields):
            self.feed.push(row.seq, lambda row=row: row)

    def ack(self, *numbers: int) -> None:
        """Take rows off the queue and give back their credit."""
        self.store.ack(*numbers)
        self.feed.settle(numbers)

    async def level(self) -> None:
        """Wait until everything has been read that can be."""
        with anyio.fail_after(LIMIT_S):
            for _ in range(50):
                await checkpoint()


def desk(store: GatedStore | None = None, credit: Credit | None = None) -> Desk:
    store, socket = store or GatedStore(), Socket()
    feed = Feed(place(BOB), socket, store, credit or Credit())
    socket.feed = feed
    return Desk(store, socket, feed)


async def running(at: Desk, act: Callable[[], Awaitable[None]]) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(at.feed.run)
        with anyio.fail_after(LIMIT_S):
            await act()
        at.feed.close()


async def test_what_waited_comes_first_then_what_is_committed() -> None:
    at = desk()
    at.store.commit(1, 2)

    async def act() -> None:
        await at.level()
        at.commit(3)
        assert at.socket.rows() == [1, 2, 3]
        assert at.store.reads == 1

    await running(at, act)


async def test_a_commit_during_the_read_does_not_overtake_what_waits() -> None:
    at = desk(GatedStore(open=False))
    at.store.commit(1)

    async def act() -> None:
        await at.level()
        at.commit(2)
        assert at.socket.rows() == []
        at.store.let_through()
        await at.level()
        assert at.socket.rows() == [1]
        at.store.let_through()
        await at.level()
        assert at.socket.rows() == [2]

    await running(at, act)


async def test_a_row_is_not_offered_twice_on_one_connection() -> None:
    at = desk(GatedStore(open=False))
    (row,) = at.store.commit(1)

    async def act() -> None:
        await at.level()
        at.store.let_through()
        await at.level()
        at.feed.push(1, lambda: row)
        at.feed.push(1, lambda: row)
        assert at.socket.rows() == [1]

    await running(at, act)


async def test_without_credit_rows_wait_in_the_store() -> None:
    at = desk(credit=Credit(messages=4))

    async def act() -> None:
        await at.level()
        at.commit(*range(1, 11))
        assert at.socket.rows() == [1, 2, 3, 4]
        at.ack(1)
        await at.level()
        assert at.socket.rows() == []
        at.ack(2)
        await at.level()
        assert at.socket.rows() == [5, 6]
        at.ack(3, 4, 5, 6)
        await at.level()
        assert at.socket.rows() == [7, 8, 9, 10]
        at.ack(7, 8, 9, 10)
        await at.level()
        at.commit(11)
        assert at.socket.rows() == [11]

    await running(at, act)


async def test_credit_is_counted_in_bytes_too() -> None:
    at = desk(credit=Credit(bytes=250))

    async def act() -> None:
        await at.level()
        at.commit(*range(1, 6))
        assert at.socket.rows() == [1, 2, 3]
        at.ack(1)
        await at.level()
        assert at.socket.rows() == [4]
        at.ack(2, 3, 4, 77)
        await at.level()
        assert at.socket.rows() == [5]

    await running(at, act)


async def test_a_commit_that_comes_out_of_turn_waits_for_its_turn() -> None:
    at = desk()

    async def act() -> None:
        await at.level()
        at.commit(5)
        at.commit(3)
        await at.level()
        assert at.socket.rows() == [5, 3]

    await running(at, act)


async def test_a_row_out_of_turn_waits_for_credit_too() -> None:
    at = desk(credit=Credit(messages=1))

    async def act() -> None:
        await at.level()
        at.commit(5)
        at.commit(3)
        await at.level()
        assert at.socket.rows() == [5]
        at.ack(5)
        await at.level()
        assert at.socket.rows() == [3]

    await running(at, act)


async def test_a_hint_makes_it_look_into_the_store() -> None:
    at = desk()

    async def act() -> None:
        await at.level()
        at.store.commit(1)
        at.feed.look()
        await at.level()
        assert at.socket.rows() == [1]

    await running(at, act)


async def test_a_hint_during_the_read_makes_it_read_again() -> None:
    at = desk(GatedStore(open=False))

    async def act() -> None:
        await at.level()
        at.store.commit(1)
        at.feed.look()
        at.store.let_through()
        await at.level()
        at.store.let_through()
        await at.level()
        assert at.socket.rows() == [1]

    await running(at, act)


async def test_a_closed_feed_is_dead() -> None:
    at = desk(GatedStore(open=False))
    at.store.commit(1)

    async def act() -> None:
        await at.level()
        at.feed.close()
        at.commit(2)
        at.feed.look()
        at.feed.tell_receipts(receipts(), b"certificate")
        at.store.let_through()
        await at.level()
        assert at.socket.frames() == []

    await running(at, act)


async def test_a_live_feed_that_is_closed_looks_no_more() -> None:
    at = desk()

    async def act() -> None:
        await at.level()
        at.feed.close()
        at.feed.look()
        await at.level()
        assert at.store.reads == 1

    await running(at, act)


async def test_frames_hold_so_many_rows_and_so_many_bytes() -> None:
    at = desk(credit=Credit(messages=1000, bytes=10**9))

    async def act() -> None:
        await at.level()
        at.commit(*range(1, MAX_IN_FRAME + 2))
        assert [len(cast("Deliver", one).deliveries) for one in at.socket.frames()] == [64, 1]
        large = MAX_FRAME_LOAD_BYTES // 2 + 1
        at.commit(100, 101, size=large)
        at.commit(102, size=2 * MAX_FRAME_LOAD_BYTES // 3)
        assert [len(cast("Deliver", one).deliveries) for one in at.socket.frames()] == [1, 1, 1]

    await running(at, act)


async def test_a_certificate_goes_along_once_per_connection() -> None:
    at = desk()

    async def act() -> None:
        await at.level()
        at.commit(1, 2, name=b"one")
        at.commit(3, name=b"two")
        first = cast("Deliver", at.socket.frames()[0])
        assert first.certificates == [b"certificate"] * 2
        at.commit(4, name=b"one")
        assert cast("Deliver", at.socket.frames()[0]).certificates == []

    await running(at, act)


async def test_a_copy_whose_certificate_is_gone_goes_without() -> None:
    at = desk()

    async def act() -> None:
        await at.level()
        at.feed.push(1, lambda: Waiting(1, b"copy", 1, b"name", b""))
        (notice,) = at.socket.frames()
        assert cast("Deliver", notice).certificates == []

    await running(at, act)


def receipts(items: int = 1) -> SignedReceipts:
    item = ReceiptItem(
        id=make_id("msg_", bytes(16)),
        header_hash=bytes(32),
        status=ReceiptStatus.SEEN,
        at_ms=1,
    )
    return SignedReceipts(
        sender=ADA, recipient=BOB, certificate=bytes(32), items=[item] * items, signature=bytes(64)
    )


async def test_receipts_travel_in_frames_of_so_many_items() -> None:
    at = desk()
    for _ in range(70):
        at.feed.tell_receipts(receipts(), b"certificate")
    first, second = (cast("ReceiptNews", one) for one in at.socket.frames())
    assert (len(first.batches), len(second.batches)) == (64, 6)
    assert (first.certificates, second.certificates) == ([b"certificate"], [])
    for _ in range(2):
        at.feed.tell_receipts(receipts(256), b"certificate")
    assert len(at.socket.frames()) == 2


async def test_messages_go_before_receipts() -> None:
    at = desk()

    async def act() -> None:
        await at.level()
        at.feed.tell_receipts(receipts(), b"certificate")
        at.commit(1)
        assert [type(one) for one in at.socket.frames()] == [Deliver, ReceiptNews]

    await running(at, act)


# All feeds of a node.


def consignment(readers: Sequence[str] = (BOB,)) -> Consignment:
    header = Header(
        mesh=MESH,
        conv=direct_conversation([ADA, *readers]),
        kind="message",
        id=make_id("msg_", bytes(16)),
        sender=ADA,
        cert=b64(bytes(32)),
        mh=MembershipHead(seq=1, head=b64(bytes(32))),
        seq=1,
        ts=1,
        exp=2,
        to=list(readers),
        kgen=[1] * len(readers),
    )
    slots = tuple(bytes([one]) * 80 for one in range(len(readers)))
    return Consignment(Sealed(b"{}", slots, b"body", bytes(64)), header, b"certificate")


@dataclass
class Node:
    """One broker process of two that share a store."""

    store: GatedStore
    deliveries: Deliveries

    def attach(self, peer: str, fence: int = 1, mesh: str = MESH) -> Socket:
        """Attach a connection."""
        socket = Socket()
        socket.feed = self.deliveries.attach(place(peer, fence, mesh), socket)
        return socket


def node(name: str = "one", bus: LocalBus | None = None, store: GatedStore | None = None) -> Node:
    store = store or GatedStore()
    return Node(store, Deliveries(store, bus or LocalBus(), name, Credit()))


ACCEPTED, DECLINED = ReceiptStatus.ACCEPTED, ReceiptStatus.DECLINED


async def test_a_committed_message_goes_to_those_who_are_attached() -> None:
    here = node()
    bob = here.attach(BOB)
    assert bob.feed is not None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bob.feed.run)
        for _ in range(20):
            await checkpoint()
        places = [
            Place(ADA, 0, DECLINED, "blocked"),
            Place(BOB, 1, ACCEPTED, node="one"),
            Place(CAROL, 2, ReceiptStatus.QUEUED),
        ]
        here.deliveries.push(consignment([ADA, BOB, CAROL]), 7, places, 123)
        (notice,) = bob.frames()
        (delivery,) = cast("Deliver", notice).deliveries
        assert (delivery.row, delivery.queued_ms) == (7, 123)
        assert Copy.parse(delivery.envelope).slot == bytes([1]) * 80
        bob.feed.close()


async def test_a_newer_attach_ends_the_older_and_not_the_other_way() -> None:
    here = node()
    older, newer = here.attach(BOB, 1), here.attach(BOB, 2)
    assert older.closing is not None
    assert older.closing.code == "replaced"
    assert not here.deliveries.is_current(place(BOB, 1))
    assert here.deliveries.is_current(place(BOB, 2))
    with pytest.raises(Conflict) as caught:
        here.attach(BOB, 1)
    assert caught.value.code == "replaced"
    assert older.feed is not None
    here.deliveries.detach(older.feed)
    assert here.deliveries.is_current(place(BOB, 2))
    assert newer.feed is not None
    here.deliveries.detach(newer.feed)
    assert not here.deliveries.is_current(place(BOB, 2))


async def test_a_notice_reaches_one_or_the_mesh_besides_one() -> None:
    here = node()
    ada, bob, other = here.attach(ADA), here.attach(BOB), here.attach(CAROL, mesh="mesh_b")
    news = BrokerNews(
        id=make_id("msg_", bytes(16)), recipient=BOB, status=ReceiptStatus.EXPIRED, at_ms=1
    )
    here.deliveries.tell(MESH, ADA, news)
    here.deliveries.tell(MESH, CAROL, news)
    here.deliveries.tell_mesh(MESH, news, besides=ADA)
    here.deliveries.tell_mesh("mesh_c", news)
    assert (len(ada.texts), len(bob.texts), len(other.texts)) == (1, 1, 0)


async def test_those_who_are_meant_are_ended() -> None:
    here = node()
    ada, bob = here.attach(ADA), here.attach(BOB)
    here.deliveries.end(Closing(code="removed", reason=""), lambda one: one.peer == BOB)
    assert ada.closing is None
    assert bob.closing is not None
    assert here.deliveries.credit == Credit()


async def test_another_node_is_told_and_looks_into_the_store() -> None:
    bus, store = LocalBus(), GatedStore()
    one, two = node("one", bus, store), node("two", bus, store)
    bob = two.attach(BOB)
    assert bob.feed is not None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bob.feed.run)
        for _ in range(20):
            await checkpoint()
        store.commit(7)
        places = [Place(BOB, 0, ACCEPTED, node="two"), Place(CAROL, 1, ACCEPTED, node="two")]
        one.deliveries.push(consignment([BOB, CAROL]), 7, places, 1)
        for _ in range(20):
            await checkpoint()
        assert bob.rows() == [7]
        bob.feed.close()


async def test_a_peer_that_left_this_node_meanwhile_is_no_ones_to_tell() -> None:
    heard: list[bytes] = []
    bus = LocalBus()
    here = node("one", bus)
    bus.subscribe("one", heard.append)
    here.deliveries.push(consignment(), 7, [Place(BOB, 0, ACCEPTED, node="one")], 1)
    assert heard == []
