"""Handing over: in order, no faster than acked, nothing twice, nothing forgotten.

The feeds read a store whose answers the test lets through one by one, so that a commit can fall
into every moment between them.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

import anyio
from anyio.lowlevel import checkpoint

from claudemesh_broker.delivery import (
    MAX_FRAME_LOAD_BYTES,
    MAX_IN_FRAME,
    Credit,
    Feed,
)
from claudemesh_broker.queues import Waiting
from claudemesh_wire.keys import make_id
from claudemesh_wire.messages import Deliver
from claudemesh_wire.receipts import (
    ReceiptItem,
    ReceiptNews,
    ReceiptStatus,
    SignedReceipts,
)
from tests.support.feeds import ADA, BOB, LIMIT_S, GatedStore, Socket, place


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


async def test_receipts_that_follow_others_gather_until_they_are_worth_a_frame() -> None:
    at = desk()
    at.feed.tell_receipts(receipts(), b"certificate")
    assert len(at.socket.frames()) == 1
    for _ in range(63):
        at.feed.tell_receipts(receipts(), b"certificate")
    assert at.socket.frames() == []
    at.feed.tell_receipts(receipts(), b"certificate")
    (news,) = (cast("ReceiptNews", one) for one in at.socket.frames())
    assert len(news.batches) == 64


async def test_messages_go_before_receipts() -> None:
    at = desk()

    async def act() -> None:
        await at.level()
        at.feed.tell_receipts(receipts(), b"certificate")
        at.commit(1)
        assert [type(one) for one in at.socket.frames()] == [Deliver, ReceiptNews]

    await running(at, act)
