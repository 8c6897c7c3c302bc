"""Succession at the broker: who is whose heir, what it may read, and whose receipts count."""

from collections.abc import Sequence

import anyio
import pytest

from claudemesh_broker.delivery import Credit
from claudemesh_wire.groups import JoinGroup
from claudemesh_wire.messages import Delivery
from claudemesh_wire.presence import PresenceChanged, Stats, Status, UpdatePresence
from claudemesh_wire.receipts import AskStatus, ReceiptStatus, Report
from claudemesh_wire.search import SearchPeers
from claudemesh_wire.succession import (
    FetchInheritance,
    Inheritance,
    InheritanceGrew,
    ListPredecessors,
)
from tests.support.broker import MemoryBroker
from tests.support.people import DAY, Device, Mesh
from tests.support.rawpeer import ABOUT, RawPeer, Wish, join

LEASE_MS = 90_000
HOUR_MS = 3_600_000


@pytest.fixture
async def bob(broker: MemoryBroker, mesh: Mesh) -> RawPeer:
    return await join(broker, Device(mesh, mesh.add("bob"), "bob"))


async def ended(broker: MemoryBroker, device: Device, name: str = "ada") -> RawPeer:
    """Have a peer whose lease has ended."""
    peer = await join(broker, device, name)
    await peer.leave()
    broker.clock.pass_ms(LEASE_MS)
    await broker.run_due()
    return peer


@pytest.fixture
async def late(broker: MemoryBroker, mesh: Mesh, bob: RawPeer) -> RawPeer:
    assert bob
    return await ended(broker, Device(mesh, mesh.founder, "first"))


def deliveries(found: Inheritance) -> list[Delivery]:
    return [
        Delivery(row=one.row, envelope=one.envelope, queued_ms=one.queued_ms)
        for one in found.messages
    ]


async def inherited(peer: RawPeer) -> list[str]:
    return [one.of for one in (await peer.call(FetchInheritance())).messages]


async def waiting(broker: MemoryBroker) -> Sequence[tuple[int, ...]]:
    return await broker.sql("SELECT messages FROM queues WHERE messages > 0")


async def test_the_heir_reads_what_waited_and_its_receipt_ends_it(
    broker: MemoryBroker, mesh: Mesh, bob: RawPeer, late: RawPeer
) -> None:
    accepted = await bob.send("ada")
    heir = await join(broker, Device(mesh, mesh.founder, "second"), "ada")
    assert (heir.facts.succeeds, heir.facts.queued) == ([late.peer], 1)
    found = await heir.call(FetchInheritance())
    assert ([one.of for one in found.messages], found.more) == ([late.peer], False)
    assert found.certificates == [bob.certificate.blob]
    assert heir.delivered() == []
    assert (await heir.ack(*deliveries(found))).taken == 1
    assert await inherited(heir) == []
    assert await waiting(broker) == []
    assert await broker.sql("SELECT * FROM envelopes") == []
    (told,) = (await bob.call(AskStatus(id=accepted.id))).recipients
    assert (told.peer, told.status) == (late.peer, ReceiptStatus.DELIVERED)
    assert told.delivered is not None
    assert told.delivered.recipient == heir.peer
    assert told.certificate == late.certificate.blob


async def test_the_heir_is_told_of_what_is_sent_to_the_old_id(
    broker: MemoryBroker, mesh: Mesh, bob: RawPeer, late: RawPeer
) -> None:
    heir = await join(broker, Device(mesh, mesh.founder, "second"), "ada")
    accepted = await bob.send(late.peer)
    assert accepted.recipients[0].status == ReceiptStatus.QUEUED
    await heir.until(lambda: bool(heir.of(InheritanceGrew)))
    assert await inherited(heir) == [late.peer]


