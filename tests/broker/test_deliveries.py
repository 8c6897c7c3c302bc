"""All feeds of a node: who is pushed to, who is told, who is replaced, and the other nodes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import anyio
import pytest
from anyio.lowlevel import checkpoint

from claudemesh_broker.bus import LocalBus
from claudemesh_broker.delivery import (
    Credit,
    Deliveries,
)
from claudemesh_broker.queues import Consignment, Place
from claudemesh_wire.address import direct_conversation
from claudemesh_wire.envelope import Copy, Header, MembershipHead, Sealed
from claudemesh_wire.errors import Conflict
from claudemesh_wire.handshake import Closing
from claudemesh_wire.keys import b64, make_id
from claudemesh_wire.messages import Deliver
from claudemesh_wire.receipts import (
    BrokerNews,
    ReceiptStatus,
)
from tests.support.feeds import ADA, BOB, CAROL, MESH, GatedStore, Socket, place


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