async def test_nobody_else_reads_it_or_speaks_for_it(
    broker: MemoryBroker, mesh: Mesh, bob: RawPeer, late: RawPeer
) -> None:
    accepted = await bob.send(late.peer)
    heir = await join(broker, Device(mesh, mesh.founder, "second"), "ada")
    stranger = await join(broker, Device(mesh, mesh.founder, "third"), "eve")
    found = deliveries(await heir.call(FetchInheritance()))
    for other in (bob, stranger):
        assert await inherited(other) == []
        assert (await other.ack(*found)).taken == 0
    forged = heir.receipts(found)
    assert (await stranger.refused(Report(batches=[forged]))).code == "wrong_recipient"
    (told,) = (await bob.call(AskStatus(id=accepted.id))).recipients
    assert told.status == ReceiptStatus.QUEUED


@pytest.mark.parametrize(
    ("changed", "member"),
    [
        ({"cwd": "/other"}, "ada"),
        ({"host": "laptop"}, "ada"),
        ({"type": "human"}, "ada"),
        ({"cwd": "", "host": ""}, "ada"),
        ({}, "eve"),
    ],
)
async def test_only_a_claude_session_of_the_member_host_and_folder_succeeds(
    broker: MemoryBroker,
    mesh: Mesh,
    bob: RawPeer,
    late: RawPeer,
    *,
    changed: dict[str, str],
    member: str,
) -> None:
    await bob.send(late.peer)
    owner = mesh.founder if member == "ada" else mesh.add(member)
    wish = Wish(about=ABOUT.model_copy(update=changed))
    other = await join(broker, Device(mesh, owner, "second"), "ada", wish)
    assert other.handle == ("ada" if member == "ada" else "ada-2")
    assert (other.facts.succeeds, other.facts.queued) == ([], 0)
    assert await inherited(other) == []
    back = await join(broker, late.device, "ada")
    assert len(await back.receive(1)) == 1


async def test_the_heir_is_to_others_what_the_ended_one_was(
    broker: MemoryBroker, mesh: Mesh, bob: RawPeer
) -> None:
    first = await join(broker, Device(mesh, mesh.founder, "first"), "ada")
    for group, role in (("ops", "lead"), ("dev", "")):
        await first.call(JoinGroup(group=group, role=role))
    await first.call(UpdatePresence(status=Status.DND, share_cwd=True))
    await bob.send("ada")
    await first.ack(*await first.receive(1))
    broker.clock.pass_ms(HOUR_MS)
    await first.leave()
    broker.clock.pass_ms(LEASE_MS)
    await broker.run_due()
    heir = await join(broker, Device(mesh, mesh.founder, "second"), "ada")
    broker.clock.pass_ms(HOUR_MS)
    (card,) = (await bob.call(SearchPeers(query="ada"))).peers
    assert (card.peer, card.online, card.status, card.cwd) == (heir.peer, True, "dnd", "/work")
    assert sorted((one.name, one.role) for one in card.groups) == [("dev", ""), ("ops", "lead")]
    counted = Stats(sessions=2, received=1, online_ms=2 * HOUR_MS)
    assert card.stats == counted
    late = await join(broker, first.device, "ada")
    (card,) = (await bob.call(SearchPeers(query=late.peer))).peers
    assert (card.groups, card.stats) == ([], Stats(sessions=1))


async def test_the_heir_of_one_that_hid_hides(
    broker: MemoryBroker, mesh: Mesh, bob: RawPeer
) -> None:
    first = await join(broker, Device(mesh, mesh.founder, "first"), "ada")
    await first.call(UpdatePresence(visible=False))
    await first.leave()
    broker.clock.pass_ms(LEASE_MS)
    await broker.run_due()
    heir = await join(broker, Device(mesh, mesh.founder, "second"), "ada")
    assert not (await heir.call(UpdatePresence())).card.visible
    assert (await bob.call(SearchPeers(query="ada"))).peers == []
    assert [one.change.value for one in bob.of(PresenceChanged)] == ["joined", "left"]


async def test_of_two_that_come_at_once_one_is_the_heir_and_the_other_has_nothing(
    broker: MemoryBroker, mesh: Mesh, bob: RawPeer, late: RawPeer
) -> None:
    await bob.send(late.peer)
    both = dict[str, RawPeer]()

    async def come(anchor: str) -> None:
        both[anchor] = await join(broker, Device(mesh, mesh.founder, anchor), "ada")

    async with anyio.create_task_group() as tasks:
        for anchor in ("second", "third"):
            tasks.start_soon(come, anchor)
    heir, other = sorted(both.values(), key=lambda one: one.handle)
    assert (heir.handle, heir.facts.succeeds) == ("ada", [late.peer])
    assert (other.handle, other.facts.succeeds) == ("ada-2", [])
    assert (await inherited(heir), await inherited(other)) == ([late.peer], [])


async def test_an_earlier_peer_that_merely_takes_the_name_is_no_heir(
    broker: MemoryBroker, mesh: Mesh, bob: RawPeer
) -> None:
    device = Device(mesh, mesh.founder, "other")
    await ended(broker, device, "eve")
    late = await ended(broker, Device(mesh, mesh.founder, "first"))
    await bob.send(late.peer)
    other = await join(broker, device, "eve", Wish(handles=("ada",)))
    assert (other.handle, other.facts.succeeds) == ("ada", [])
    assert await inherited(other) == []


async def test_a_peer_that_was_succeeded_is_written_to_once(
    broker: MemoryBroker, mesh: Mesh, bob: RawPeer, late: RawPeer
) -> None:
    heir = await join(broker, Device(mesh, mesh.founder, "second"), "ada")
    assert [one.peer for one in (await bob.resolve("*")).recipients] == [heir.peer]
    fork = await join(broker, late.device, "ada")
    reached = [one.peer for one in (await bob.resolve("*")).recipients]
    assert sorted(reached) == sorted([heir.peer, fork.peer])


async def test_a_long_inheritance_comes_in_parts(
    broker: MemoryBroker, mesh: Mesh, bob: RawPeer, late: RawPeer
) -> None:
    second = await ended(broker, Device(mesh, mesh.founder, "second"), "ada")
    for _ in range(3):
        await bob.send(late.peer, second.peer)
    heir = await join(broker, Device(mesh, mesh.founder, "third"), "ada")
    after, got = (0, ""), list[tuple[int, str]]()
    for more in (True, True, False):
        asked = FetchInheritance(after_row=after[0], after_peer=after[1], limit=2)
        found = await heir.call(asked)
        assert found.more == more
        got += [(one.row, one.of) for one in found.messages]
        after = got[-1]
    assert got == sorted(set(got))
    assert len(got) == 6
    assert set(heir.facts.succeeds) == {late.peer, second.peer}


async def test_what_was_delivered_is_seen_by_the_heir(
    broker: MemoryBroker, mesh: Mesh, bob: RawPeer
) -> None:
    first = await join(broker, Device(mesh, mesh.founder, "first"), "ada")
    accepted = await bob.send("ada")
    (delivery,) = await first.receive(1)
    await first.ack(delivery)
    await first.leave()
    broker.clock.pass_ms(LEASE_MS)
    heir = await join(broker, Device(mesh, mesh.founder, "second"), "ada")
    assert await inherited(heir) == []
    assert (await heir.ack(delivery, status=ReceiptStatus.SEEN)).taken == 1
    (told,) = (await bob.call(AskStatus(id=accepted.id))).recipients
    assert told.delivered is not None
    assert told.seen is not None
    assert (told.delivered.recipient, told.seen.recipient) == (first.peer, heir.peer)


@pytest.mark.parametrize("status", [ReceiptStatus.DELIVERED, ReceiptStatus.SEEN])
async def test_an_heirs_receipts_say_nothing_of_what_its_fork_is_sent(
    broker: MemoryBroker, mesh: Mesh, bob: RawPeer, late: RawPeer, status: ReceiptStatus
) -> None:
    heir = await join(broker, Device(mesh, mesh.founder, "second"), "ada")
    fork = await join(broker, late.device, "ada")
    await fork.leave()
    accepted = await bob.send("*")
    (delivery,) = await heir.receive(1)
    assert (await heir.ack(delivery, status=status)).taken == 1
    found = await bob.call(AskStatus(id=accepted.id))
    assert {one.peer: one.status for one in found.recipients} == {
        heir.peer: status,
        fork.peer: ReceiptStatus.QUEUED,
    }
    back = await join(broker, late.device, "ada-2")
    assert [one.row for one in await back.receive(1)] == [delivery.row]
    assert (await back.ack(*back.delivered())).taken == 1


async def test_a_fork_beside_its_heir_is_handed_more_than_its_credit(
    broker: MemoryBroker, mesh: Mesh, bob: RawPeer, late: RawPeer
) -> None:
    heir = await join(broker, Device(mesh, mesh.founder, "second"), "ada")
    fork = await join(broker, late.device, "ada")
    for count in range(1, Credit().messages + 10):
        await bob.send("*")
        for peer in (heir, fork):
            assert (await peer.ack((await peer.receive(count))[-1])).taken == 1


async def test_what_a_fork_had_before_it_came_back_is_seen_by_its_heir(
    broker: MemoryBroker, mesh: Mesh, bob: RawPeer
) -> None:
    first = await join(broker, Device(mesh, mesh.founder, "first"), "ada")
    before = await bob.send("ada")
    (old,) = await first.receive(1)
    await first.ack(old)
    await first.leave()
    broker.clock.pass_ms(LEASE_MS)
    heir = await join(broker, Device(mesh, mesh.founder, "second"), "ada")
    fork = await join(broker, first.device, "ada")
    after = await bob.send(fork.peer)
    (new,) = await fork.receive(1)
    await fork.ack(new)
    for delivery, sent, taken in ((old, before, 1), (new, after, 0)):
        assert (await heir.ack(delivery, status=ReceiptStatus.SEEN)).taken == taken
        (told,) = (await bob.call(AskStatus(id=sent.id))).recipients
        assert (told.seen is not None) == bool(taken)


async def test_a_fork_that_is_back_once_more_takes_over_nothing(
    broker: MemoryBroker, mesh: Mesh, bob: RawPeer, late: RawPeer
) -> None:
    assert await join(broker, Device(mesh, mesh.founder, "second"), "ada")
    fork = await join(broker, late.device, "ada")
    await fork.call(UpdatePresence(summary="mine"))
    await fork.leave()
    other = await ended(broker, Device(mesh, mesh.founder, "third"), "carol")
    await bob.send(other.peer)
    again = await join(broker, late.device, "carol", Wish(handles=("carol",)))
    assert (again.handle, again.facts.succeeds) == ("carol", [])
    assert (await again.call(UpdatePresence())).card.summary == "mine"
    assert await inherited(again) == []


async def test_all_are_listed_in_parts_however_long_ago_they_ended(
    broker: MemoryBroker, mesh: Mesh, late: RawPeer
) -> None:
    second = await ended(broker, Device(mesh, mesh.founder, "second"), "ada")
    device = Device(mesh, mesh.founder, "third")
    heir = await join(broker, device, "ada")
    fork = await join(broker, second.device, "ada")
    assert (await heir.call(ListPredecessors())).peers == [late.peer]
    await fork.leave()
    await heir.leave()
    broker.clock.pass_ms(29 * DAY)
    await ended(broker, device.renewed(), "ada")
    last = await join(broker, Device(mesh, mesh.founder, "fourth"), "ada")
    after, got = "", list[str]()
    for more in (True, False):
        found = await last.call(ListPredecessors(after=after, limit=1))
        assert found.more == more
        got += found.peers
        after = got[-1]
    assert got == sorted([late.peer, heir.peer])
    assert set(last.facts.succeeds) == set(got)
